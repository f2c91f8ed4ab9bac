"""Is an image what the point says? Read back and compared by digests, without reading a block from the vault."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from farshore_engine.blocks.content import digest_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count, runs_of
from farshore_engine.hydrate.image import translated
from farshore_engine.vault.reader import PointReader

STEP = 256  # blocks, one leaf of the map


def verify(reader: PointReader, disk: str, image: Path) -> list[tuple[int, int]]:
    """Return the (first block, count) runs in which the image differs from the point, empty if none does.

    An image of another size differs from where the shorter one ends.

    Raises:
        PointSpoiled: the map cannot be read.
        StopFault: the image cannot be read.
    """
    size, key = reader.disk(disk).size_bytes, reader.vault.digest_key
    wrong: list[tuple[int, int]] = []
    with translated(image):
        descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.lseek(descriptor, 0, os.SEEK_END)
            for first in range(0, block_count(size), STEP):
                refs = reader.lookup(disk, first, min(STEP, block_count(size) - first))
                length = min(refs.size * BLOCK_SIZE, size - first * BLOCK_SIZE)
                found = digest_blocks(key, _read(descriptor, first * BLOCK_SIZE, length))
                differs = (found != refs["digest"]).any(axis=1)
                differs[max(0, there // BLOCK_SIZE - first) :] |= there < size
                wrong += [(first + at, count) for at, count in runs_of(np.flatnonzero(differs))]
        finally:
            os.close(descriptor)
    return wrong


def _read(descriptor: int, offset: int, length: int) -> bytearray:
    """Return `length` bytes, zeros behind the image's end."""
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return data
