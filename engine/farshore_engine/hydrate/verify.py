"""Is an image what the point says? Read back and compared by digests, without reading a block from the vault."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from farshore_engine.blocks.content import digest_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count, runs_of
from farshore_engine.hydrate.image import SECTOR, aligned_buffer, translated
from farshore_engine.vault.reader import PointReader

STEP = 128  # blocks, half a leaf of the map
THREADS = 2


def verify(reader: PointReader, disk: str, image: Path, *, threads: int = THREADS) -> list[tuple[int, int]]:
    """Return the (first block, count) runs in which the image differs from the point, empty if none does.

    Reads what the storage holds, past the page cache where the file system allows it. An image of another size differs
    from where the shorter one ends.

    Raises:
        PointSpoiled: the map cannot be read.
        StopFault: the image cannot be read.
    """
    size, key = reader.disk(disk).size_bytes, reader.vault.digest_key
    with translated(image), ImageSource(image) as source:

        def part(first: int) -> list[int]:
            refs = reader.lookup(disk, first, min(STEP, block_count(size) - first))
            length = min(refs.size * BLOCK_SIZE, size - first * BLOCK_SIZE)
            found = digest_blocks(key, source.read(first * BLOCK_SIZE, length))
            differs = (found != refs["digest"]).any(axis=1)
            differs[max(0, source.size // BLOCK_SIZE - first) :] |= source.size < size
            return [first + int(at) for at in np.flatnonzero(differs)]

        with ThreadPoolExecutor(threads, "verify") as pool:
            parts = pool.map(part, range(0, block_count(size), STEP))
            return runs_of(np.array([block for found in parts for block in found], np.int64))


class ImageSource:
    """An image that is read by several threads, each into memory of its own."""

    def __init__(self, path: Path) -> None:
        self._plain = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self._plain, 0, 0, os.POSIX_FADV_DONTNEED)
        self.size = os.lseek(self._plain, 0, os.SEEK_END)
        self._buffers = threading.local()
        try:
            self._direct: int | None = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            self._direct = None

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._plain)
        if self._direct is not None:
            os.close(self._direct)

    def read(self, offset: int, length: int) -> memoryview:
        """Return `length` bytes, at most STEP blocks; zeros behind the end. Valid until the thread reads again."""
        if not hasattr(self._buffers, "aligned"):
            self._buffers.aligned = aligned_buffer(STEP * BLOCK_SIZE)
        view: memoryview = self._buffers.aligned[:length]
        straight = length // SECTOR * SECTOR if self._direct is not None and offset + length <= self.size else 0
        done = _fill(self._direct, view[:straight], offset) if self._direct is not None else 0
        done += _fill(self._plain, view[done:], offset + done)
        view[done:] = bytes(length - done)
        return view


def _fill(descriptor: int, view: memoryview, offset: int) -> int:
    """Read until the view is full or the file ends, and return how much there was."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done
