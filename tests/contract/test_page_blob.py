"""Points as page blobs: what Azure takes as a disk, checked with QEMU's reader of the same format."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from tests.contract.blob_container import blob_container
from tests.contract.faulty_store import FaultyStore
from tests.unit.vault.rig import Rig

from farshore_cli.dev.azurite import Azurite
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.hydrate import windows
from farshore_engine.hydrate.pageblob import PageBlob, PageBlobContainer, hydrate_page_blob, update_page_blob
from farshore_engine.hydrate.windows import Progress
from farshore_engine.vault.reader import PointReader

MIB = 1 << 20
SIZE = 200 * BLOCK_SIZE + 4096  # not a whole number of MiB


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several windows even for small disks."""
    monkeypatch.setattr(windows, "WINDOW", 40)


@pytest.fixture
def container(azurite: Azurite, container_name: str) -> Iterator[ContainerClient]:
    with blob_container(azurite, container_name) as client:
        yield client


@pytest.fixture
def blob(azurite: Azurite, container: ContainerClient) -> PageBlob:
    return disk_of(azurite, container)


def disk_of(azurite: Azurite, container: ContainerClient, owner: str = "ps-1") -> PageBlob:
    account = PageBlobContainer.connect(azurite.account_url, container.container_name, azurite.key)
    return account.disk("disk.vhd", owner, lease_seconds=60)


@pytest.fixture(scope="module")
def rig() -> Rig:
    rig = Rig(pack_target=1 << 18)
    rig.point("sda", {i: i + 1 for i in range(30)} | {i: i for i in range(150, 160)} | {200: 9}, size=SIZE)
    rig.point("sda", {3: 1000, 20: 0, 155: 1001, 190: 1002, 200: 10})
    rig.point("sda", {250: 4}, size=260 * BLOCK_SIZE)
    rig.point("sda", {}, size=21 * BLOCK_SIZE + 512)
    return rig


def reader(rig: Rig, number: int) -> PointReader:
    vault = rig.open()
    return PointReader(vault, vault.find(rig.names()[number]))


def check(container: ContainerClient, directory: Path, content: bytes) -> None:
    """Compare what QEMU makes of the blob with the disk."""
    size = -(-len(content) // MIB) * MIB
    vhd = directory / "downloaded.vhd"
    vhd.write_bytes(container.download_blob("disk.vhd").readall())
    assert vhd.stat().st_size == size + 512
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", vhd, directory / "raw"], check=True)
    assert (directory / "raw").read_bytes() == content.ljust(size, b"\0")


def content_of(rig: Rig, number: int) -> bytes:
    return rig.points[rig.names()[number]]["sda"]


def test_a_point_becomes_a_disk_for_azure_and_its_zeros_are_not_sent(
    rig: Rig, blob: PageBlob, container: ContainerClient, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    done = hydrate_page_blob(reader(rig, 0), "sda", blob, report=seen.append)
    check(container, tmp_path, content_of(rig, 0))
    assert done.written == 41 * BLOCK_SIZE
    assert seen[-1].done == seen[-1].total == SIZE
    pages = list(container.get_blob_client("disk.vhd").list_page_ranges())
    assert sum(page.end - page.start + 1 for page in pages) <= 41 * BLOCK_SIZE + 512
    assert hydrate_page_blob(reader(rig, 0), "sda", blob).fetched == 0, "what is complete is left alone"


def test_an_interrupted_upload_is_no_disk_and_is_continued_by_anybody(
    rig: Rig, azurite: Azurite, container: ContainerClient, tmp_path: Path
) -> None:
    left = {"reads": 5}

    def plan(operation: str, name: str) -> str | None:
        left["reads"] -= operation == "get_range"
        return "503" if left["reads"] < 0 else None

    whole, rig.store = rig.store, FaultyStore(rig.store, plan)
    try:
        interrupted = reader(rig, 0)
    finally:
        rig.store = whole
    with pytest.raises(WaitFault):
        hydrate_page_blob(interrupted, "sda", disk_of(azurite, container), threads=1)
    data = container.download_blob("disk.vhd").readall()
    assert b"conectix" not in data
    done = hydrate_page_blob(reader(rig, 0), "sda", disk_of(azurite, container, "ps-2"))
    assert 0 < done.written < 41 * BLOCK_SIZE
    check(container, tmp_path, content_of(rig, 0))


@pytest.mark.parametrize(
    ("base", "target", "most"),
    [
        pytest.param(0, 1, 5, id="changed blocks"),
        pytest.param(1, 2, 2, id="grown"),
        pytest.param(2, 3, 1, id="shrunk"),
        pytest.param(3, 0, 60, id="backward and grown"),
    ],
)
def test_a_warm_replica_is_moved_by_what_differs(
    rig: Rig, blob: PageBlob, container: ContainerClient, tmp_path: Path, base: int, target: int, most: int
) -> None:
    hydrate_page_blob(reader(rig, base), "sda", blob)
    stopped = {"at": 1}

    def stop(progress: Progress) -> None:
        stopped["at"] -= 1
        if stopped["at"] < 0:
            raise KeyboardInterrupt

    try:
        done = update_page_blob(reader(rig, base), reader(rig, target), "sda", blob, report=stop)
    except KeyboardInterrupt:
        done = update_page_blob(reader(rig, base), reader(rig, target), "sda", blob)
    assert done.written <= most * BLOCK_SIZE
    check(container, tmp_path, content_of(rig, target))


def test_a_blob_that_held_something_else_is_replaced_whole(
    rig: Rig, blob: PageBlob, container: ContainerClient, tmp_path: Path
) -> None:
    client = container.get_blob_client("disk.vhd")
    client.create_page_blob(32 * MIB)
    client.upload_page(b"\xff" * (4 * MIB), offset=4 * MIB, length=4 * MIB)
    with pytest.raises(StopFault) as caught:
        update_page_blob(reader(rig, 0), reader(rig, 1), "sda", blob)
    assert caught.value.reason == "WrongImage"
    hydrate_page_blob(reader(rig, 2), "sda", blob)
    check(container, tmp_path, content_of(rig, 2))
    hydrate_page_blob(reader(rig, 3), "sda", blob)
    check(container, tmp_path, content_of(rig, 3))


def test_two_appliances_never_write_one_blob(rig: Rig, azurite: Azurite, container: ContainerClient) -> None:
    first, second = disk_of(azurite, container), disk_of(azurite, container, "ps-2")
    with first.opened(SIZE):
        with pytest.raises(WaitFault) as caught:
            hydrate_page_blob(reader(rig, 0), "sda", second)
        assert caught.value.reason == "BlobInUse"
        with disk_of(azurite, container).opened(SIZE):
            pass  # the same appliance, restarted, need not wait
    with second.opened(SIZE):
        first._lease = second._lease
        with pytest.raises(WaitFault):
            first.write(0, memoryview(bytes(512)))
    first._lease = None


def test_a_container_that_is_missing_is_named(rig: Rig, azurite: Azurite) -> None:
    account = PageBlobContainer.connect(azurite.account_url, "no-such-container", azurite.key, deadline=60)
    with pytest.raises(StopFault, match="no-such-container"):
        hydrate_page_blob(reader(rig, 0), "sda", account.disk("disk.vhd", "ps-1"))
