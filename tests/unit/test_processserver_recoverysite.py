"""A recovery site finds out by trying whether it could recover its machines, and says what is in the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretBytes
from tests.unit.test_processserver_tasks import CONTENT, KEY, vault

from farshore_engine.contract.assignment import DirectoryAccess, RecoveryTarget, VaultAccess
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.machine import MachineDescription, MachineDisk
from farshore_engine.contract.points import Consistency
from farshore_engine.contract.replication import RecoveryReport
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.processserver import recoverysite
from farshore_engine.processserver.recoverysite import GIB, Findings, RecoverySite, look_at
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter


def target(access: VaultAccess, machine: str = "demo.vm", memory: int | None = None) -> RecoveryTarget:
    return RecoveryTarget(machine_id=machine, vault=access, memory_mib=memory)


@contextmanager
def site(directory: Path, look: Callable[[RecoveryTarget], Findings] = look_at) -> Iterator[RecoverySite]:
    made = RecoverySite(MachineRuntime(directory / "runtime"), directory, look)
    yield made
    made.stop()


def until(made: RecoverySite, test: Callable[[RecoveryReport], bool]) -> RecoveryReport:
    deadline = time.monotonic() + 120
    while not test(found := made.report()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_a_machine_whose_newest_point_opens_is_in_nobodys_way(tmp_path: Path) -> None:
    access, _ = vault(tmp_path)
    with site(tmp_path) as made:
        made.take([target(access)])
        found = until(made, lambda report: report.opened == 1)
    assert found.obstacles == ()
    assert found.disk_free_bytes % GIB == 0


def test_a_wrong_key_is_known_at_once_when_it_comes_and_forgotten_when_it_is_right(tmp_path: Path) -> None:
    access, _ = vault(tmp_path)
    wrong = access.model_copy(update={"key": SecretBytes(b"x" * 32)})
    with site(tmp_path) as made:
        made.take([target(access)])
        until(made, lambda report: report.opened == 1)
        made.take([target(wrong)])
        (obstacle,) = until(made, lambda report: bool(report.obstacles)).obstacles
        assert (obstacle.machine_id, obstacle.reason, obstacle.hard) == ("demo.vm", "NotReadable", True)
        made.take([target(access)])
        until(made, lambda report: report.opened == 1 and not report.obstacles)
        made.take([])
        assert made.report().opened == 0


def test_a_machine_of_which_nothing_is_in_the_vault_yet_is_not_in_the_way(tmp_path: Path) -> None:
    access, _ = vault(tmp_path)
    assert look_at(target(access, "demo.new")) == Findings()


def test_a_store_that_is_away_is_no_certain_failure(tmp_path: Path) -> None:
    access, _ = vault(tmp_path)
    away = Findings(WaitFault("the store does not answer", reason="Unreachable"))
    with site(tmp_path, lambda one: away) as made:
        made.take([target(access)])
        (obstacle,) = until(made, lambda report: bool(report.obstacles)).obstacles
    assert not obstacle.hard


@pytest.mark.parametrize(
    ("found", "memory", "expected"),
    [
        pytest.param(Findings(opened=True, disk_bytes=1 << 60), None, ["NoRoom"], id="disks larger than the host's"),
        pytest.param(Findings(opened=True, bootable=True), None, ["NoQEMU"], id="it boots, and nothing can boot it"),
        pytest.param(Findings(opened=True), None, [], id="it does not boot"),
        pytest.param(
            Findings(opened=True, bootable=True, memory_bytes=1 << 50), None, ["NoMemory", "NoQEMU"], id="it is huge"
        ),
        pytest.param(
            Findings(opened=True, bootable=True, memory_bytes=1 << 50), 600, ["NoQEMU"], id="it gets less than it had"
        ),
    ],
)
def test_what_the_host_lacks_is_said(
    found: Findings, memory: int | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recoverysite, "QEMU", "no-such-program")
    access, _ = vault(tmp_path)
    with site(tmp_path, lambda one: found) as made:
        made.take([target(access, memory=memory)])
        reported = until(made, lambda report: report.opened == 1)
    assert sorted(one.reason for one in reported.obstacles) == expected


def test_what_a_machine_needs_is_read_from_its_newest_point(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "vault")
    opened = MachineVault.open(store, KEY, "demo.vm", create=True)
    sink = PackUploader(store, opened.access.names)
    writer = PointWriter(opened, opened.claim(writer="ps", epoch=1, reason="test"), sink)
    writer.add("disk-a", np.arange(4), CONTENT)
    disk = MachineDisk(id="disk-a", name="sda", size_bytes=len(CONTENT), bootable=True)
    described = MachineDescription(hostname="db", memory_bytes=3 * GIB, disks=(disk,))
    fields = PointFields(datetime.now(UTC), Consistency.CRASH, (DiskFields("disk-a", "sda", len(CONTENT)),), described)
    writer.commit(fields)
    sink.close()
    opened.close()
    access = VaultAccess(name="v", storage=DirectoryAccess(path=tmp_path / "vault"), key=SecretBytes(KEY))
    assert look_at(target(access)) == Findings(None, len(CONTENT), 3 * GIB, True, True)
