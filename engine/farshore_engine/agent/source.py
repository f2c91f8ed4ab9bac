"""Reads a protected disk with O_DIRECT: through the page cache of the device it would be stale (probes, "reading")."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Protocol, TypeVar

from farshore_engine.agent import syscalls
from farshore_engine.blocks.buffers import Buffers
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, runs_of

T = TypeVar("T")

READ_SIZE = 1 << 20  # bytes of one read at most
READ_BLOCKS = READ_SIZE // BLOCK_SIZE
ALIGNMENT = 4096
READ_DEPTH = 6
SPARE_BUFFERS = 0

buffers = Buffers(READ_SIZE, SPARE_BUFFERS)  # of all disks


class ShortRead(OSError):
    """The disk gave fewer bytes than its size promises: it was made smaller, or it fails."""


class Reader:
    """An opened disk; several threads may read at once.

    Args:
        path: the device node.
        direct: False reads through the page cache; only for tests that show why that is wrong.
        after_read: called with (offset, length) after each read, before its bytes go anywhere; for tests.
    """

    def __init__(self, path: str, direct: bool = True, after_read: Callable[[int, int], None] | None = None) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
        self._after_read = after_read
        self.memory: Callable[[], memoryview] = buffers.take  # gives READ_SIZE bytes, aligned
        self.size = syscalls.device_size(self._fd)

    def current_size(self) -> int:
        """Return the size of the disk now, in bytes."""
        return syscalls.device_size(self._fd)

    def read(self, offset: int, length: int) -> memoryview:
        """Return the bytes [offset, offset + length), at most READ_SIZE, cut at the end of the disk.

        Raises:
            OSError: the disk cannot be read (ShortRead: it is shorter than it was).
        """
        length = min(length, self.size - offset)
        view = self.memory()
        self.read_into(view[: aligned(length)], offset, length)
        return view[:length].toreadonly()

    def read_into(self, target: memoryview, offset: int, length: int) -> None:
        """Fill an aligned buffer with `length` bytes from `offset`; the buffer may be longer, up to the alignment."""
        done = 0
        while done < length:
            count = os.preadv(self._fd, [target[done:]], offset + done)
            if count <= 0:
                raise ShortRead(f"{self.path}: {done} of {length} bytes at {offset}")
            done += count
        if self._after_read is not None:
            self._after_read(offset, length)

    def close(self) -> None:
        """Close the disk."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def aligned(length: int) -> int:
    """Return the length rounded up to what a direct read asks for."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def reads_of(blocks: Indexes) -> Iterator[tuple[int, int]]:
    """Yield (first block, count) for ascending blocks: neighbours in one read, none over READ_SIZE."""
    for first, count in runs_of(blocks):
        for start in range(first, first + count, READ_BLOCKS):
            yield start, min(READ_BLOCKS, first + count - start)


class Source(Protocol):
    """What `read_ahead` reads from: a disk, or a snapshot of it."""

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return `length` bytes from `offset` on, fewer at the end of the disk; raises OSError."""
        ...


def read_ahead(
    reader: Source, blocks: Indexes, workers: Executor, then: Callable[[bytes | memoryview], T]
) -> Iterator[tuple[int, int, T]]:
    """Yield (first block, count, `then` of the bytes) for ascending blocks, in order, read and worked on by workers.

    Raises:
        OSError: the disk cannot be read.
    """
    return ahead(reads_of(blocks), workers, lambda at, count: then(reader.read(at * BLOCK_SIZE, count * BLOCK_SIZE)))


def ahead(
    parts: Iterable[tuple[int, int]], workers: Executor, work: Callable[[int, int], T]
) -> Iterator[tuple[int, int, T]]:
    """Yield (first block, count, `work` of the two) for each part, in order, with READ_DEPTH of them under way."""
    under_way: deque[tuple[int, int, Future[T]]] = deque()
    try:
        for first, count in parts:
            under_way.append((first, count, workers.submit(work, first, count)))
            if len(under_way) >= READ_DEPTH:
                start, number, future = under_way.popleft()
                yield start, number, future.result()
        while under_way:
            start, number, future = under_way.popleft()
            yield start, number, future.result()
    finally:
        for _, _, future in under_way:
            if not future.cancel():
                future.exception()  # a read must not outlive its session
