"""Hydration: a disk of a recovery point becomes a raw image, in full, or by moving an image from another point."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.image import Image
from farshore_engine.hydrate.progress import ImageState, forget_state, read_state, write_state
from farshore_engine.hydrate.windows import (
    THREADS,
    Progress,
    Report,
    Work,
    changed_blocks,
    silent,
    whole_disk,
    write_windows,
)
from farshore_engine.vault.reader import PointReader

__all__ = ["THREADS", "Progress", "Report", "hydrate", "silent", "state_of", "update", "update_state"]


def hydrate(
    reader: PointReader, disk: str, image: Path, *, threads: int = THREADS, report: Report = silent
) -> Progress:
    """Write a disk of the point to `image`, a file (made, sparse) or a block device that is large enough.

    If an earlier run of the same work was interrupted, it is continued. When this returns, the image is complete and
    durable. `report` is called in the calling thread after every part.

    Raises:
        PointSpoiled: something in the vault is damaged; the image is incomplete, and its sidecar says so.
        WaitFault: the store is away or the disk is full; call again.
        StopFault: the image cannot be written.
    """
    wanted = state_of(reader, disk)
    before = read_state(image)
    resumed = before is not None and before.same_work(wanted) and image.exists()
    state = before if resumed and before is not None else wanted
    if state.complete:
        return Progress(state.size, state.size)
    if not resumed:
        forget_state(image)  # before the image is emptied: what a sidecar says must be true at every moment
    target = Image(image, state.size, fresh=not resumed)
    try:
        if not resumed:
            write_state(image, state)
        work = Work(reader, disk, target, partial(write_state, image), threads, report)
        done = write_windows(work, state, whole_disk(reader.map(disk), clear=target.is_device))
    finally:
        target.close()
    write_state(image, replace(state, complete=True))
    return done


def update(
    base: PointReader,
    reader: PointReader,
    disk: str,
    image: Path,
    *,
    threads: int = THREADS,
    report: Report = silent,
) -> Progress:
    """Bring an image that holds a disk of the point `base` to the point of `reader`, writing only what differs.

    The image must hold exactly `base` (its sidecar must say so, as `hydrate` and `update` leave it) or be part-way
    between the two, after an interruption. Nobody may have written to it in between.

    Raises:
        StopFault: the sidecar says something else.
        PointSpoiled, WaitFault: as for `hydrate`.
    """
    state = update_state(read_state(image), base, reader, disk, str(image))
    if state.complete:
        return Progress(state.size, state.size)
    write_state(image, state)  # before the image is cut or written
    target = Image(image, state.size, fresh=False)
    try:
        work = Work(reader, disk, target, partial(write_state, image), threads, report)
        done = write_windows(work, state, changed_blocks(base, reader, disk))
    finally:
        target.close()
    write_state(image, replace(state, complete=True))
    return done


def state_of(reader: PointReader, disk: str) -> ImageState:
    """Return the state of a target at the beginning of the work."""
    found = reader.disk(disk)
    root = found.root.digest if found.root is not None else ""
    return ImageState(reader.vault.access.names.machine, disk, found.size_bytes, reader.point.manifest.name, root)


def update_state(
    before: ImageState | None, base: PointReader, reader: PointReader, disk: str, target: str
) -> ImageState:
    """Return how far a move of `target` from `base` to the point of `reader` is, given what is on record of it.

    Raises:
        StopFault: it holds something else.
    """
    old, new = state_of(base, disk), state_of(reader, disk)
    wanted = replace(new, base=old.point, base_root=old.root)
    if before is not None and before.same_work(wanted):
        return before
    if before is not None and before.complete and _holds(before, old):
        return wanted
    held = f"holds {before.point or 'something'}" if before is not None and before.complete else "is not complete"
    raise StopFault(
        f"the image {target} {held}, not the point {old.point} of {old.machine} disk {disk}",
        "Hydrate it anew",
        reason="WrongImage",
    )


def _holds(state: ImageState, point: ImageState) -> bool:
    mine = (state.machine, state.disk, state.size, state.root)
    return mine == (point.machine, point.disk, point.size, point.root)
