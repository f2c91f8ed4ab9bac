"""A machine's attempts at points: one at a time is asked of the agent, alone or together with its consistency group."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import Churn
from farshore_engine.processserver.closedpoint import ClosedPoint, malformed, server_time
from farshore_engine.processserver.lastpoint import LastPoint
from farshore_engine.processserver.missing import explain
from farshore_engine.wire.frames import PeerClosed, WireError
from farshore_engine.wire.messages import (
    Consistency,
    Cut,
    FreezeNow,
    Message,
    PointEnd,
    PointFailed,
    TakePoint,
)

if TYPE_CHECKING:
    from farshore_engine.processserver.replica import Replica
    from farshore_engine.processserver.session import Session

log = structlog.get_logger(__name__)

CHURN_OUTRUNS_LINK = "ChurnOutrunsLink"  # the agent's reason for a point that no number of rounds could bring about


@dataclass(frozen=True)
class Attempt:
    """A point that was asked for: `group` names the consistency group if it is taken together; `asked` is wall time."""

    id: str
    consistency: Consistency
    asked: float
    group: str = ""
    note: str = ""


class Attempts:
    """The attempts of one replica; it is the `groups.Member` of its group. Thread-safe, under the replica's lock.

    Attributes:
        current: what is under way, None between attempts.
        fault: why the last attempt failed, "" after one that did not.
        churn: what the last one told of writes and of the link, None before.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.current: Attempt | None = None
        self.fault = ""
        self.churn: Churn | None = None
        self.last: LastPoint | None = None  # the machine's last point, while a task makes it

    @property
    def machine_id(self) -> str:
        """See Member."""
        return self._replica.machine_id

    @property
    def blocked_by(self) -> tuple[str, bool]:
        """Return what keeps a point from being asked for now, "" if nothing, and whether it is over in a moment."""
        replica = self._replica
        with replica.changed:
            if replica.session is None:
                return "its agent is not connected", False
            if missing := replica.missing:
                return explain(missing), False
            if not replica.link.synced:
                return "its disks are being copied or compared", False
            if self.current is not None:
                return "a point of it is under way", True
            if replica.spool.committing is not None:
                return "its last point is not committed yet", True
        return "", False

    def ask(self, point: str, consistency: Consistency, group: str = "", note: str = "") -> bool:
        """Ask the agent for a point; returns False when there is none to ask or one is under way."""
        replica = self._replica
        with replica.changed:
            session = replica.session
            if session is None or self.blocked_by[0]:
                return False
            last = self.last if self.last is not None and self.last.id == point else None
            self.current = Attempt(point, consistency, replica.shared.now().timestamp(), group, note)
            replica.silence.broken()
        hold, power_off = (last.hold, last.power_off) if last is not None else (0.0, False)
        try:
            session.send(TakePoint(point, consistency, bool(group), hold, power_off))
        except PeerClosed:
            return False  # the connection's own thread finds out too, and detaches
        return True

    def ended(self, session: Session, message: PointEnd) -> None:
        """Everything of a point was sent: make it durable here, and let the keeper commit it."""
        replica = self._replica
        attempt = self.current
        if attempt is None or attempt.id != message.id:
            raise WireError(f"the point {message.id!r} was not asked for")
        if text := malformed(message):
            session.send(PointFailed(message.id, "BadDescription", text))
            self.failed(session, PointFailed(message.id, "BadDescription", text))
            return
        replica.intake.flush()
        closed = self._closed(attempt, message)
        with replica.changed:
            if replica.session is not session or self.current is not attempt:
                raise PeerClosed("the session was replaced")
            replica.spool.close_generation(closed)
            self.current, self.fault = None, ""
            self._note_churn(message, outruns=False)
            replica.changed.notify_all()
        replica.shared.metrics.freeze.labels(replica.machine_id).observe(message.freeze_seconds)

    def failed(self, session: Session, message: PointFailed) -> None:
        """The agent gave a point up; what it sent stays pending."""
        replica = self._replica
        with replica.changed:
            attempt = self.current
            if replica.session is session:
                self._end_last(message.id, message.message, message.reason)
            if replica.session is not session or attempt is None or attempt.id != message.id:
                return  # an echo of what this side called off
            self.current = None
            self.fault = f"no recovery point: {message.message}"
            if message.reason == CHURN_OUTRUNS_LINK:
                self._note_churn(message, outruns=True)
            replica.changed.notify_all()
        if attempt.group:
            replica.shared.groups.failed(attempt.group, self.machine_id, attempt.id, message.message)
        replica.shared.metrics.points_failed.labels(replica.machine_id).inc()
        log.warning("point failed", machine=replica.machine_id, reason=message.reason, detail=message.message)

    def abandon(self, why: str) -> None:
        """The session is gone, and the attempt with it."""
        with self._replica.changed:
            attempt, self.current = self.current, None
            if self.last is not None and self.last.asked is not None:
                self._end_last(self.last.id, why)
        if attempt is not None and attempt.group:
            self._replica.shared.groups.failed(attempt.group, self.machine_id, attempt.id, why)

    # -- the last point --------------------------------------------------------------------------------------------

    def ask_last(self, last: LastPoint) -> bool:
        """Ask for the machine's last point; returns False when it cannot be asked for now."""
        with self._replica.changed:
            last.asked = self._replica.shared.monotonic()
        if self.ask(last.id, Consistency.CRASH):
            return True
        with self._replica.changed:
            last.asked = None
        return False

    def committed(self, attempt: str, point: RecoveryPoint) -> None:
        """The point of an attempt is visible."""
        with self._replica.changed:
            if self.last is not None and self.last.id == attempt:
                self.last.point = point
                self._replica.changed.notify_all()

    def release(self, last: LastPoint, why: str) -> None:
        """Let the machine go on, if it is held; regular points may be asked for again."""
        replica = self._replica
        with replica.changed:
            session = replica.session
            if self.last is last:
                self.last = None
            if self.current is not None and self.current.id == last.id:
                self.current = None
            replica.changed.notify_all()
        if session is not None and last.asked is not None and not last.over:
            with contextlib.suppress(PeerClosed):
                session.send(PointFailed(last.id, "NotPoweredOff", why))

    def _end_last(self, attempt: str, why: str, reason: str = "") -> None:
        if self.last is not None and self.last.id == attempt and not self.last.over:
            self.last.over, self.last.reason = why or "its agent gave up", reason
            self._replica.changed.notify_all()

    # -- the group -------------------------------------------------------------------------------------------------

    def ready(self, session: Session, point: str) -> None:
        """The agent says PointReady."""
        attempt = self._grouped(session, point)
        if attempt is not None:
            self._replica.shared.groups.ready(attempt.group, self.machine_id, point)

    def frozen(self, session: Session, point: str) -> None:
        """The agent says Frozen."""
        attempt = self._grouped(session, point)
        if attempt is not None:
            self._replica.shared.groups.frozen(attempt.group, self.machine_id, point)

    def freeze_now(self, point: str) -> None:
        """See Member."""
        self._say(point, FreezeNow(point))

    def cut_now(self, point: str) -> None:
        """See Member."""
        self._say(point, Cut(point))

    def call_off(self, point: str, why: str) -> None:
        """See Member."""
        replica = self._replica
        with replica.changed:
            session = replica.session
            if self.current is None or self.current.id != point:
                return
            self.current, self.fault = None, f"no recovery point: {why}"
            replica.changed.notify_all()
        if session is not None:
            with contextlib.suppress(PeerClosed):
                session.send(PointFailed(point, "GroupCalledOff", why))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _note_churn(self, message: PointEnd | PointFailed, *, outruns: bool) -> None:
        sent = int(message.link_rate) or (self.churn.sent_rate if self.churn else 0)
        self.churn = Churn(written_rate=int(message.churn), sent_rate=sent, outruns_link=outruns)
        self._replica.shared.metrics.note_churn(self.machine_id, message.churn, message.link_rate)

    def _grouped(self, session: Session, point: str) -> Attempt | None:
        """Return the attempt that the agent speaks of; None if it was called off meanwhile."""
        with self._replica.changed:
            attempt = self.current
            if self._replica.session is not session or attempt is None or attempt.id != point:
                return None
        if not attempt.group:
            raise WireError(f"the point {point!r} is not taken together with others")
        return attempt

    def _say(self, point: str, message: Message) -> None:
        with self._replica.changed:
            session = self._replica.session if self.current is not None and self.current.id == point else None
        if session is not None:
            with contextlib.suppress(PeerClosed):
                session.send(message)

    def _closed(self, attempt: Attempt, message: PointEnd) -> ClosedPoint:
        replica = self._replica
        received = replica.shared.now().timestamp()
        time, off = server_time(message.frozen_at, replica.link.clock_skew, attempt.asked, received)
        notes = tuple(note for note in (*message.notes, off, attempt.note) if note)
        if not attempt.group:
            return ClosedPoint(message, time, notes)
        found = replica.shared.groups.ended(attempt.group, self.machine_id, attempt.id)
        if found is None:
            raise WireError(f"the point {message.id!r} ended before all of its group were frozen")
        cut, instant = found
        return ClosedPoint(message, instant.timestamp(), notes, cut)
