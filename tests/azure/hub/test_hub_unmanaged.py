"""A machine on unmanaged disks comes home: its VHDs are fetched, changed here, and written back by pages."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobClient, BlobServiceClient
from tests.azure.hub.conftest import GROUP, SIZE
from tests.azure.hub.failback_world import ADDRESS, CHANGED, DISK, Vault, World, make_vault
from tests.azuresim import AzureSim, seeds
from tests.azuresim.compute.state import compute
from tests.azuresim.hub import hub

from farshore_cli.dev.azurite import Azurite
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.tasks import TaskKind

FOOTER = b"conectix" + bytes(504)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return make_vault(tmp_path_factory.mktemp("vault") / "v")


@pytest.fixture
def container(azurite: Azurite) -> Iterator[str]:
    name = f"vhds-{secrets.token_hex(4)}"
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        service.create_container(name).close()
        yield name
        service.delete_container(name)


@pytest.fixture
def world(vault: Vault, azurite: Azurite, container: str, tmp_path: Path) -> Iterator[World]:
    with hub() as sim:
        sim.parts["storage"].serve_with(azurite.connection_string)
        made = World.made(sim, vault, tmp_path / "state")
        made.seed(machine=False)
        sim.parts["storage"].account("hubdisks", GROUP)
        uris = {}
        for name in CHANGED:
            with BlobClient.from_connection_string(azurite.connection_string, container, f"{name}.vhd") as blob:
                blob.create_page_blob(DISK + len(FOOTER))
                for at in range(0, DISK, BLOCK_SIZE):
                    if any(part := vault.before[name][at : at + BLOCK_SIZE]):
                        blob.upload_page(part, offset=at, length=len(part))
                blob.upload_page(FOOTER, offset=DISK, length=len(FOOTER))
                uris[name] = blob.url
        put_machine(sim, uris)
        compute(sim).guest_shuts_down("shop")
        yield made


def put_machine(sim: AzureSim, uris: dict[str, str]) -> None:
    group = f"/subscriptions/{sim.subscription}/resourceGroups/{GROUP}/providers"
    subnet = f"{group}/Microsoft.Network/virtualNetworks/vnet/subnets/default"
    nic = seeds.nic(sim, GROUP, "shop-nic", subnet, ADDRESS)
    disk = {"createOption": "Attach", "caching": "ReadOnly"}
    profile = {
        "osDisk": {**disk, "osType": "Linux", "name": "shop-os", "vhd": {"uri": uris["system"]}},
        "dataDisks": [{**disk, "lun": 2, "name": "shop-data", "vhd": {"uri": uris["data"]}}],
    }
    properties = {
        "hardwareProfile": {"vmSize": SIZE}, "storageProfile": profile,
        "networkProfile": {"networkInterfaces": [{"id": nic, "properties": {"primary": True}}]},
    }  # fmt: skip
    body = {"location": sim.region, "properties": properties}
    sim.seed("PUT", f"{group}/Microsoft.Compute/virtualMachines/shop", body)


def read(azurite: Azurite, container: str, name: str) -> bytes:
    with BlobClient.from_connection_string(azurite.connection_string, container, f"{name}.vhd") as blob:
        return bytes(blob.download_blob().readall())


@pytest.mark.parametrize("lost", [False, True], ids=["one go", "the process server is lost in between"])
def test_pages_that_differ_are_written_and_the_machine_is_the_same_again(
    lost: bool, world: World, azurite: Azurite, container: str, tmp_path: Path
) -> None:
    result = world.step(TaskKind.WRITE_BACK)
    assert result.bytes_written == sum(map(len, CHANGED.values())) * BLOCK_SIZE
    assert read(azurite, container, "system")[:DISK] == world.vault.before["system"], "not before the machine starts"
    if lost:
        shutil.rmtree(world.state)
        world = world.other_server(tmp_path / "other")
        world.step(TaskKind.WRITE_BACK)
    started = world.step(TaskKind.START_SOURCE)
    assert started.bytes_written == result.bytes_written
    for name, wanted in world.vault.content.items():
        assert read(azurite, container, name) == wanted + FOOTER
    machine = compute(world.sim).machine("shop")
    profile = machine.properties["storageProfile"]
    assert [one["lun"] for one in profile["dataDisks"]] == [2] and profile["osDisk"]["caching"] == "ReadOnly"
    assert compute(world.sim).power_of("shop") == "running"
    assert not list((world.state / "machines").rglob("*.raw")), "no copy is left here"
    assert not list((world.state / "hub").glob("*.json"))
