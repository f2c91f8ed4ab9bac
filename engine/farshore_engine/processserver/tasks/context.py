"""What executors are given, and what they need more than once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.machines.directory import VALID_NAME
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import DiskFile
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.installer import DataPort, Installer
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.stores import open_machine

STARTED = "started.json"


def _no_last_point(machine: str, hold: float, power_off: bool, seconds: float) -> HeldPoint:
    raise StopFault(f"{machine} does not replicate here", "Give the task to its process server", reason="NotAssigned")


@dataclass(frozen=True)
class TaskContext:
    """The process server as executors see it.

    Attributes:
        machines_dir: `<state>/machines`, where the disks of recovered machines are.
        take_point: (machine id, seconds) → a point committed from now; raises Fault.
        progress: tells how far the task is (percent, sentence); raises StopFault when the task was called off.
        take_last: (machine id, seconds frozen, cut your own power, seconds) → its last point, with the machine held.
        sources: machines of this host that were always here; None if there are none.
        hub: this host at the Azure Stack Hub of its site, if it is at one.
    """

    machines_dir: Path
    runtime: MachineRuntime
    installer: Installer
    data_port: Callable[[], DataPort]
    take_point: Callable[[str, float], RecoveryPoint]
    now: Callable[[], datetime]
    progress: Callable[[int | None, str], None]
    take_last: Callable[[str, float, bool, float], HeldPoint] = _no_last_point
    sources: MachineRuntime | None = None
    hub: HubSetting = field(default_factory=HubSetting)


class Executor(Protocol):
    """Carries a task out. It may be called again after a crash and must find what it made before.

    Raises:
        WaitFault: it is called again until the task's deadline.
        StopFault: the task fails.
    """

    def __call__(self, task: TaskAssignment, context: TaskContext) -> TaskResult:
        """Do it and return the result."""
        ...


def machine_dir(task: TaskAssignment, context: TaskContext) -> Path:
    """Return the directory of the recovered machine's disks; raises StopFault for a name that is none."""
    name = task.input.machine_name
    if not VALID_NAME.fullmatch(name):
        raise StopFault(f"{name!r} cannot be a machine's name", "This is a bug of the operator", reason="BadTask")
    return context.machines_dir / name


def source_of(task: TaskAssignment) -> Source:
    """Return where the source machine is; raises StopFault when the task does not say."""
    if task.source is None:
        raise StopFault(
            f"the source machine {task.input.machine_id} and its credentials are not known to this process server",
            "Check spec.source and the Secret with the credentials",
            reason="NoSource",
        )
    return task.source


def note_start(task: TaskAssignment, directory: Path) -> None:
    """Write down, before it boots, what the machine of this directory was made from."""
    write_private(directory / STARTED, json.dumps(_origin(task) | {"run": task.run}).encode())


def already_started(task: TaskAssignment, directory: Path, context: TaskContext) -> bool:
    """Whether the machine of this directory is there and was made from the task's machine and point.

    Raises:
        StopFault: it is there and was made from something else: its disks are in use.
    """
    if context.runtime.inspect(directory.name) is None:
        return False
    if {name: value for name, value in _noted_origin(directory).items() if name != "run"} == _origin(task):
        return True
    raise StopFault(
        f"there is a machine {directory.name} already, made from another point or machine; its disks are in use",
        "Clean it up first, or give this one another name: spec.target.name of the ProtectedVM",
        reason="MachineConflict",
    )


def made_of_another_point(task: TaskAssignment, directory: Path) -> bool:
    """Whether the machine of this directory was made of the task's machine, and not from the point that it names."""
    origin = _noted_origin(directory)
    return origin.get("machine") == task.input.machine_id and origin.get("point") != task.input.point


def make_way(task: TaskAssignment, directory: Path, context: TaskContext) -> None:
    """Stop the machine of this directory for a change of its recovery point, if it was made by the run that is named.

    A task of an earlier run that comes again names nothing, or a run that has had its day, and stops nothing.
    """
    origin = _noted_origin(directory)
    wanted = task.input.replaces
    if not wanted or origin.get("run") != wanted or origin.get("machine") != task.input.machine_id:
        return
    context.progress(None, f"stopping {directory.name}, which is moved to another recovery point")
    context.runtime.stop(directory.name)
    (directory / STARTED).unlink(missing_ok=True)


def _noted_origin(directory: Path) -> dict[str, str]:
    try:
        origin = json.loads((directory / STARTED).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _origin(task: TaskAssignment) -> dict[str, str]:
    return {"machine": task.input.machine_id, "point": task.input.point}


def power_of(task: TaskAssignment, context: TaskContext) -> MachineRuntime | None:
    """Return the machines of this host if the task's source machine is one of them, None where it is not."""
    name = task.input.source_machine
    runtimes = [context.runtime] if context.sources is None else [context.sources, context.runtime]
    return next((runtime for runtime in runtimes if name and runtime.knows(name)), None)


@contextmanager
def vault_of(task: TaskAssignment, *, create: bool = False) -> Iterator[MachineVault]:
    """Open the machine's part of the vault; raises Fault."""
    if task.vault is None:
        raise StopFault("the task names no vault", "Check the RecoveryVault of the machine", reason="NoVault")
    vault = open_machine(task.vault, task.input.machine_id, create=create)
    try:
        yield vault
    finally:
        vault.close()


def disk_files(point: StoredPoint, directory: Path) -> tuple[DiskFile, ...]:
    """Return where the disks of a point are hydrated to, in the order of the point."""
    return tuple(
        DiskFile(directory / f"disk-{number}.raw", disk.id, Path(disk.name).name)
        for number, disk in enumerate(point.manifest.disks)
    )
