"""Page-aligned memory that is used again and again: on a virtual machine fresh memory costs more than most of what is
done with it, and reading or writing past the page cache wants it aligned.
"""

from __future__ import annotations

import mmap
import weakref

import numpy as np


class Buffers:
    """Page-aligned memory of one size that is used again once nobody refers to it any more. Thread-safe."""

    def __init__(self, size: int, kept: int) -> None:
        """Give out buffers of `size` bytes, and keep at most `kept` that are not in use."""
        self._size = size
        self._kept = kept
        # Without a lock, for a buffer may come back inside `take`, when the interpreter collects garbage there.
        self._spare: list[mmap.mmap] = []

    def take(self) -> memoryview:
        """Return a buffer with whatever it held before; it comes back when the last view of it is gone."""
        try:
            area = self._spare.pop()
        except IndexError:
            area = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        lease = np.frombuffer(area, np.uint8)
        weakref.finalize(lease, self._take_back, area).atexit = False
        return memoryview(lease)  # type: ignore[arg-type]

    def _take_back(self, area: mmap.mmap) -> None:
        if len(self._spare) < self._kept:
            self._spare.append(area)
