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


class Parts:
    """Parts of one buffer, each given out until nobody refers to it, as long as nobody needs the whole. Thread-safe."""

    def __init__(self, whole: memoryview, size: int, others: Buffers) -> None:
        """Give out parts of `size` bytes of `whole`; when there is none, one of `others`, of the same size."""
        self._free = [whole[at : at + size] for at in range(0, len(whole) - size + 1, size)]
        self._number = len(self._free)
        self._others = others
        self._claimed = False

    def take(self) -> memoryview:
        """Return a part with whatever it held before."""
        try:
            part = self._free.pop() if not self._claimed else None
        except IndexError:
            part = None
        if part is None:
            return self._others.take()
        lease = np.frombuffer(part, np.uint8)
        weakref.finalize(lease, self._free.append, part).atexit = False
        return memoryview(lease)  # type: ignore[arg-type]

    def claim(self) -> bool:
        """Give out no part until `free`; returns whether the whole is nobody else's now."""
        self._claimed = True
        return len(self._free) == self._number

    def free(self) -> None:
        """Let parts be given out again."""
        self._claimed = False
