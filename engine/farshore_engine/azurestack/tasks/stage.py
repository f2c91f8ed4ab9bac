"""What the steps at a Hub have in common: the machine, what is kept of it, and where its disks are on this host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farshore_engine.azurestack.definition import Definition
from farshore_engine.azurestack.machine import AttachedDisk, Machine
from farshore_engine.azurestack.machines import Machines
from farshore_engine.azurestack.mastertarget import MasterTarget
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.azurestack.takenapart import TakenApart
from farshore_engine.azurestack.vhdblob import VhdBlob
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudSite
from farshore_engine.contract.tasks import TaskAssignment
from farshore_engine.machines.directory import VALID_NAME
from farshore_engine.machines.spec import DiskFile
from farshore_engine.processserver.tasks.context import TaskContext


@dataclass(frozen=True)
class Stage:
    """One step at a Hub, with its connection open."""

    task: TaskAssignment
    context: TaskContext
    manager: ResourceManager
    machines: Machines
    apart: TakenApart

    @property
    def name(self) -> str:
        """Name of the machine at the Hub."""
        name = self.task.input.source_machine or self.task.input.machine_name
        if not VALID_NAME.fullmatch(name):
            raise StopFault(f"{name!r} cannot be a machine's name", "Correct spec.source.machine", reason="BadTask")
        return name

    @property
    def target(self) -> MasterTarget:
        """This host's own machine at the Hub."""
        return MasterTarget(self.machines, self.context.hub.host)

    @property
    def directory(self) -> Path:
        """Where fetched VHDs of the machine are."""
        return self.context.machines_dir / self.name

    def machine(self) -> Machine | None:
        """Return the machine as it is now; by its private address where its name is another at the Hub."""
        return self.machines.find(self.name, self.task.source.address if self.task.source is not None else "")

    def kept(self) -> Definition | None:
        """Return the definition of the machine if it is taken apart."""
        return self.apart.kept(self.name)

    def place(self, definition: Definition) -> tuple[DiskFile, ...]:
        """Attach the machine's disks to this host, or fetch those that are unmanaged; return where they are, in order.

        A VHD that was fetched once is not fetched again: it is on this host that it is changed.
        """
        disks = definition.disks
        devices = self.target.attach([disk for disk in disks if disk.id]) if any(one.id for one in disks) else {}
        return tuple(DiskFile(devices.get(disk.id) or self._fetched(disk), disk.name, disk.name) for disk in disks)

    def unplace(self, definition: Definition) -> int:
        """Give the disks back to the Hub: write VHDs that were fetched, detach the others; return bytes written."""
        written = 0
        for disk in definition.disks:
            path = self._file(disk)
            if disk.uri and path.exists():
                with closing(VhdBlob(self.manager, disk.uri)) as blob:
                    written += blob.store(path, self._tell(f"writing {disk.name or path.name} back"))
        managed = [disk for disk in definition.disks if disk.id]
        if managed:
            self.target.detach(managed)
        return written

    def drop(self, disks: Sequence[AttachedDisk]) -> None:
        """Remove fetched VHDs: the machine has them again."""
        for disk in disks:
            self._file(disk).unlink(missing_ok=True)

    def _fetched(self, disk: AttachedDisk) -> Path:
        path = self._file(disk)
        if not path.exists():
            partial = path.with_suffix(".part")
            partial.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(VhdBlob(self.manager, disk.uri)) as blob:
                blob.fetch(partial, self._tell(f"fetching {disk.name or path.name}"))
            partial.replace(path)
        return path

    def _file(self, disk: AttachedDisk) -> Path:
        return self.directory / f"vhd-{'os' if disk.system else disk.lun}.raw"

    def _tell(self, what: str) -> Any:
        return lambda done, total: self.context.progress(min(99, done * 100 // max(1, total)), what)


@contextmanager
def staged(task: TaskAssignment, context: TaskContext) -> Iterator[Stage]:
    """Open the connection for one step."""
    with context.hub.connect(site_of(task)) as manager:
        machines = Machines(manager)
        apart = TakenApart(machines, context.machines_dir.parent / "hub")
        yield Stage(task, context, manager, machines, apart)


def site_of(task: TaskAssignment) -> CloudSite:
    """Return the Hub of the task; raises StopFault when the task names none."""
    if task.site is None:
        raise StopFault("the task names no Hub", "This is a bug of the operator", reason="BadTask")
    return task.site


def done_note(task: TaskAssignment, context: TaskContext) -> Path:
    """Return where a step notes that it ended."""
    return context.machines_dir.parent / "hub" / "steps" / Path(task.name).name
