"""Page-aligned memory that is used again and again: on a virtual machine fresh memory costs more than most of what is
done with it, and reading or writing past the page cache wants it aligned.
"""

from __future__ import annotations

import mmap
import threading
import weakref

import numpy as np


class Buffers:
    """Page-aligned memory of one size that is used again once nobody refers to it any more. Thread-safe."""

    def __init__(self, size: int, kept: int) -> None:
        """Give out buffers of `size` bytes, and keep at most `kept` that are not in use."""
        self._size = size
        self._kept = kept
        self._spare: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def take(self) -> memoryview:
        """Return a buffer with whatever it held before; it comes back when the last view of it is gone."""
        with self._lock:
            area = self._spare.pop() if self._spare else self._fresh()
        lease = np.frombuffer(area, np.uint8)
        weakref.finalize(lease, self._take_back, area).atexit = False
        return memoryview(lease)  # type: ignore[arg-type]

    def _fresh(self) -> mmap.mmap:
        return mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _take_back(self, area: mmap.mmap) -> None:
        with self._lock:
            if len(self._spare) < self._kept:
                self._spare.append(area)
