"""The rest of a point: what is still dirty inside the freeze, read into memory that was locked before it."""

from __future__ import annotations

import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.agent import syscalls
from farshore_engine.agent.freezing import FreezeFailed, hurry
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.replicate import Encode, Encoded, FrameWriter, Outlet
from farshore_engine.agent.snapshot import Snapshot
from farshore_engine.agent.source import READ_SIZE, Reader, ahead, aligned, buffers, read_ahead, reads_of
from farshore_engine.blocks.buffers import Parts
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes

READERS = 4
MEMINFO = Path("/proc/meminfo")
AVAILABLE_SHARE = 8  # of the machine's available memory at most one in this many parts is taken for a moment


class RestTooLarge(Exception):
    """More was written just before the freeze than the locked buffer holds; `size` in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True, slots=True)
class Read:
    """A run of blocks and its place in the locked buffer; `at` and `length` in bytes."""

    disk: str
    first: int
    count: int
    at: int
    length: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read inside the freeze, and which blocks of which disk are read from the snapshot after it."""

    reads: list[Read]
    later: dict[str, Indexes]
    snapshot: Snapshot | None = None

    @property
    def size(self) -> int:
        """Return the bytes that are read inside the freeze."""
        return sum(read.length for read in self.reads)

    @property
    def size_later(self) -> int:
        """Return the bytes that are read from the snapshot."""
        return sum(blocks.size for blocks in self.later.values()) * BLOCK_SIZE


class Rest:
    """The locked buffer and its use: `reserve` and `claim` before the freeze, `plan` and `read` inside, `send` and
    `release` after.

    Args:
        size: bytes of the buffer; the rest of a point must fit.
        most: bytes that it may grow to between `reserve` and `release`.
    """

    def __init__(self, ledger: Ledger, readers: dict[str, Reader], workers: Executor, size: int, most: int) -> None:
        self._most = most
        self._ledger = ledger
        self._readers = readers
        self._workers = workers
        # Of its own, because it goes before the machine's programs, which copying ahead must not.
        self._hurried = ThreadPoolExecutor(READERS, "frozen-reader", hurry)
        area, self.locked = syscalls.locked_buffer(size)
        self._own = self._buffer = memoryview(area)
        self._parts = Parts(self._own, READ_SIZE, buffers)
        for reader in readers.values():
            reader.memory = self._parts.take  # between freezes, what copies ahead needs no memory beside it

    @property
    def capacity(self) -> int:
        """Return how many bytes fit."""
        return len(self._buffer)

    def reserve(self, size: int) -> bool:
        """Grow the buffer to hold `size` bytes, outside a freeze; returns False where that is more than it may."""
        if size <= self.capacity:
            return True
        if size > self._most or size > _available() // AVAILABLE_SHARE:
            return False
        area, locked = syscalls.locked_buffer(size)
        self.locked = self.locked and locked
        self._buffer = memoryview(area)
        return True

    def claim(self) -> None:
        """Let nobody read into the buffer any more, just before the freeze."""
        if not self._parts.claim() and self._buffer is self._own:  # as when an error holds on to what was read
            area, locked = syscalls.locked_buffer(len(self._own))
            self.locked = self.locked and locked
            self._buffer = memoryview(area)

    def release(self) -> None:
        """Give back what `reserve` and `claim` took."""
        self._buffer = self._own
        self._parts.free()

    def plan(self, snapshot: Snapshot | None = None) -> Plan:
        """Take all dirty blocks and give each run its place in the buffer; raises RestTooLarge.

        What a snapshot holds is left for later.
        """
        reads: list[Read] = []
        later: dict[str, Indexes] = {}
        place = 0
        for disk, reader in self._readers.items():
            blocks: Indexes = self._ledger.take(Need.DIRTY, disk)
            if snapshot is not None:
                later[disk], blocks = snapshot.split(disk, blocks)
            for first, count in reads_of(blocks):
                length = min(count * BLOCK_SIZE, reader.size - first * BLOCK_SIZE)
                reads.append(Read(disk, first, count, place, length))
                place += aligned(length)
        if place > self.capacity:
            raise RestTooLarge(place)
        return Plan(reads, later, snapshot)

    def read(self, plan: Plan, deadline: float) -> None:
        """Fill the buffer, several reads at a time, until `deadline` (monotonic).

        Raises:
            FreezeFailed: the deadline passed.
            OSError: a disk cannot be read.
        """

        def fill(read: Read) -> None:
            if time.monotonic() > deadline:
                raise FreezeFailed("FreezeTooLong", "the disks are too slow to read the rest within the freeze's bound")
            target = self._buffer[read.at : read.at + aligned(read.length)]
            self._readers[read.disk].read_into(target, read.first * BLOCK_SIZE, read.length)

        for _ in self._hurried.map(fill, plan.reads):
            pass

    def send(self, plan: Plan, outlet: Outlet, encode: Encode) -> None:
        """Encode and hand over what was read, and what the snapshot holds, as frames.

        Raises:
            OSError: the snapshot cannot be read, as when its room was too small.
        """
        writers = {
            disk: FrameWriter(self._ledger, outlet, disk, Need.DIRTY, reader.size)
            for disk, reader in self._readers.items()
        }

        def encoded(number: int, _: int) -> Encoded:
            read = plan.reads[number]
            view = self._buffer[read.at : read.at + read.length]
            if plan.snapshot is not None:
                plan.snapshot.restore_metadata(read.disk, read.first * BLOCK_SIZE, view)
            return encode(view)

        for number, _, found in ahead(((number, 1) for number in range(len(plan.reads))), self._workers, encoded):
            writers[plan.reads[number].disk].add(plan.reads[number].first, *found)
        if plan.snapshot is not None:
            plan.snapshot.open()
            for disk, blocks in plan.later.items():
                for first, _, found in read_ahead(plan.snapshot.reader(disk), blocks, self._workers, encode):
                    writers[disk].add(first, *found)
        for writer in writers.values():
            writer.flush()


def _available() -> int:
    """Return the bytes of memory that programs of the machine could still take."""
    fields = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
    return int(fields.get("MemAvailable", fields["MemFree"]).split()[0]) << 10
