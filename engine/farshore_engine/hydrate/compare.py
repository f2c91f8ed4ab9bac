"""Brings an image that may hold anything to a point, writing only the blocks that differ, found by their digests.

For disks that lived on their own since a point was written to them: a machine's own disks at a failback, those of a
recovered machine that is moved to another point. What is there is read, which costs no byte from the vault. It needs
no record of how far it is: after an interruption it looks again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from farshore_engine.blocks.content import digest_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count
from farshore_engine.hydrate.image import Image
from farshore_engine.hydrate.progress import ImageState, forget_state
from farshore_engine.hydrate.raw import state_of
from farshore_engine.hydrate.verify import ImageSource
from farshore_engine.hydrate.windows import THREADS, WINDOW, Progress, Report, Window, Work, silent, write_windows
from farshore_engine.vault.encoding import BLOCK_REF, BlockRefs
from farshore_engine.vault.reader import PointReader

STEP = 128  # blocks, half a leaf of the map


def rewrite(
    reader: PointReader, disk: str, image: Path, *, threads: int = THREADS, report: Report = silent
) -> Progress:
    """Make `image`, a file or a block device that holds anything, equal to a disk of the point; durable on return.

    A file is cut or extended to the disk's size. Nobody else may write to it meanwhile. `written` and `fetched` of what
    is returned are the bytes of blocks that differed and the bytes that were read from the vault for them.

    Raises:
        PointSpoiled: something in the vault is damaged; the image is neither the one nor the other.
        WaitFault: the store is away or the disk is full; call again.
        StopFault: the image cannot be read or written, or the device is too small.
    """
    forget_state(image)  # whatever it says is not true while blocks are exchanged
    state = state_of(reader, disk)
    target = Image(image, state.size, fresh=False)
    try:
        with ImageSource(image) as source, ThreadPoolExecutor(threads, "compare") as pool:
            work = Work(reader, disk, target, _forget, threads, report)
            return write_windows(work, state, _differing(reader, disk, source, pool))
    finally:
        target.close()


def _forget(_: ImageState) -> None:
    """Keep no record: an image that others may write to between two tries is compared again."""


def _differing(reader: PointReader, disk: str, source: ImageSource, pool: ThreadPoolExecutor) -> Window:
    """Return what to write in each window: the blocks of which the image holds something else."""
    size, key = reader.disk(disk).size_bytes, reader.vault.digest_key

    def part(first: int) -> BlockRefs:
        refs = reader.lookup(disk, first, min(STEP, block_count(size) - first))
        length = min(refs.size * BLOCK_SIZE, size - first * BLOCK_SIZE)
        found = digest_blocks(key, source.read(first * BLOCK_SIZE, length))
        differs = np.flatnonzero((found != refs["digest"]).any(axis=1))
        chosen = np.zeros(differs.size, BLOCK_REF)
        chosen["index"], chosen["ref"] = differs + first, refs[differs]
        return chosen

    def window(first: int) -> BlockRefs:
        stop = min(first + WINDOW, block_count(size))
        return np.concatenate([np.zeros(0, BLOCK_REF), *pool.map(part, range(first, stop, STEP))])

    return window
