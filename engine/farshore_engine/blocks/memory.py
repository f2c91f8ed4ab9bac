"""Keeps the allocator from giving memory back between two frames, or two tasks of a hydration.

By default glibc returns blocks of more than some 100 KiB to the kernel as they are freed, and gets cleared pages for
the next ones. Who takes and frees megabytes all the time pays for that: on a virtual machine it was measured to cost a
hydration more processor time than decompression, decryption and digests together.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGEST = 32 << 20  # bytes; the largest allocation that glibc's heaps take
KEPT = 128 << 20  # bytes of free memory that a heap keeps


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for what is allocated next; at the end what is free goes back to the kernel.

    The thresholds stay as set: they are near those that glibc's own adaptation ends at in a process that frees packs.
    Does nothing where the C library has no such settings.
    """
    if not keep_freed_memory():
        yield
        return
    try:
        yield
    finally:
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory(kept: int = KEPT, heaps: int = 0) -> bool:
    """Let every heap of this process keep `kept` bytes of what is freed, for good; returns whether the C library can.

    With `heaps`, threads share so many, so that less is kept in all; to be called before there are threads.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    library.mallopt(M_MMAP_THRESHOLD, LARGEST)
    library.mallopt(M_TRIM_THRESHOLD, kept)
    if heaps:
        library.mallopt(M_ARENA_MAX, heaps)
    return True
