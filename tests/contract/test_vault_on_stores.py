"""A machine's whole life in a vault, on the real stores."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretBytes, SecretStr
from tests.contract.blob_container import blob_container
from tests.unit.vault.rig import KEK, MACHINE, Rig, packs

from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess, VaultAccess
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.chain import Fenced
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.stores import open_machine, open_store


@pytest.fixture(params=["directory", "account key", "connection string"])
def access(request: pytest.FixtureRequest, tmp_path: Path, container_name: str) -> Iterator[VaultAccess]:
    """Access as an assignment carries it."""
    if request.param == "directory":
        yield VaultAccess(name="v", storage=DirectoryAccess(path=tmp_path / "vault"), key=SecretBytes(KEK))
        return
    azurite = request.getfixturevalue("azurite")
    secret = (
        {"account_key": SecretStr(azurite.key)}
        if request.param == "account key"
        else {"connection_string": SecretStr(azurite.connection_string)}
    )
    storage = AzureBlobAccess(account_url=azurite.account_url, container=container_name, **secret)
    with blob_container(azurite, container_name):
        yield VaultAccess(name="v", storage=storage, prefix="eu", key=SecretBytes(KEK))


class PrefixedRig(Rig):
    """A rig on a vault that an assignment describes."""

    access: VaultAccess

    def open(self):  # type: ignore[no-untyped-def]
        return open_machine(self.access, MACHINE, create=True)


def test_points_pins_prune_fence_and_hydrate(access: VaultAccess, tmp_path: Path) -> None:
    PrefixedRig.access = access
    rig = PrefixedRig(open_store(access.storage))
    rig.point("sda", {i: i + 1 for i in range(200)}, size=300 * 65536)
    for turn in range(4):
        rig.point("sda", {turn: 1000 + turn, 250: turn})
    vault = rig.vault
    names = [p.manifest.name for p in vault.catalogue().points]
    vault.pin(vault.find(names[1]), "run-1")
    before = packs(rig.store)
    report = rig.prune(RetentionRules(keep_all=timedelta(minutes=6)))
    assert len(report.buried) == 2
    assert len(packs(rig.store)) == len(before) - report.packs_deleted
    kept = [p.manifest.name for p in rig.open().catalogue().points]
    assert kept == [names[1], *names[3:]]
    for name in kept:
        reader = PointReader(vault, vault.find(name))
        hydrate(reader, "sda", tmp_path / name)
        assert (tmp_path / name).read_bytes() == rig.points[name]["sda"]
    rig.open().claim(writer="other", epoch=2, reason="failover")
    with pytest.raises(Fenced):
        rig.point("sda", {1: 1})
