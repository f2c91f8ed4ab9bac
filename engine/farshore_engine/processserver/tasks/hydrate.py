"""Hydrate: write the point's disks on this host, then read every block back and compare it with the point's digests."""

from __future__ import annotations

import time
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.hydrate.raw import Progress
from farshore_engine.hydrate.raw import hydrate as hydrate_disk
from farshore_engine.hydrate.verify import verify
from farshore_engine.processserver.progress import ProgressMeter
from farshore_engine.processserver.tasks.context import (
    TaskContext,
    already_started,
    disk_files,
    machine_dir,
    vault_of,
)
from farshore_engine.vault.reader import PointReader


def hydrate(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. The disks of a machine that was started are its own: they are never written again."""
    directory = machine_dir(task, context)
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
        if already_started(task, directory, context):
            paths = tuple(str(file.path) for file in disk_files(point, directory))
            return TaskResult(point=point.summary, disk_paths=paths)
        reader = PointReader(vault, point)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        disks = disk_files(point, directory)
        total = sum(disk.size_bytes for disk in point.manifest.disks)
        before = moved = 0
        meter = ProgressMeter()
        for disk, file in zip(point.manifest.disks, disks, strict=True):
            done_before = before

            def tell(progress: Progress, name: str = disk.name, base: int = done_before) -> None:
                meter.note(time.monotonic(), total, base + progress.done)
                percent = (base + progress.done) * 100 // max(1, total)
                context.progress(min(99, percent), f"writing disk {name}: {_pace(meter)}")

            moved += hydrate_disk(reader, disk.id, file.path, report=tell).fetched
            before += disk.size_bytes
        for disk, file in zip(point.manifest.disks, disks, strict=True):
            context.progress(99, f"verifying disk {disk.name}")
            _check(reader, disk.id, file.path)
    return TaskResult(
        point=point.summary,
        bytes_moved=moved,
        disk_bytes=total,
        disks_verified=True,
        disk_paths=tuple(str(file.path) for file in disks),
    )


def _pace(meter: ProgressMeter) -> str:
    """Say how much is written, how fast, and how long the rest takes."""
    found = meter.report()
    assert found is not None, "a sample was noted just before"
    words = f"{found.bytes_done / 2**30:.1f} of {found.bytes_total / 2**30:.1f} GiB"
    if found.rate:
        words += f", {found.rate / 2**20:.0f} MiB/s"
    return words if found.eta_seconds is None else f"{words}, {found.eta_seconds} s left"


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
