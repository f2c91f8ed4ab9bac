"""Makes a recovery point: rounds of copying, a short freeze for the rest, thaw, and only then send.

A point is the content of all disks at the instant of the barrier inside the freeze. Whatever can write although the
file systems are frozen (vfat, raw partitions) must be seen not to have written from the barrier to the end of the
reads. The stages of an attempt::

    pre-copy -> pre hooks -> pre-copy again -> ready -> freeze -> frozen -> read the rest -> cut -> thaw -> post hooks
    -> send

Ready, frozen and cut are for a point that other machines take at the same instant: see `barrier`. Where rounds of
copying do not help, the rest is read from a snapshot below LVM, if there is one, after the thaw: see `snapshot`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from farshore_engine.agent import snapshot as snapshots
from farshore_engine.agent.barrier import Barrier
from farshore_engine.agent.freezing import FreezeFailed, Freezer, Opened, hurried
from farshore_engine.agent.hooks import HookOrder, Hooks, Quiet
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.logs import HANDLER
from farshore_engine.agent.lvm import NoSnapshot
from farshore_engine.agent.mounts import Mount
from farshore_engine.agent.precopy import ChurnOutrunsLink, PreCopy, Rates
from farshore_engine.agent.replicate import Outlet, Replicator
from farshore_engine.agent.rest import Plan, Rest, RestTooLarge
from farshore_engine.agent.snapshot import Snapshot
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
        hold: for the last point of a machine: called inside the freeze with what sends the rest and with the result;
            the thaw comes when it returns.
    """

    id: str
    consistency: Consistency
    mounts: list[Mount]
    bound: float
    target: int
    hooks: HookOrder = field(default_factory=HookOrder)
    barrier: Barrier | None = None
    hold: Callable[[Callable[[], None], PointResult], None] | None = None


@dataclass(slots=True)
class PointResult:
    """What PointEnd tells of a finished point."""

    consistency: Consistency = Consistency.CRASH
    frozen_at: float = 0.0
    freeze_seconds: float = 0.0
    precopy_rounds: int = 0
    frozen_bytes: int = 0
    snapshot_bytes: int = 0  # read from a snapshot after the thaw
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Work:
    """What the stages of a point work with."""

    order: PointOrder
    opened: Opened
    replicator: Replicator
    outlet: PointOutlet
    result: PointResult


