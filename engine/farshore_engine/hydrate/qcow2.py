"""A recovery point as a qcow2 image: hydrated to raw beside it, then converted by QEMU's own tool.

The raw image is needed for the time of the conversion, so there must be room for both. An interrupted run resumes the
raw image; the conversion begins anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.image import translated
from farshore_engine.hydrate.progress import forget_state
from farshore_engine.hydrate.raw import THREADS, Progress, Report, hydrate, silent
from farshore_engine.vault.reader import PointReader


def hydrate_qcow2(
    reader: PointReader, disk: str, image: Path, *, threads: int = THREADS, report: Report = silent
) -> Progress:
    """Write a disk of the point to the qcow2 file `image`, which appears only when it is complete.

    Raises:
        StopFault: `qemu-img` is missing or fails.
        PointSpoiled, WaitFault: as for `hydrate`; a repeated call resumes.
    """
    tool = shutil.which("qemu-img")
    if tool is None:
        raise StopFault("qemu-img is missing", "Install qemu-utils, or write a raw image", reason="ToolMissing")
    raw = image.with_name(image.name + ".raw")
    unfinished = image.with_name(image.name + ".new")
    progress = hydrate(reader, disk, raw, threads=threads, report=report)
    command = [tool, "convert", "-f", "raw", "-O", "qcow2", "-W", str(raw), str(unfinished)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise StopFault(
            f"qemu-img could not write {image}: {done.stderr.strip()}",
            "Check space and permissions",
            reason="ImageError",
        )
    _settle(unfinished, image)
    forget_state(raw)
    raw.unlink()
    return progress


def _settle(unfinished: Path, image: Path) -> None:
    """Give the finished image its name, durably: `qemu-img` does not wait for the disk."""
    with translated(image):
        _sync(unfinished, os.O_RDONLY)
        unfinished.replace(image)
        _sync(image.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
