"""The port between the protocol and what is served: a disk of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Protocol

from farshore_engine.nbd.protocol import Error


class DeviceError(Exception):
    """A request failed; the client is told `error`. Who raises it has logged why."""

    def __init__(self, error: Error, why: str) -> None:
        super().__init__(why)
        self.error = error


class Extent(IntEnum):
    """What a range of the disk is; the values are those of `base:allocation`."""

    DATA = 0
    HOLE = 3  # reads as zeros and takes no space


class Device(Protocol):
    """A disk. All methods are thread-safe, offsets and lengths in bytes, inside the disk.

    A read returns verified bytes or raises DeviceError: never anything else.
    """

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        ...

    def at_hand(self, offset: int, length: int) -> bool:
        """Whether a read would be answered without waiting for the vault."""
        ...

    def read(self, offset: int, length: int) -> Sequence[memoryview]:
        """Return buffers that hold the bytes, one after another."""
        ...

    def write(self, offset: int, data: memoryview) -> None:
        """Write; durable after `flush`."""
        ...

    def zero(self, offset: int, length: int, *, keep_space: bool) -> None:
        """Make the range read as zeros, without taking space unless `keep_space`."""
        ...

    def trim(self, offset: int, length: int) -> None:
        """Give up what of the range can be given up; whatever is given up reads as zeros."""
        ...

    def flush(self) -> None:
        """Make everything durable whose write has returned."""
        ...

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, Extent]]:
        """Yield (length, what it is) from `offset` on, at most up to `offset + length`; neighbours may be equal."""
        ...