class PointMaker:
    """Makes points of the disks that `readers` names.

    Args:
        buffer_size: bytes of locked memory for what is read under the freeze, always and at most.
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
        buffer_size: tuple[int, int],
        hooks: Hooks,
        on_frozen: Callable[[str], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._readers = readers
        self._freezer = freezer
        self._hooks = hooks
        self._on_frozen = on_frozen
        self._rest = Rest(ledger, readers, workers, *buffer_size)
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
            if order.hold is not None:
                raise FreezeFailed("NoTracker", "without a write tracker a last point would take too long")
            if order.barrier is not None:
                raise FreezeFailed("NoTracker", "without a write tracker a machine cannot be cut together with others")
            return self._compare_instead(order, replicator, outlet)
        work = _Work(order, self._freezer.open(order.mounts), replicator, outlet, PointResult())
        try:
            self._attempt_until_exact(work)
        finally:
            self._freezer.close(work.opened)
            self._rest.release()
        if not self._rest.locked:
            work.result.notes.append("the buffer of the freeze could not be locked in memory")
        return work.result

    def _attempt_until_exact(self, work: _Work) -> None:
        order, result = work.order, work.result
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                with self._prepare(work) as snapshot:
                    late = self._attempt(work, snapshot)
            except RestTooLarge as error:
                if attempt == MAX_ATTEMPTS or order.barrier is not None:
                    raise ChurnOutrunsLink(result.precopy_rounds, error.size, self.rates) from error
                self._rest.reserve(_with_room(error.size))
                continue
            if not late:
                return
            if order.barrier is not None or (order.hold is not None and attempt == MAX_ATTEMPTS):
                # The others have thawed: there is no second attempt at this instant; and a last point is exact or none.
                raise FreezeFailed("WrittenInFreeze", work.opened.explain(late))
            if attempt == MAX_ATTEMPTS:
                result.consistency = Consistency.UNMARKED
                result.notes.append(work.opened.explain(late))

    def _prepare(self, work: _Work) -> Snapshot | nullcontext[None]:
        """Send rounds; where they do not help, prepare a snapshot for what is left, if LVM has it, or more memory."""
        if work.order.barrier is not None or work.order.hold is not None or not snapshots.available():
            self._send_rounds(work)
            return nullcontext()
        try:
            self._send_rounds(work, grow=False)
        except ChurnOutrunsLink as churn:
            try:
                return Snapshot(self._readers, work.order.mounts, churn.rest)
            except NoSnapshot as error:
                if self._rest.reserve(_with_room(churn.rest)):
                    return nullcontext()
                message = f"{churn.message}; a snapshot of LVM volumes cannot be taken instead: {error}"
                raise FreezeFailed(churn.reason, message) from error
        return nullcontext()

    def _send_rounds(self, work: _Work, until: Callable[[], bool] | None = None, *, grow: bool = True) -> None:
        """Send rounds until they leave little, or, with `grow`, what a larger buffer can take."""
        point, outlet = work.order.id, work.outlet

        def settle() -> None:
            self._freezer.flush(work.opened)
            self._tracker.barrier()
            outlet.check_point(point)

        try:
            work.result.precopy_rounds += self._precopy.run(point, settle, work.replicator, work.order.target, until)
        except ChurnOutrunsLink as churn:
            if not grow or not self._rest.reserve(_with_room(churn.rest)):
                raise
            work.result.precopy_rounds += churn.rounds

    def _attempt(self, work: _Work, snapshot: Snapshot | None) -> dict[str, int]:
        """Go through the stages once; returns how many blocks of which disk were written in the window."""
        order, opened, result = work.order, work.opened, work.result

        def precopy(until: Callable[[], bool] | None = None) -> None:
            if snapshot is None:  # else rounds are of no help
                self._send_rounds(work, until)

        def keep_ready() -> None:
            if quiet is not None:
                quiet.check()  # applications are not held for as long as the slowest machine of a group takes
            precopy()

        quiet: Quiet | None = None
        if order.consistency is Consistency.APP:
            quiet = self._hooks.begin(order.id, order.hooks, order.mounts)
        try:
            if quiet is not None:
                quiet.rest(precopy)
            if order.barrier is not None:
                order.barrier.await_freeze(order.id, keep_ready)
            plan, late = self._under_freeze(work, snapshot)
        finally:
            if quiet is not None:
                quiet.post()
        if quiet is not None:
            result.consistency = Consistency.APP if quiet.held else Consistency.CRASH
            result.notes = list(quiet.notes)
        result.frozen_at, result.freeze_seconds = opened.frozen_at, opened.seconds
        result.frozen_bytes, result.snapshot_bytes = plan.size, plan.size_later
        if order.hold is None or late:  # else it was sent inside the freeze
            self._send(plan, work)
        return late

    def _under_freeze(self, work: _Work, snapshot: Snapshot | None) -> tuple[Plan, dict[str, int]]:
        """Freeze, read the rest, thaw; returns what is in the buffer, and blocks written in the window by disk."""
        order, opened, outlet = work.order, work.opened, work.outlet
        opened.unfreezable.clear()
        with HANDLER.held(), hurried():
            self._rest.claim()
            self._freezer.freeze(opened, order.bound)
            try:
                self._tracker.barrier()
                outlet.check_point(order.id)
                if order.barrier is not None:
                    order.barrier.frozen(order.id)
                if snapshot is not None:
                    snapshot.activate()
                    self._mark_metadata(snapshot)
                plan = self._rest.plan(snapshot)
                self._precopy.cleared()
                if self._on_frozen is not None:
                    self._on_frozen(order.id)
                self._rest.read(plan, opened.began + order.bound * READ_SHARE)
                if order.barrier is not None:
                    order.barrier.await_cut(order.id, opened.began + order.bound * READ_SHARE)
                self._tracker.barrier()
                outlet.check_point(order.id)  # a write that went unseen now may be in the reads
                late = {d: n for d in self._readers if (n := self._ledger.waiting(Need.DIRTY, d))}
                if order.hold is not None and not late:
                    self._hold(order.hold, plan, work)
            except OSError as error:
                self._ledger.put_back()
                raise FreezeFailed("ReadFailed", f"a disk cannot be read: {error}") from error
            except NoSnapshot as error:
                self._ledger.put_back()
                raise FreezeFailed("SnapshotFailed", f"no snapshot was taken: {error}") from error
            except (FreezeFailed, RestTooLarge):
                self._ledger.put_back()
                raise
            finally:
                self._thaw(opened)
        return plan, late

    def _hold(self, hold: Callable[[Callable[[], None], PointResult], None], plan: Plan, work: _Work) -> None:
        result, opened = work.result, work.opened
        result.frozen_at, result.frozen_bytes = opened.frozen_at, plan.size
        result.freeze_seconds = time.monotonic() - opened.began
        hold(lambda: self._send(plan, work), result)

    def _thaw(self, opened: Opened) -> None:
        try:
            self._freezer.thaw(opened)
        except FreezeFailed:
            self._ledger.put_back()
            raise

    def _send(self, plan: Plan, work: _Work) -> None:
        try:
            self._rest.send(plan, work.outlet, work.replicator.encode)
        except OSError as error:
            self._ledger.put_back()
            raise FreezeFailed("SnapshotLost", f"the snapshot cannot be read; its room may be full: {error}") from error
        finally:
            if plan.snapshot is not None:
                self._mark_metadata(plan.snapshot)

    def _mark_metadata(self, snapshot: Snapshot) -> None:
        """What the point holds of LVM's metadata is older than what is on the disks, which is to be sent later."""
        for disk, blocks in snapshot.metadata_blocks().items():
            self._ledger.mark(disk, blocks, blocks)

    def _compare_instead(self, order: PointOrder, replicator: Replicator, outlet: PointOutlet) -> PointResult:
        """Without a tracker a freeze would last as long as reading all disks: compare them as they are."""
        self._tracker.barrier()
        outlet.check_point(order.id)
        result = PointResult(Consistency.UNMARKED, frozen_at=time.time(), precopy_rounds=1)
        for disk in self._readers:
            replicator.verify(disk)
        result.notes.append("no write tracker works on this kernel: the disks were compared while they were in use")
        return result


def _with_room(rest: int) -> int:
    """Return the bytes of a buffer for `rest` bytes and what is written until the freeze."""
    return rest + rest // 2
