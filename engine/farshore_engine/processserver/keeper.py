"""Keeps a machine's points coming: asks for them when they are due, commits them, retries, and prunes afterwards.

One thread for each replicating machine. A point is asked for only when the one before it is committed.
"""

from __future__ import annotations

import secrets
import threading
from datetime import timedelta

import structlog

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.processserver.closedpoint import ClosedPoint
from farshore_engine.processserver.groups import Standing, Turn
from farshore_engine.processserver.housekeeping import Housekeeper
from farshore_engine.processserver.intake import IntakeBroken
from farshore_engine.processserver.lastpoint import HeldPoint, LastPoint
from farshore_engine.processserver.recent import Points as Points
from farshore_engine.processserver.replica import Replica
from farshore_engine.processserver.schedule import Asked, due
from farshore_engine.vault.durability import StoreLost
from farshore_engine.vault.upkeep import UpkeepReport
from farshore_engine.vault.writer import DiskFields, DiskSpoiled, PointFields
from farshore_engine.wire.messages import Committed
from farshore_engine.wire.messages import Consistency as WireConsistency

log = structlog.get_logger(__name__)

TICK = 0.25  # seconds
RETRY_FIRST, RETRY_MOST = 1.0, 30.0
ATTEMPT_PAUSE = 5.0  # seconds after a failed attempt at a point
SILENCE = 300.0  # seconds for which an agent that owes something may say nothing
LARGEST_FRAME = 1 << 20  # bytes that an agent sends at a time: under a low limit it is silent between two
RECONNECTING = 20.0  # seconds in which an agent that was there a moment ago is waited for
NEED_A_PERSON = {  # reasons for which a last point is not tried again, and what to do
    "StopHookFailed": "Correct the hook in the machine's /etc/farshore/stop.d, then fail over anew; it runs as before",
    "NoTracker": "Fail over unplanned, after shutting the machine down: no write tracker works on its kernel",
}
LONG_AWAY = timedelta(minutes=5)


