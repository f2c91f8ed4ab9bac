"""Makes a recovery point: rounds of copying, a short freeze for the rest, thaw, and only then send.

A point is the content of all disks at the instant of the barrier inside the freeze. Whatever can write although the
file systems are frozen (vfat, raw partitions) must be seen not to have written from the barrier to the end of the
reads. The stages of an attempt::

    pre-copy -> pre hooks -> pre-copy again -> ready -> freeze -> frozen -> read the rest -> cut -> thaw -> post hooks
    -> send

Ready, frozen and cut are for a point that other machines take at the same instant: see `barrier`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from farshore_engine.agent.barrier import Barrier
from farshore_engine.agent.freezing import FreezeFailed, Freezer, Opened
from farshore_engine.agent.hooks import HookOrder, Hooks
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.logs import HANDLER
from farshore_engine.agent.mounts import Mount
from farshore_engine.agent.precopy import ChurnOutrunsLink, PreCopy, Rates
from farshore_engine.agent.replicate import Outlet, Replicator
from farshore_engine.agent.rest import Read, Rest, RestTooLarge
from farshore_engine.agent.source import Reader
from farshore_engine.agent.tracker.interface import Tracker
from farshore_engine.wire.messages import Consistency

MAX_ATTEMPTS = 3
READ_SHARE = 0.8  # of the freeze's bound may pass before the reads are given up


class PointOutlet(Outlet, Protocol):
    """The session as a point sees it."""

    def check_point(self, point: str) -> None:
        """Raise FreezeFailed when the process server called the point off, or when events were lost."""


@dataclass(frozen=True, slots=True)
class PointOrder:
    """What is asked of a point.

    Attributes:
        id: of the attempt, given by the process server.
        mounts: the file systems of the protected disks, in mount order.
        bound: seconds that the freeze may last.
        target: bytes that may be left for the freeze.
        hooks: which hooks run for an application-consistent point, and for how long.
        barrier: where other machines are met that are cut at the same instant; None for a point of this one alone.
    """

    id: str
    consistency: Consistency
    mounts: list[Mount]
    bound: float
    target: int
    hooks: HookOrder = field(default_factory=HookOrder)
    barrier: Barrier | None = None


@dataclass(slots=True)
class PointResult:
    """What PointEnd tells of a finished point."""

    consistency: Consistency = Consistency.CRASH
    frozen_at: float = 0.0
    freeze_seconds: float = 0.0
    precopy_rounds: int = 0
    frozen_bytes: int = 0
    notes: list[str] = field(default_factory=list)


class PointMaker:
    """Makes points of the disks that `readers` names.

    Args:
        buffer_size: bytes of locked memory for what is read under the freeze.
        hooks: bring applications to rest.
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
        hooks: Hooks,
        on_frozen: Callable[[str], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._readers = readers
        self._freezer = freezer
        self._hooks = hooks
        self._on_frozen = on_frozen
        self._rest = Rest(ledger, readers, workers, buffer_size)
        self._precopy = PreCopy(ledger, readers, self._rest.capacity)

    @property
    def rates(self) -> Rates:
        """Return what the last rounds told of churn and link."""
        return self._precopy.rates

    def interrupted(self) -> None:
        """A connection broke since the last point."""
        self._precopy.interrupted()

    def make(self, order: PointOrder, replicator: Replicator, outlet: PointOutlet) -> PointResult:
        """Bring the process server to the state of one instant; all frames have been handed over on return.

        Raises:
            FreezeFailed: no point could be made; nothing is lost.
            PeerClosed: the connection broke; nothing is lost.
        """
        if not self._tracker.exact:
            if order.barrier is not None:
                raise FreezeFailed("NoTracker", "without a write tracker a machine cannot be cut together with others")
            return self._compare_instead(order, replicator, outlet)
        result = PointResult()
        opened = self._freezer.open(order.mounts)
        try:
            for attempt in range(1, MAX_ATTEMPTS + 1):
                try:
                    late = self._attempt(order, opened, replicator, outlet, result)
                except RestTooLarge as error:
                    if attempt == MAX_ATTEMPTS or order.barrier is not None:
                        raise ChurnOutrunsLink(result.precopy_rounds, error.size, self.rates) from error
                    continue
                if not late:
                    break
                if order.barrier is not None:  # the others have thawed: there is no second attempt at this instant
                    raise FreezeFailed("WrittenInFreeze", _explain(late, opened))
                if attempt == MAX_ATTEMPTS:
                    result.consistency = Consistency.UNMARKED
                    result.notes.append(_explain(late, opened))
        finally:
            self._freezer.close(opened)
        if not self._rest.locked:
            result.notes.append("the buffer of the freeze could not be locked in memory")
        return result

    def _attempt(
        self, order: PointOrder, opened: Opened, replicator: Replicator, outlet: PointOutlet, result: PointResult
    ) -> dict[str, int]:
        """Go through the stages once; returns how many blocks of which disk were written in the window."""

        def precopy(until: Callable[[], bool] | None = None) -> None:
            result.precopy_rounds += self._precopy.run(
                order.id, lambda: self._settle(order.id, opened, outlet), replicator, order.target, until
            )

        precopy()
        quiet = None
        if order.consistency is Consistency.APP:
            quiet = self._hooks.begin(order.id, order.hooks, order.mounts)
        try:
            if quiet is not None:
                quiet.rest(precopy)
            if order.barrier is not None:
                order.barrier.await_freeze(order.id, precopy)
            reads, late = self._under_freeze(order, opened, outlet)
        finally:
            if quiet is not None:
                quiet.post()
        if quiet is not None:
            result.consistency = Consistency.APP if quiet.held else Consistency.CRASH
            result.notes = list(quiet.notes)
        result.frozen_at, result.freeze_seconds = opened.frozen_at, opened.seconds
        result.frozen_bytes = sum(read.length for read in reads)
        self._rest.send(reads, outlet)
        return late

    def _settle(self, point: str, opened: Opened, outlet: PointOutlet) -> None:
        self._freezer.flush(opened)
        self._tracker.barrier()
        outlet.check_point(point)

    def _under_freeze(
        self, order: PointOrder, opened: Opened, outlet: PointOutlet
    ) -> tuple[list[Read], dict[str, int]]:
        """Freeze, read the rest, thaw; returns what is in the buffer, and blocks written in the window by disk."""
        opened.unfreezable.clear()
        with HANDLER.held():
            self._freezer.freeze(opened, order.bound)
            try:
                self._tracker.barrier()
                outlet.check_point(order.id)
                if order.barrier is not None:
                    order.barrier.frozen(order.id)
                reads = self._rest.plan()
                self._precopy.cleared()
                if self._on_frozen is not None:
                    self._on_frozen(order.id)
                self._rest.read(reads, opened.began + order.bound * READ_SHARE)
                if order.barrier is not None:
                    order.barrier.await_cut(order.id, opened.began + order.bound * READ_SHARE)
                self._tracker.barrier()
                outlet.check_point(order.id)  # a write that went unseen now may be in the reads
                late = {d: n for d in self._readers if (n := self._ledger.waiting(Need.DIRTY, d))}
            except OSError as error:
                self._ledger.put_back()
                raise FreezeFailed("ReadFailed", f"a disk cannot be read: {error}") from error
            except (FreezeFailed, RestTooLarge):
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

    def _compare_instead(self, order: PointOrder, replicator: Replicator, outlet: PointOutlet) -> PointResult:
        """Without a tracker a freeze would last as long as reading all disks: compare them as they are."""
        self._tracker.barrier()
        outlet.check_point(order.id)
        result = PointResult(Consistency.UNMARKED, frozen_at=time.time(), precopy_rounds=1)
        for disk in self._readers:
            replicator.verify(disk)
        result.notes.append("no write tracker works on this kernel: the disks were compared while they were in use")
        return result


def _explain(late: dict[str, int], opened: Opened) -> str:
    blocks = ", ".join(f"{number} blocks of {disk}" for disk, number in late.items())
    parts = ", ".join(f"{m.point} ({m.kind})" for m in opened.unfreezable) or "programs that write to raw devices"
    return f"{blocks} were written during the freeze by what cannot be frozen: {parts}"
