"""`farshore vault export`: the disks of a recovery point as image files, with the storage credential and the key alone.

A run that was interrupted goes on where it was when it is repeated. Every block is verified before it is written. A
file has its name only when all of it is there, so one that stopped at a damaged block is never taken for a disk.
"""

from __future__ import annotations

import hashlib
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from farshore_cli.commands.vault import Machine, app, open_place
from farshore_cli.commands.vault_check import chosen_point
from farshore_cli.vaultplace import Place, vault_command
from farshore_engine.contract.faults import Fault, StopFault

if TYPE_CHECKING:
    from farshore_engine.hydrate.raw import Progress, Report
    from farshore_engine.vault.machine import MachineVault, StoredPoint
    from farshore_engine.vault.records import PointDisk

DISK = "{disk}"
UNFINISHED = ".part"


class ImageFormat(StrEnum):
    """What an exported disk becomes."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VHD = "vhd"


@dataclass(frozen=True)
class Job:
    """One disk and the file that it goes to."""

    disk: PointDisk
    file: Path
    format: ImageFormat

    @property
    def unfinished(self) -> Path:
        """Where the image is until it is complete; a device has no other name, and a qcow2 sees to it itself."""
        device = self.file.exists() and not self.file.is_file()
        if device or self.format is ImageFormat.QCOW2:
            return self.file
        return self.file.with_name(self.file.name + UNFINISHED)


@app.command("export")
@vault_command
def export(
    place: Place,
    vm: Machine,
    point: Annotated[str, typer.Argument(help="Name of the point, an RFC 3339 time, Latest or LatestAppConsistent.")],
    file: Annotated[
        str, typer.Argument(help="File to write. Several disks: a directory, or a name with {disk} in it.")
    ],
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Format of the images.")] = ImageFormat.RAW,
    disk: Annotated[list[str] | None, typer.Option("--disk", help="Only this disk, by name or id; repeatable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there, once all is written.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Requests at once.")] = 4,
) -> None:
    """Write the disks of a recovery point to files, verified, sparse and resumable."""
    opened = open_place(place)
    vault = opened.open(opened.named(vm))
    try:
        chosen = chosen_point(vault, point)
        jobs = plan(chosen, tuple(disk or ()), file, image_format)
        for job in jobs:
            prepare(vault, chosen, job, force=force)
        with _pinned(vault, chosen, file):
            _refuse_spoiled(vault, chosen, jobs)
            for job in jobs:
                _write(vault, chosen, job, threads)
    finally:
        vault.close()


def plan(point: StoredPoint, wanted: tuple[str, ...], file: str, image_format: ImageFormat) -> list[Job]:
    """Return which disk goes to which file; raises StopFault when that is not clear."""
    disks = point.manifest.disks
    known = ", ".join(f"{one.name} ({one.id})" if one.name not in ("", one.id) else one.id for one in disks)
    for name in wanted:
        if not any(name in (one.id, one.name) for one in disks):
            raise StopFault(f"the point {point.manifest.name} has no disk {name}", f"Its disks are {known or 'none'}")
    chosen = [one for one in disks if not wanted or one.id in wanted or one.name in wanted]
    if not chosen:
        raise StopFault(f"the point {point.manifest.name} has no disks", "Choose another point")
    if DISK in file:
        files = [Path(file.replace(DISK, _word(one))) for one in chosen]
    elif file.endswith("/") or Path(file).is_dir():
        files = [Path(file) / f"{_word(one)}.{image_format.value}" for one in chosen]
    elif len(chosen) == 1:
        files = [Path(file)]
    else:
        raise StopFault(
            f"the point {point.manifest.name} has {len(chosen)} disks: {known}",
            f"Name a directory, or a file with {DISK} in its name, or one of the disks with --disk",
            reason="BadOptions",
        )
    if len(set(files)) != len(files):
        raise StopFault(
            "two disks would go to the same file", "Export them one by one with --disk", reason="BadOptions"
        )
    return [Job(one, path, image_format) for one, path in zip(chosen, files, strict=True)]


def prepare(vault: MachineVault, point: StoredPoint, job: Job, *, force: bool) -> None:
    """See that the file may be written: not there, or of an earlier run of the same export, or `force`.

    What is there under the file's own name stays until the new image is complete.
    """
    from farshore_engine.hydrate.progress import forget_state, read_state

    job.file.parent.mkdir(parents=True, exist_ok=True)
    for path in dict.fromkeys((job.file, job.unfinished)):
        if not path.exists():
            forget_state(path)
        elif not _holds(vault, job, path):
            begun = path != job.file and read_state(path) is not None  # an export of something else, never finished
            if not force and not begun:
                raise StopFault(
                    f"{path} is there, and it is not an export of the disk {job.disk.name} at {point.manifest.name}",
                    "Choose another file, or overwrite it with --force",
                    reason="FileExists",
                )
            if path == job.unfinished:
                forget_state(path)
                if path != job.file:
                    path.unlink()


def _holds(vault: MachineVault, job: Job, path: Path) -> bool:
    """Return whether the path holds this export: all of it under its own name, else as far as it got."""
    from farshore_engine.hydrate.progress import read_state

    state, root = read_state(path), job.disk.root.digest if job.disk.root is not None else ""
    mine = (vault.access.names.machine, job.disk.id, job.disk.size_bytes, root)
    same = state is not None and (state.machine, state.disk, state.size, state.root) == mine and not state.base
    tail = job.format is ImageFormat.RAW and path.stat().st_size > job.disk.size_bytes  # a VHD has a footer
    if path != job.unfinished:
        return same and not tail and state is not None and state.complete
    empty = path.is_file() and path.stat().st_blocks == 0  # one that was killed when it had just begun
    return (same and not tail) or empty


def _word(disk: PointDisk) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", disk.name or disk.id).strip("-.") or "disk"


@contextmanager
def _pinned(vault: MachineVault, point: StoredPoint, file: str) -> Iterator[None]:
    """Hold the point while it is read. A credential that may not write cannot; then it is said, and nothing is held."""
    place = hashlib.sha256(str(Path(file).absolute()).encode()).hexdigest()[:8]
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()).strip("-")[:60] or "host"
    name = f"export-{host}-{place}"  # the same for a repeated run, which so ends what a killed one began
    try:
        vault.pin(point, name, f"export to {file}")
    except StopFault as fault:
        if fault.reason == "PointGone":
            raise
        _say(f"the point is not held against pruning, because this credential may not write ({fault.message})")
        yield
        return
    signal.signal(signal.SIGTERM, _ended)  # so that the pin is released then too
    try:
        yield
    finally:
        try:
            vault.unpin(point.slot, name)
        except Fault as fault:
            _say(f"{name} still holds {point.manifest.name}: `farshore vault unpin` releases it ({fault.message})")


def _ended(_: int, __: object) -> NoReturn:
    raise SystemExit(143)


def _refuse_spoiled(vault: MachineVault, point: StoredPoint, jobs: list[Job]) -> None:
    """Refuse before anything is written, if objects that the disks need are missing."""
    from farshore_engine.vault.check import check_machine

    disks = {job.disk.id for job in jobs}
    for finding in check_machine(vault, point=point).findings:
        if finding.disk in disks:
            raise StopFault(
                f"the point {point.manifest.name} is damaged: {finding.blocks} blocks of disk {finding.disk} are lost, "
                f"because {finding.why} [{finding.name}]",
                "Choose another point: `farshore vault check` names those that are damaged",
                reason="PointDamaged",
            )


def _write(vault: MachineVault, point: StoredPoint, job: Job, threads: int) -> None:
    from farshore_cli.pointtable import size_text
    from farshore_engine.hydrate.progress import rename_image
    from farshore_engine.vault.reader import PointReader

    begun = time.monotonic()
    with _shown(job) as report:
        target = job.file if _finished(vault, job) else job.unfinished
        done = _writers()[job.format](PointReader(vault, point), job.disk.id, target, threads=threads, report=report)
        if target != job.file:
            rename_image(target, job.file)
    seconds = max(time.monotonic() - begun, 0.001)
    rate = f"{size_text(int(done.total / seconds))}/s"
    _say(
        f"{job.file}: disk {job.disk.name} of {point.manifest.name}, {size_text(done.total)} in {seconds:.0f} s, {rate}"
    )


def _finished(vault: MachineVault, job: Job) -> bool:
    return job.file.exists() and job.unfinished != job.file and _holds(vault, job, job.file)


def _writers() -> dict[ImageFormat, Callable[..., Progress]]:
    from farshore_engine.hydrate.qcow2 import hydrate_qcow2
    from farshore_engine.hydrate.raw import hydrate
    from farshore_engine.hydrate.vhd import hydrate_vhd

    return {ImageFormat.RAW: hydrate, ImageFormat.QCOW2: hydrate_qcow2, ImageFormat.VHD: hydrate_vhd}


@contextmanager
def _shown(job: Job) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    if not sys.stderr.isatty():
        from farshore_engine.hydrate.raw import silent

        yield silent
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(str(job.file), total=job.disk.size_bytes)
        report: Report = lambda now: bar.update(task, completed=now.done)  # noqa: E731
        yield report


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
