"""What executors are given, and what they need more than once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.machines.directory import VALID_NAME
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import DiskFile
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.installer import DataPort, Installer
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.stores import open_machine

STARTED = "started.json"


@dataclass(frozen=True)
class TaskContext:
    """The process server as executors see it.

    Attributes:
        machines_dir: `<state>/machines`, where the disks of recovered machines are.
        take_point: (machine id, seconds) → a point committed from now; raises Fault.
        progress: tells how far the task is (percent, sentence); raises StopFault when the task was called off.
    """

    machines_dir: Path
    runtime: MachineRuntime
    installer: Installer
    data_port: Callable[[], DataPort]
    take_point: Callable[[str, float], RecoveryPoint]
    now: Callable[[], datetime]
    progress: Callable[[int | None, str], None]


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
    write_private(directory / STARTED, json.dumps(_origin(task)).encode())


def already_started(task: TaskAssignment, directory: Path, context: TaskContext) -> bool:
    """Whether the machine of this directory is there and was made from the task's machine and point.

    Raises:
        StopFault: it is there and was made from something else: its disks are in use.
    """
    if context.runtime.inspect(directory.name) is None:
        return False
    try:
        origin = json.loads((directory / STARTED).read_text())
    except (FileNotFoundError, ValueError):
        origin = None
    if origin == _origin(task):
        return True
    raise StopFault(
        f"there is a machine {directory.name} already, made from another point or machine; its disks are in use",
        "Clean it up first, or give this one another name: spec.target.name of the ProtectedVM",
        reason="MachineConflict",
    )


def _origin(task: TaskAssignment) -> dict[str, str]:
    return {"machine": task.input.machine_id, "point": task.input.point}


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
