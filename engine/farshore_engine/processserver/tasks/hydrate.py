"""Hydrate: write the point's disks on this host, then read every block back and compare it with the point's digests."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.hydrate.compare import rewrite
from farshore_engine.hydrate.progress import read_state, write_state
from farshore_engine.hydrate.raw import Progress, state_of
from farshore_engine.hydrate.raw import hydrate as hydrate_disk
from farshore_engine.hydrate.verify import verify
from farshore_engine.hydrate.windows import Report
from farshore_engine.processserver.progress import ProgressMeter, pace
from farshore_engine.processserver.tasks.context import (
    TaskContext,
    already_started,
    disk_files,
    machine_dir,
    make_way,
    vault_of,
)
from farshore_engine.vault.reader import PointReader


def hydrate(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. The disks of a machine that was started are its own: they are written again only for a change of
    the recovery point, which names the run that made the machine."""
    directory = machine_dir(task, context)
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
        make_way(task, directory, context)
        if already_started(task, directory, context):
            paths = tuple(str(file.path) for file in disk_files(point, directory))
            return TaskResult(point=point.summary, disk_paths=paths)
        reader = PointReader(vault, point)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        disks = disk_files(point, directory)
        total = sum(disk.size_bytes for disk in point.manifest.disks)
        before = moved = written = 0
        meter = ProgressMeter()
        for disk, file in zip(point.manifest.disks, disks, strict=True):
            done_before = before

            def tell(progress: Progress, name: str = disk.name, base: int = done_before) -> None:
                meter.note(time.monotonic(), total, base + progress.done)
                percent = (base + progress.done) * 100 // max(1, total)
                context.progress(min(99, percent), f"writing disk {name}: {pace(meter)}")

            found = _write(reader, disk.id, file.path, tell)
            moved, written, before = moved + found.fetched, written + found.written, before + disk.size_bytes
        for disk, file in zip(point.manifest.disks, disks, strict=True):
            context.progress(99, f"verifying disk {disk.name}")
            _check(reader, disk.id, file.path)
    return TaskResult(
        point=point.summary,
        bytes_moved=moved,
        bytes_written=written,
        disk_bytes=total,
        disks_verified=True,
        disk_paths=tuple(str(file.path) for file in disks),
    )


def _write(reader: PointReader, disk: str, image: Path, tell: Report) -> Progress:
    """Write a disk, on with what an earlier try began; what is there of another point is compared, and exchanged."""
    wanted, before = state_of(reader, disk), read_state(image)
    if not image.exists() or (before is not None and before.same_work(wanted)):
        return hydrate_disk(reader, disk, image, report=tell)
    done = rewrite(reader, disk, image, report=tell)
    write_state(image, replace(wanted, complete=True))
    return done


def _check(reader: PointReader, disk: str, image: Path) -> None:
    """Compare with the point what this host's storage gives back."""
    wrong = verify(reader, disk, image)
    if wrong:
        blocks = ", ".join(f"{first}+{count}" for first, count in wrong[:5])
        raise StopFault(
            f"{image} differs from the point at blocks {blocks}",
            "This host's storage does not return what was written: use another disk or host",
            reason="DiskDiffers",
        )
