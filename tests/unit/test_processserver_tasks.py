"""Tasks may be repeated after a crash at any moment, also when what they did before has changed the world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import SecretBytes

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import DirectoryAccess, InstallMode, Source, VaultAccess
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency
from farshore_engine.contract.tasks import TaskAssignment, TaskInput, TaskKind
from farshore_engine.machines.spec import MachineKind, MachineSpec, MachineState, RunningMachine
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.processserver.tasks.hydrate import hydrate
from farshore_engine.processserver.tasks.shutdownsource import shutdown_source
from farshore_engine.processserver.tasks.startmachine import start_machine
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

KEY = b"k" * 32
CONTENT = b"\1" * (4 * BLOCK_SIZE)
SILENT = WaitFault("10.0.0.1:22 did not answer", reason="ConnectTimeout")
REFUSED = WaitFault("10.0.0.1:22 refused the connection", reason="ConnectionRefused")
BROKEN = StopFault("10.0.0.1:22 could not be powered off", "Power it off", reason="ShutdownFailed")


@dataclass
class Host:
    """The machine at the other end of SSH, and the host of recovered machines."""

    outcomes: list[bool | Fault] = field(default_factory=list)
    asks: bool = True
    running: dict[str, RunningMachine] = field(default_factory=dict)

    def shutdown(self, source: Source, asking: Callable[[], None]) -> bool:
        outcome = self.outcomes.pop(0)
        if self.asks and outcome is not SILENT and outcome is not REFUSED:
            asking()
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def inspect(self, name: str) -> RunningMachine | None:
        return self.running.get(name)

    def start(self, spec: MachineSpec) -> RunningMachine:
        machine = RunningMachine(spec.name, MachineKind.QEMU, MachineState.RUNNING, "10.0.0.9", 22, 1, Path("console"))
        return self.running.setdefault(spec.name, machine)


def context(directory: Path, host: Host) -> TaskContext:
    return TaskContext(
        machines_dir=directory / "machines",
        runtime=cast(Any, host),
        installer=cast(Any, host),
        data_port=lambda: DataPort("ps", 9443),
        take_point=cast(Any, None),
        now=lambda: datetime.now(UTC),
        progress=lambda percent, sentence: None,
    )


def task(kind: TaskKind, **given: object) -> TaskAssignment:
    source = Source(address="10.0.0.1", install=InstallMode.PUSH)
    return TaskAssignment(
        name="run-vm-step", kind=kind, run="run", input=TaskInput(machine_id="demo.vm", **given), source=source
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("earlier", "now", "confirmed"),
    [
        pytest.param([], True, True, id="seen to go silent"),
        pytest.param([WaitFault("the connection broke")], SILENT, True, id="asked before a crash and silent now"),
        pytest.param([False], SILENT, True, id="slow to shut down"),
        pytest.param([], SILENT, False, id="never reached"),
        pytest.param([SILENT], SILENT, False, id="never reached, twice"),
        pytest.param([WaitFault("the connection broke")], REFUSED, False, id="its kernel still answers"),
        pytest.param([BROKEN], SILENT, False, id="it refused to power off and was then cut off"),
        pytest.param([], False, False, id="it does not go down"),
    ],
)
def test_a_source_counts_as_off_once_it_was_asked_and_is_silent(
    tmp_path: Path, earlier: list[bool | Fault], now: bool | Fault, confirmed: bool
) -> None:
    host = Host([*earlier, now])
    step = task(TaskKind.SHUTDOWN_SOURCE)
    for _ in earlier:
        with pytest.raises(Fault):
            shutdown_source(step, context(tmp_path, host))
    if confirmed:
        assert shutdown_source(step, context(tmp_path, host)).confirmed is True
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    else:
        with pytest.raises(WaitFault):
            shutdown_source(step, context(tmp_path, host))


def vault(directory: Path) -> tuple[VaultAccess, str]:
    """Make a vault with one point of one disk; return it and the point's name."""
    store = DirectoryStore(directory / "vault")
    opened = MachineVault.open(store, KEY, "demo.vm", create=True)
    sink = PackUploader(store, opened.access.names)
    writer = PointWriter(opened, opened.claim(writer="ps", epoch=1, reason="test"), sink)
    writer.add("disk-a", np.arange(4), CONTENT)
    disks = (DiskFields("disk-a", "sda", len(CONTENT)),)
    point = writer.commit(PointFields(datetime.now(UTC), Consistency.CRASH, disks, MachineDescription(hostname="db")))
    sink.close()
    opened.close()
    access = VaultAccess(name="v", storage=DirectoryAccess(path=directory / "vault"), key=SecretBytes(KEY))
    return access, point.name


def test_the_disks_of_a_machine_that_was_started_are_never_written_again(tmp_path: Path) -> None:
    """A fresh cluster continues a run by repeating its tasks, and the recovered machine may have worked for days."""
    access, point = vault(tmp_path)
    host = Host()
    step = task(TaskKind.HYDRATE, machine_name="web", point=point).model_copy(update={"vault": access})
    (image,) = hydrate(step, context(tmp_path, host)).disk_paths
    start_machine(step, context(tmp_path, host))
    Path(image).write_bytes(b"\2" * len(CONTENT))  # the machine lives
    again = hydrate(step, context(tmp_path, host))
    assert again.disk_paths == (image,)
    assert again.disks_verified is None
    assert Path(image).read_bytes() == b"\2" * len(CONTENT)
    for other in ({"point": point, "machine_id": "demo.other"}, {"point": "another", "machine_id": "demo.vm"}):
        moved = step.model_copy(update={"input": step.input.model_copy(update=other)})
        with pytest.raises(StopFault):
            hydrate(moved, context(tmp_path, host))
    assert Path(image).read_bytes() == b"\2" * len(CONTENT)


def test_after_a_machine_was_taken_away_its_disks_are_hydrated_in_full(tmp_path: Path) -> None:
    access, point = vault(tmp_path)
    host = Host()
    step = task(TaskKind.HYDRATE, machine_name="web", point=point).model_copy(update={"vault": access})
    (image,) = hydrate(step, context(tmp_path, host)).disk_paths
    start_machine(step, context(tmp_path, host))
    Path(image).write_bytes(b"\2" * len(CONTENT))
    host.running.clear()
    assert hydrate(step, context(tmp_path, host)).disks_verified is True
    assert Path(image).read_bytes() == CONTENT
