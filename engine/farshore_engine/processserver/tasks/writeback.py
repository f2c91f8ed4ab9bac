"""WriteBack: a point onto a machine's own disks at this site, only the blocks that differ from what is on them.

What differs is found by digests of what is there, so it does not matter what happened to the disks since. The machine
must be off. Where its disks are gone, new ones are written; where this host never knew the machine, they are written
where those of recovered machines are, and StartSource makes the machine anew from the point's description.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.hydrate.compare import rewrite
from farshore_engine.hydrate.verify import verify
from farshore_engine.hydrate.windows import Progress
from farshore_engine.machines.loop import devices_of
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import DiskFile
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.progress import ProgressMeter, pace
from farshore_engine.processserver.tasks.context import TaskContext, disk_files, power_of, vault_of
from farshore_engine.processserver.tasks.finalpoint import RUNS
from farshore_engine.processserver.tasks.owndisks import match_disks
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.records import PointDisk


def write_back(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. Once it was done, a repeated task says so, and leaves the disks of a machine that runs alone."""
    if (done := _done(task, context)) is not None:
        return done
    power = power_of(task, context)
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
        reader = PointReader(vault, point)
        if power is not None:
            require_off(task, power)
            files = match_disks(point.manifest.disks, power.disks(task.input.source_machine))
        else:
            files = {file.id: file for file in disk_files(point, _own_dir(task, context))}
        for disk in point.manifest.disks:
            _check(disk, files[disk.id])
        for disk in reader.disks:
            files[disk.id].path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = write_disks(
            reader, files, context, "This host's storage does not return what was written: use another disk"
        )
    result = made.model_copy(update={"point": point.summary})
    write_private(_note(task, context), json.dumps(_mark(task) | {"result": result.model_dump_json()}).encode())
    return result


def write_disks(reader: PointReader, files: Mapping[str, DiskFile], context: TaskContext, remedy: str) -> TaskResult:
    """Write what differs of a point's disks onto `files`, by the disks' ids, and compare all of them with the point.

    Raises:
        StopFault: the storage does not return what was written; `remedy` says what to do about it.
    """
    moved = written = before = 0
    meter, total = ProgressMeter(), sum(disk.size_bytes for disk in reader.disks)
    for disk in reader.disks:

        def tell(progress: Progress, name: str = disk.name, base: int = before) -> None:
            meter.note(time.monotonic(), total, base + progress.done)
            percent = (base + progress.done) * 100 // max(1, total)
            context.progress(min(99, percent), f"writing disk {name} back: {pace(meter)}")

        found = rewrite(reader, disk.id, files[disk.id].path, report=tell)
        moved, written, before = moved + found.fetched, written + found.written, before + disk.size_bytes
    for disk in reader.disks:
        context.progress(99, f"verifying disk {disk.name}")
        if wrong := verify(reader, disk.id, files[disk.id].path):
            raise StopFault(
                f"{files[disk.id].path} differs from the point at blocks {wrong[:5]} behind the write",
                remedy,
                reason="DiskDiffers",
            )
    return TaskResult(
        bytes_moved=moved,
        bytes_written=written,
        disk_bytes=total,
        disks_verified=True,
        disk_paths=tuple(str(files[disk.id].path) for disk in reader.disks),
    )


def new_disks(task: TaskAssignment, context: TaskContext) -> bool:
    """Whether an earlier WriteBack wrote new disks for a machine that this host did not know."""
    name = task.input.source_machine
    return bool(name) and any((context.machines_dir / Path(name).name).glob("disk-*.raw"))


def require_off(task: TaskAssignment, power: MachineRuntime) -> None:
    """Raise StopFault unless the machine is off: nobody else may write to its disks."""
    name = task.input.source_machine
    machine = power.inspect(name)
    if machine is not None and machine.state in RUNS:
        raise StopFault(
            f"the machine {name} runs on the disks that are to be written",
            "Power it off: what it has written since the failover is replaced by the point",
            reason="MachineRuns",
        )


def _check(disk: PointDisk, file: DiskFile) -> None:
    """Refuse to write to what is in use, or is larger than the point's disk and so cannot be its own."""
    path = file.path
    if path.is_file() and (held := devices_of(path)):
        raise StopFault(
            f"the disk {path} is in use, as {', '.join(held)}", "Detach it (losetup -d)", reason="DiskInUse"
        )
    if not path.exists():
        return
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
    if size > disk.size_bytes:
        raise StopFault(
            f"the disk {path} has {size} bytes and the point's disk {disk.name} {disk.size_bytes}: it is another one",
            "Give the machine a disk of the point's size, or take this one away for a new one to be made",
            reason="DisksDiffer",
        )


def _own_dir(task: TaskAssignment, context: TaskContext) -> Path:
    name = Path(task.input.source_machine).name
    if not name or name != task.input.source_machine:
        raise StopFault(
            f"{task.input.source_machine!r} cannot be a machine's name", "Correct spec.source.machine", reason="BadTask"
        )
    return context.machines_dir / name


def _note(task: TaskAssignment, context: TaskContext) -> Path:
    return context.machines_dir.parent / "written-back" / Path(task.name).name


def _mark(task: TaskAssignment) -> dict[str, str]:
    return {"point": task.input.point, "machine": task.input.machine_id}


def _done(task: TaskAssignment, context: TaskContext) -> TaskResult | None:
    try:
        note = json.loads(_note(task, context).read_text())
        if {name: note.get(name) for name in _mark(task)} == _mark(task):
            return TaskResult.model_validate_json(note["result"])
    except (FileNotFoundError, ValueError, KeyError):
        pass
    return None
