"""Makes a recovery point: rounds of copying, a short freeze for the rest, thaw, and only then send.

A point is the content of all disks at the instant of the barrier inside the freeze. Whatever can write although the
file systems are frozen (vfat, raw partitions) must be seen not to have written from the barrier to the end of the
reads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from farshore_engine.agent import syscalls
from farshore_engine.agent.freezing import FreezeFailed, Freezer, Opened
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.logs import HANDLER, LOGGER_NAME
from farshore_engine.agent.mounts import Mount
from farshore_engine.agent.replicate import FrameWriter, Outlet, Replicator
from farshore_engine.agent.source import Reader, aligned, reads_of
from farshore_engine.agent.tracker.interface import Tracker
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes
from farshore_engine.wire.messages import Consistency

log = logging.getLogger(LOGGER_NAME)

MAX_ROUNDS = 12
MAX_ATTEMPTS = 3
READ_SHARE = 0.8  # of the freeze's bound may pass before the reads are given up
CONVERGING = 0.9  # a round must leave less than this share of the one before


class PointOutlet(Outlet, Protocol):
    """The session as a point sees it."""

    def check_point(self, point: str) -> None:
        """Raise FreezeFailed when the process server called the point off, or when events were lost."""


@dataclass(slots=True)
class PointResult:
    """What PointEnd tells of a finished point."""

    consistency: Consistency = Consistency.CRASH
    frozen_at: float = 0.0
    freeze_seconds: float = 0.0
    precopy_rounds: int = 0
    frozen_bytes: int = 0
    notes: list[str] = field(default_factory=list)


class _RestTooLarge(Exception):
    """More was written just before the freeze than the locked buffer holds."""


@dataclass(frozen=True, slots=True)
class _Read:
    disk: str
    first: int
    count: int
    at: int  # offset in the locked buffer
    length: int  # bytes


class PointMaker:
    """Makes points of the disks that `readers` names.

    Args:
        on_frozen: called with the point's id inside the freeze, after the barrier; tests clone the disks there.
    """

    def __init__(
        self,
        ledger: Ledger,
        tracker: Tracker,
        readers: dict[str, Reader],
        freezer: Freezer,
        workers: Executor,
        buffer_size: int,
        on_frozen: Callable[[str], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._readers = readers
        self._freezer = freezer
        self._workers = workers
        self._on_frozen = on_frozen
        area, self._locked = syscalls.locked_buffer(buffer_size)
        self._buffer = memoryview(area)

    def make(
        self, point: str, mounts: list[Mount], replicator: Replicator, outlet: PointOutlet, limits: tuple[float, int]
    ) -> PointResult:
        """Bring the process server to the state of one instant; all frames have been handed over on return.

        Args:
            point: the id of the attempt.
            mounts: the file systems of the protected disks, in mount order.
            replicator: sends the rounds.
            outlet: takes the frames.
            limits: the freeze's bound in seconds, and how many bytes may be left for the freeze.

        Raises:
            FreezeFailed: no point could be made; nothing is lost.
            PeerClosed: the connection broke; nothing is lost.
        """
        result = PointResult()
        if not self._tracker.exact:
            return self._compare_instead(point, replicator, outlet, result)
        opened = self._freezer.open(mounts)
        try:
            self._attempt_until_exact(point, opened, replicator, outlet, limits, result)
        finally:
            self._freezer.close(opened)
        if not self._locked:
            result.notes.append("the buffer of the freeze could not be locked in memory")
        return result

    def _attempt_until_exact(
        self,
        point: str,
        opened: Opened,
        replicator: Replicator,
        outlet: PointOutlet,
        limits: tuple[float, int],
        result: PointResult,
    ) -> None:
        bound, target = limits
        for attempt in range(1, MAX_ATTEMPTS + 1):
            result.precopy_rounds += self._precopy(point, opened, replicator, outlet, target)
            try:
                reads, late = self._frozen_copy(point, opened, outlet, bound)
            except _RestTooLarge as error:
                if attempt == MAX_ATTEMPTS:
                    raise FreezeFailed("ChurnOutrunsLink", str(error)) from error
                continue
            result.frozen_at, result.freeze_seconds = opened.frozen_at, opened.seconds
            result.frozen_bytes = sum(read.length for read in reads)
            self._send(reads, outlet)
            if not late:
                return
            if attempt == MAX_ATTEMPTS:
                result.consistency = Consistency.UNMARKED
                result.notes.append(self._explain(late, opened))

    def _precopy(self, point: str, opened: Opened, replicator: Replicator, outlet: PointOutlet, target: int) -> int:
        """Send rounds of dirty blocks until at most `target` bytes are left; returns the number of rounds."""
        before = float("inf")
        for done in range(MAX_ROUNDS):
            self._freezer.flush(opened)
            self._tracker.barrier()
            outlet.check_point(point)
            rest = self._ledger.waiting(Need.DIRTY) * BLOCK_SIZE
            if rest <= target:
                return done
            if done >= 3 and rest > before * CONVERGING and rest <= len(self._buffer) * READ_SHARE:
                return done  # it gets no better, and it fits
            log.debug("a round", extra={"fields": {"point": point, "round": done, "bytes": rest}})
            before = rest
            for disk in self._readers:
                replicator.send_waiting(Need.DIRTY, disk)
        if rest <= len(self._buffer):
            return MAX_ROUNDS
        raise FreezeFailed(
            "ChurnOutrunsLink",
            f"after {MAX_ROUNDS} rounds {rest >> 20} MiB were left: the machine writes faster than that is sent",
        )

    def _frozen_copy(
        self, point: str, opened: Opened, outlet: PointOutlet, bound: float
    ) -> tuple[list[_Read], dict[str, int]]:
        """Freeze, read the rest, thaw; returns what is in the buffer, and blocks written in the window by disk."""
        opened.unfreezable.clear()
        with HANDLER.held():
            self._freezer.freeze(opened, bound)
            try:
                self._tracker.barrier()
                outlet.check_point(point)
                reads = self._plan()
                if self._on_frozen is not None:
                    self._on_frozen(point)
                self._read(reads, opened.began + bound * READ_SHARE)
                self._tracker.barrier()
                outlet.check_point(point)  # a write that went unseen now may be in the reads
                late = {d: n for d in self._readers if (n := self._ledger.waiting(Need.DIRTY, d))}
            except OSError as error:
                self._ledger.put_back()
                raise FreezeFailed("ReadFailed", f"a disk cannot be read: {error}") from error
            except (FreezeFailed, _RestTooLarge):
                self._ledger.put_back()
                raise
            finally:
                self._thaw(opened)
        return reads, late

    def _thaw(self, opened: Opened) -> None:
        try:
            self._freezer.thaw(opened)
        except FreezeFailed:
            self._ledger.put_back()
            raise

    def _plan(self) -> list[_Read]:
        """Take all dirty blocks and give each run its place in the buffer."""
        reads: list[_Read] = []
        place = 0
        for disk, reader in self._readers.items():
            blocks: Indexes = self._ledger.take(Need.DIRTY, disk)
            for first, count in reads_of(blocks):
                length = min(count * BLOCK_SIZE, reader.size - first * BLOCK_SIZE)
                reads.append(_Read(disk, first, count, place, length))
                place += aligned(length)
        if place > len(self._buffer):
            raise _RestTooLarge(
                f"{place >> 20} MiB were written before the freeze, whose buffer holds {len(self._buffer) >> 20} MiB"
            )
        return reads

    def _read(self, reads: list[_Read], deadline: float) -> None:
        def fill(read: _Read) -> None:
            if time.monotonic() > deadline:
                raise FreezeFailed("FreezeTooLong", "the disks are too slow to read the rest within the freeze's bound")
            target = self._buffer[read.at : read.at + aligned(read.length)]
            self._readers[read.disk].read_into(target, read.first * BLOCK_SIZE, read.length)

        for _ in self._workers.map(fill, reads):
            pass

    def _send(self, reads: list[_Read], outlet: PointOutlet) -> None:
        writers = {
            disk: FrameWriter(self._ledger, outlet, disk, Need.DIRTY, reader.size)
            for disk, reader in self._readers.items()
        }
        for read in reads:
            writers[read.disk].add(read.first, read.count, bytes(self._buffer[read.at : read.at + read.length]))
        for writer in writers.values():
            writer.flush()

    def _compare_instead(
        self, point: str, replicator: Replicator, outlet: PointOutlet, result: PointResult
    ) -> PointResult:
        """Without a tracker a freeze would last as long as reading all disks: compare them as they are."""
        self._tracker.barrier()
        outlet.check_point(point)
        result.frozen_at = time.time()
        for disk in self._readers:
            replicator.verify(disk)
        result.precopy_rounds = 1
        result.consistency = Consistency.UNMARKED
        result.notes.append("no write tracker works on this kernel: the disks were compared while they were in use")
        return result

    @staticmethod
    def _explain(late: dict[str, int], opened: Opened) -> str:
        blocks = ", ".join(f"{number} blocks of {disk}" for disk, number in late.items())
        parts = ", ".join(f"{m.point} ({m.kind})" for m in opened.unfreezable) or "programs that write to raw devices"
        return f"{blocks} were written during the freeze by what cannot be frozen: {parts}"
