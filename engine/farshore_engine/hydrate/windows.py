"""The work of every hydration: blocks of a point go to a target in windows, by threads, verified before written.

A disk is done in windows of 1 GiB, from the front. Inside a window the blocks are read pack by pack, so that a pack's
neighbours come in one request wherever they belong. When a window is durable in the target, the state says so; an
interrupted run is continued behind the last window that is on record.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Protocol

import numpy as np

from farshore_engine.blocks.grid import BLOCK_SIZE, block_count, runs_of
from farshore_engine.blocks.memory import kept_memory
from farshore_engine.hydrate.image import aligned_buffer
from farshore_engine.hydrate.progress import ImageState
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


class Target(Protocol):
    """What blocks are written to. `write` is called from several threads, the rest from one."""

    def write(self, block: int, data: memoryview) -> None:
        """Write blocks from `block` on, cut at the disk's end."""
        ...

    def clear(self, first: int, count: int) -> None:
        """Make blocks read as zeros."""
        ...

    def sync(self) -> None:
        """Make everything durable that was written and cleared."""
        ...


@dataclass(frozen=True)
class Work:
    """One disk of a point, where it goes, and where it is put on record how far it is (durably)."""

    reader: PointReader
    disk: str
    target: Target
    save: Callable[[ImageState], None]
    threads: int = THREADS
    report: Report = silent


Window = Callable[[int], BlockRefs]


def whole_disk(block_map: BlockMap, *, clear: bool) -> Window:
    """Return what to write in each window of a fresh target; with `clear`, holes too."""

    def window(first: int) -> BlockRefs:
        count = min(WINDOW, block_map.blocks - first)
        refs = np.zeros(count, BLOCK_REF)
        refs["index"] = np.arange(first, first + count)
        refs["ref"] = block_map.lookup(first, count)
        return refs if clear else refs[refs["ref"]["length"] != 0]

    return window


def changed_blocks(base: PointReader, reader: PointReader, disk: str) -> Window:
    """Return what to write in each window of an update, asked for in order: the blocks that differ, holes included.

    So is the block in which a smaller base ended: the target holds only a part of it, whatever the maps say.
    """
    old, new = base.map(disk), reader.map(disk)
    torn, rest = divmod(base.disk(disk).size_bytes, BLOCK_SIZE)
    grown = rest != 0 and base.disk(disk).size_bytes < reader.disk(disk).size_bytes
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
        found = every[inside & (every["index"] >= first)]
        if grown and first <= torn < first + WINDOW and torn not in found["index"]:
            own = np.zeros(1, BLOCK_REF)
            own["index"], own["ref"] = torn, new.lookup(torn, 1)
            found = np.sort(np.concatenate([found, own]), order="index")
        return found

    return window


def write_windows(work: Work, state: ImageState, window: Window) -> Progress:
    """Do what `state` says is left, and save how far it is after each window; it is not saved as complete.

    Raises:
        PointSpoiled: something in the vault is damaged.
        Fault: of the store or of the target.
    """
    size = state.size
    total = block_count(size)
    so_far = Progress(min(size, state.blocks * BLOCK_SIZE), size)
    with kept_memory(), ThreadPoolExecutor(work.threads, "hydrate") as pool:
        for first in range(state.blocks, total, WINDOW):
            try:
                refs = window(first)
            except MapSpoiled as error:
                raise work.reader.spoiled_map(error) from error
            for step in _write(work, pool, refs, so_far):
                so_far = step
                work.report(so_far)
            work.target.sync()
            state = replace(state, blocks=min(total, first + WINDOW))
            work.save(state)
            so_far = replace(so_far, done=min(size, state.blocks * BLOCK_SIZE))
            work.report(so_far)
    return so_far


def _write(work: Work, pool: ThreadPoolExecutor, block_refs: BlockRefs, so_far: Progress) -> Iterator[Progress]:
    """Write a window's blocks, in tasks of some megabytes of one pack each; yield the progress after each."""
    indexes, refs = split_refs(block_refs)
    for first, count in runs_of(indexes[refs["length"] == 0]):
        work.target.clear(first, count)
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
            work.target.write(first, buffer[at * BLOCK_SIZE : (at + count) * BLOCK_SIZE])
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
