"""Hydration: a disk of a recovery point becomes a raw image, by several threads, resumable, verified before written.

The disk is done in windows of 1 GiB. Inside a window the blocks are read pack by pack, so that a pack's neighbours
come in one request wherever they belong. A window counts as done when it is durable; then the sidecar says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np

from farshore_engine.blocks.grid import BLOCK_SIZE, block_count, runs_of
from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.image import Image, aligned_buffer
from farshore_engine.hydrate.memory import kept_memory
from farshore_engine.hydrate.progress import ImageState, read_state, write_state
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.decoder import Span, plan_spans
from farshore_engine.vault.encoding import BLOCK_REF, BlockRefs
from farshore_engine.vault.mapdiff import diff
from farshore_engine.vault.nodestore import MapSpoiled
from farshore_engine.vault.reader import PointReader, split_refs

WINDOW = 1 << 14  # blocks, 1 GiB
THREADS = 4
SPAN = 4 << 20  # bytes of a pack that one task reads
RECORDS = 128  # blocks of one task, 8 MiB


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is, in bytes: of the disk dealt with, of how many, written (holes are not), read from the vault."""

    done: int
    total: int
    written: int = 0
    fetched: int = 0


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report nothing."""


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
    found = reader.disk(disk)
    wanted = _state(reader, disk)
    before = read_state(image)
    resumed = before is not None and before.same_work(wanted) and image.exists()
    if resumed and before is not None and before.complete:
        return Progress(found.size_bytes, found.size_bytes)
    state = before if resumed and before is not None else wanted
    target = Image(image, found.size_bytes, fresh=not resumed)
    try:
        if not resumed:
            write_state(image, state)
        window = _whole(reader.map(disk), clear=target.is_device)
        return _windows(_Work(reader, disk, target, threads, report), state, window)
    finally:
        target.close()


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
    old, new = _state(base, disk), _state(reader, disk)
    wanted = replace(new, base=old.point, base_root=old.root)
    before = read_state(image)
    if before is None or not (before.same_work(wanted) or (before.complete and _holds(before, old))):
        held = f"holds {before.point or 'something'}" if before is not None and before.complete else "is not complete"
        raise StopFault(
            f"the image {image} {held}, not the point {old.point} of {old.machine} disk {disk}",
            "Hydrate it anew",
            reason="WrongImage",
        )
    state = before if before.same_work(wanted) else wanted
    if state.complete:
        return Progress(new.size, new.size)
    target = Image(image, new.size, fresh=False)
    try:
        write_state(image, state)
        old_map, new_map = base.map(disk), reader.map(disk)
        return _windows(_Work(reader, disk, target, threads, report), state, _changed(old_map, new_map))
    finally:
        target.close()


def _state(reader: PointReader, disk: str) -> ImageState:
    found = reader.disk(disk)
    root = found.root.digest if found.root is not None else ""
    return ImageState(reader.vault.access.names.machine, disk, found.size_bytes, reader.point.manifest.name, root)


def _holds(state: ImageState, point: ImageState) -> bool:
    mine = (state.machine, state.disk, state.size, state.root)
    return mine == (point.machine, point.disk, point.size, point.root)


Window = Callable[[int], BlockRefs]


def _whole(block_map: BlockMap, *, clear: bool) -> Window:
    """Return what to write in each window of a fresh image; with `clear`, holes too."""

    def window(first: int) -> BlockRefs:
        count = min(WINDOW, block_map.blocks - first)
        refs = np.zeros(count, BLOCK_REF)
        refs["index"] = np.arange(first, first + count)
        refs["ref"] = block_map.lookup(first, count)
        return refs if clear else refs[refs["ref"]["length"] != 0]

    return window


def _changed(old: BlockMap, new: BlockMap) -> Window:
    """Return what to write in each window of an update, asked for in order: the blocks that differ, holes included."""
    pending = diff(old, new)
    held: list[BlockRefs] = []

    def window(first: int) -> BlockRefs:
        while not held or int(held[-1]["index"][-1]) < first + WINDOW:
            refs = next(pending, None)
            if refs is None:
                break
            held.append(refs)
        every = np.concatenate(held) if held else np.zeros(0, BLOCK_REF)
        inside = every["index"] < first + WINDOW
        held[:] = [every[~inside]] if (~inside).any() else []
        return every[inside & (every["index"] >= first)]

    return window


@dataclass(frozen=True)
class _Work:
    reader: PointReader
    disk: str
    image: Image
    threads: int
    report: Report


def _windows(work: _Work, state: ImageState, window: Window) -> Progress:
    size = work.image.size
    so_far = Progress(0, size)
    with kept_memory(), ThreadPoolExecutor(work.threads, "hydrate") as pool:
        for number, first in enumerate(range(0, block_count(size), WINDOW)):
            if number not in state.windows:
                try:
                    refs = window(first)
                except MapSpoiled as error:
                    raise work.reader.spoiled_map(error) from error
                for step in _write(work, pool, refs, so_far):
                    so_far = step
                    work.report(so_far)
                work.image.sync()
                state = replace(state, windows=(*state.windows, number))
                write_state(work.image.path, state)
            so_far = replace(so_far, done=min(size, (first + WINDOW) * BLOCK_SIZE))
            work.report(so_far)
    write_state(work.image.path, replace(state, complete=True))
    return so_far


def _write(work: _Work, pool: ThreadPoolExecutor, block_refs: BlockRefs, so_far: Progress) -> Iterator[Progress]:
    """Write a window's blocks, in tasks of some megabytes of one pack each; yield the progress after each."""
    indexes, refs = split_refs(block_refs)
    for first, count in runs_of(indexes[refs["length"] == 0]):
        work.image.clear(first, count)

    buffers = threading.local()

    def task(span: Span) -> tuple[int, int]:
        if not hasattr(buffers, "aligned"):
            buffers.aligned = aligned_buffer(RECORDS * BLOCK_SIZE)
        buffer: memoryview = buffers.aligned
        loaded = work.reader.load(work.disk, indexes, refs, span)
        loaded.sort(key=itemgetter(0))
        for place, (_, plain) in enumerate(loaded):
            buffer[place * BLOCK_SIZE : (place + 1) * BLOCK_SIZE] = plain
        at = 0
        for first, count in runs_of(indexes[[position for position, _ in loaded]]):
            work.image.write(first, buffer[at * BLOCK_SIZE : (at + count) * BLOCK_SIZE])
            at += count
        return len(loaded) * BLOCK_SIZE, span.length

    for written, fetched in pool.map(task, plan_spans(refs, span=SPAN, records=RECORDS)):
        so_far = replace(
            so_far,
            done=min(so_far.total, so_far.done + written),
            written=so_far.written + written,
            fetched=so_far.fetched + fetched,
        )
        yield so_far