class PointKeeper:
    """The thread. `stopped_by` is the fault that ended it, if one did."""

    def __init__(self, replica: Replica, points: Points) -> None:
        self._replica = replica
        self.points = points
        self.waiting_for = ""  # what the last retry said, "" when nothing is retried
        self.stopped_by: BaseException | None = None
        self._asked = points.asked
        self._asked_before: Asked | None = None  # as it was before the point that is under way
        self._demanded = 0
        self._served = 0
        self._serving = 0
        self._retry = RETRY_FIRST
        self._clock = replica.shared.monotonic
        self._not_before = 0.0
        self._thread = threading.Thread(target=self._run, name=f"points-{replica.machine_id}", daemon=True)
        self._housekeeper = Housekeeper(replica, self._kept_up)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended, after the replica was closed."""
        self._thread.join()
        self._housekeeper.join()

    def take_now(self, timeout: float) -> RecoveryPoint:
        """Have a point made of what the machine holds now, and return it once it is committed.

        When the agent is away, what it had sent completely is committed instead, and the newest point is returned; one
        that was there a moment ago is given time to connect again.

        Raises:
            WaitFault: no point could be made in time, or the replica was closed meanwhile.
            StopFault: there is nothing to commit.
        """
        changed, deadline = self._replica.changed, self._clock() + timeout
        with changed:
            back = self._back_by(timeout)
            self._demanded += 1
            number = self._demanded
            changed.notify_all()
            while self._served < number and not self._replica.closed:
                if self._replica.link.connected:
                    back = self._back_by(timeout)
                elif self._clock() > back:
                    break
                if self._clock() > deadline:
                    attempts = self._replica.attempts
                    why = self.waiting_for or attempts.fault or attempts.blocked_by[0]
                    why = why or "the agent has not sent it yet"
                    raise WaitFault(f"the point was not committed in {timeout:.0f} s: {why}", reason="PointLate")
                changed.wait(TICK)
            while self._replica.spool.committing is not None and not self._replica.closed:
                if self._clock() > deadline:
                    raise WaitFault(f"the last point is not committed: {self.waiting_for}", reason="PointLate")
                changed.wait(TICK)
            if self._replica.closed:
                raise WaitFault(
                    f"replication of {self._replica.machine_id} was closed before the point was committed",
                    reason="Reopened",
                )
            self._served = max(self._served, number)
        if not self.points.recent:
            raise StopFault(
                f"nothing of {self._replica.machine_id} can be committed: no complete point was ever received",
                "Wait for the initial replication to finish",
                reason="NothingToCommit",
            )
        return self.points.recent[0]

    def take_last(self, hold: float, power_off: bool, timeout: float) -> HeldPoint:
        """Have the machine's last point made, and return it committed, with the machine still frozen.

        Args:
            hold: seconds for which it stays frozen.
            power_off: whether it cuts its own power as soon as it hears of the commit.
            timeout: seconds to wait for the commit.

        Raises:
            WaitFault: it was not made or not committed; the machine goes on, and this may be called again.
            StopFault: it cannot be made; the machine goes on.
        """
        replica, last = self._replica, LastPoint(hold, power_off)
        deadline = self._clock() + timeout
        with replica.changed:
            if replica.attempts.last is not None:
                raise WaitFault("a last point of this machine is being made already", reason="PointLate")
            replica.attempts.last = last
            replica.changed.notify_all()
            while last.point is None and not last.over and not replica.closed and self._clock() < deadline:
                replica.changed.wait(TICK)
        if last.point is None:  # else what became of the machine is for who powers it off to see
            why = last.over or self.waiting_for or replica.attempts.blocked_by[0] or "it was not committed in time"
            replica.attempts.release(last, "the last point was not committed")
            if last.reason in NEED_A_PERSON:
                raise StopFault(
                    f"no last point of {replica.machine_id}: {why}", NEED_A_PERSON[last.reason], reason=last.reason
                )
            raise WaitFault(f"no last point of {replica.machine_id}: {why}", reason="NoLastPoint")

        def left() -> float:
            return 0.0 if last.over else max(0.0, last.until - self._clock())

        def alive() -> bool:
            return bool(last.over) and replica.session is not None

        return HeldPoint(last.point, left, lambda why: replica.attempts.release(last, why), lambda: last.over, alive)

    def _back_by(self, timeout: float) -> float:
        """Return until when an agent that is not connected now is waited for: not long, if it was not there lately."""
        seen = self._replica.link.last_seen
        away = seen is not None and self._replica.shared.now() - seen > LONG_AWAY
        return self._clock() if away else self._clock() + min(RECONNECTING, timeout / 2)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        replica = self._replica
        try:
            while not replica.closed:
                if replica.intake.fault is not None:
                    raise replica.intake.fault
                self._turn()
        except (Fault, IntakeBroken, OSError) as error:
            self.stopped_by = error
        except BaseException as error:
            log.error("point keeper failed", machine=replica.machine_id, exc_info=True)
            self.stopped_by = error
        with replica.changed:
            replica.changed.notify_all()

    def _turn(self) -> None:
        replica = self._replica
        self._look_for_silence()
        closed = replica.spool.committing
        try:
            if closed is not None and closed.point is not None:
                self._commit(closed.point)
            elif not self._ask():
                if replica.spool.has_waiting:
                    replica.uploader.retry()
                with replica.changed:
                    replica.changed.wait(TICK)
            self.waiting_for, self._retry = "", RETRY_FIRST
        except StoreLost:
            raise  # what was built on is gone: only opening the chain anew heals that
        except WaitFault as fault:
            self._pause(fault)

    def _pause(self, fault: WaitFault) -> None:
        delay = fault.retry_after if fault.retry_after is not None else self._retry
        self._retry = min(self._retry * 2, RETRY_MOST)
        self.waiting_for = f"{fault.message}; retried in {delay:.0f} s"
        self._replica.shared.metrics.faults.labels(self._replica.machine_id).inc()
        log.warning("retrying", machine=self._replica.machine_id, message=fault.message, seconds=delay)
        deadline = self._clock() + delay
        while not self._replica.closed and self._clock() < deadline:
            self._turn_of_group(None)
            with self._replica.changed:
                self._replica.changed.wait(min(TICK, max(0.0, deadline - self._clock())))

    def _ask(self) -> bool:
        """Ask for a point if one is due; return whether one was asked for."""
        replica, now = self._replica, self._replica.shared.now()
        attempts = replica.attempts
        if replica.assignment.desired is not Desired.REPLICATE:
            return False
        if attempts.blocked_by[0]:
            self._turn_of_group(None)
            return False
        if attempts.last is not None:  # nothing else is asked of a machine that is about to be powered off
            return attempts.last.asked is None and attempts.ask_last(attempts.last)
        if self._asked_before is not None:  # it failed, or its connection broke: it is due again
            self._asked, self._asked_before = self._asked_before, None
            self._not_before = self._clock() + (ATTEMPT_PAUSE if attempts.fault else 0.0)
        if self._clock() < self._not_before:
            self._turn_of_group(None)
            return False
        demanded = self._demanded  # who asks later is not served by a freeze that may be over by then
        wanted = due(replica.assignment.policy, self._asked, now)
        if wanted is None and demanded > self._served:
            wanted = WireConsistency.CRASH
        turn = self._turn_of_group(wanted)
        if not turn.together and (wanted is None or not turn.alone):
            return False
        wanted = wanted or WireConsistency.CRASH
        group = replica.assignment.consistency_group
        if group is not None and turn.together:
            if not attempts.ask(turn.together, wanted, group.name):
                replica.shared.groups.unasked(group.name, replica.machine_id, turn.together)
                return False
        elif not attempts.ask(secrets.token_hex(6), wanted, note=turn.note):
            return False
        self._serving = demanded
        self._asked_before, self._asked = self._asked, self._asked.after(wanted, now)
        return True

    def _turn_of_group(self, wanted: WireConsistency | None) -> Turn:
        """Tell the machine's group how it stands, and return what is its turn; without a group it is always alone."""
        replica = self._replica
        group = replica.assignment.consistency_group
        if group is None or len(group.members) < 2:
            return Turn(alone=True)
        why, passing = replica.attempts.blocked_by
        if not why and self._clock() < self._not_before:
            why, passing = replica.attempts.fault or "its last point failed", True
        elif not why and self.waiting_for:
            why = self.waiting_for
        bound = replica.assignment.policy.freeze_bound.total_seconds()
        standing = Standing(why, passing, wanted is not None, bound)
        return replica.shared.groups.turn(group, replica.attempts, standing)

    def _look_for_silence(self) -> None:
        """Cut the session of an agent that owes something and says nothing: it may answer pings and hang all the same.

        A frame may take its time under a low bandwidth limit.
        """
        replica = self._replica
        limit = replica.assignment.policy.bandwidth_limit
        hooks = 2 * replica.assignment.policy.hook_window.total_seconds()  # it waits for them, and for the posts
        allowed = SILENCE + hooks + (2 * LARGEST_FRAME / limit if limit > 0 else 0.0)
        silent, session = replica.silent_for, replica.session
        if silent > allowed and session is not None:
            log.warning("the agent says nothing: its session is ended", machine=replica.machine_id, seconds=silent)
            session.cut()

    def _commit(self, closed: ClosedPoint) -> None:
        replica, end = self._replica, closed.end
        started = self._clock()
        fields = PointFields(
            time=closed.instant,
            consistency=Consistency(end.consistency.value),
            disks=tuple(DiskFields(disk.id, disk.name, disk.size) for disk in end.disks),
            machine=MachineDescription.model_validate(end.machine),
            notes=closed.notes,
            group=closed.group,
        )
        point = replica.writer.commit(fields)
        replica.held_disks.update(disk.id for disk in fields.disks)
        self.points = self.points.with_new(point)
        self._asked_before = None
        self._served = max(self._served, self._serving)
        replica.attempts.committed(end.id, point)
        replica.point_committed(Committed(end.id, point.name, point.slot))
        replica.shared.metrics.points.labels(replica.machine_id).inc()
        replica.shared.metrics.last_point.labels(replica.machine_id).set(closed.time)
        log.info(
            "point committed", machine=replica.machine_id, point=point.name, consistency=point.consistency.value,
            bytesChanged=point.bytes_changed, bytesStored=point.bytes_stored, notes=closed.notes,
            freezeSeconds=round(end.freeze_seconds, 4), seconds=round(self._clock() - started, 3),
        )  # fmt: skip
        self._housekeeper.run_if_due()

    def _kept_up(self, report: UpkeepReport) -> None:
        """Take over what is left after pruning, and have what the store lost of the newest point sent again."""
        points = Points.of(list(report.prune.points))
        with self._replica.changed:
            newer = [p for p in reversed(self.points.recent) if not points.recent or p.slot > points.recent[0].slot]
            for point in newer:
                points = points.with_new(point)
            self.points = points
        if report.lost:
            self._replica.compare_again(f"the vault lost {len(report.lost)} packs")
        if report.spoiled is not None and self.stopped_by is None:
            self.stopped_by = DiskSpoiled(self._replica.machine_id, report.spoiled)
