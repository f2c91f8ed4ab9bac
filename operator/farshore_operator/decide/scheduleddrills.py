"""Drills that a plan's schedule asks for: when the next one is due, which one starts now, and which old ones go.

The time at which the next drill is due is in the plan's status, so an operator that was away finds it, and starts one
drill for all the times that it missed. A drill's name says its time, so a repeated decision finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from farshore_operator.api import TestFailover
from farshore_operator.api.failoverplan import ActiveSite, Drill
from farshore_operator.api.planstatus import LastDrill
from farshore_operator.api.resource import Reference
from farshore_operator.api.testfailover import TestFailoverPhase, TestFailoverSpec
from farshore_operator.decide import planview
from farshore_operator.decide.actions import CreateOwned, DeleteOwned
from farshore_operator.decide.decision import Action
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import SCHEDULED_ANNOTATION, bounded
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.report.conditions import Seen

SCHEDULED = "DrillsScheduled"
NAME_LENGTH = 63
WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


@dataclass(frozen=True)
class ScheduledDrills:
    """What a plan's schedule asks for now.

    Attributes:
        next: when the next drill is due; None without a schedule that has a next time.
        last: the newest drill that it has started; None if there never was one.
        seen: the condition that tells whether drills start, and why not.
        again: when to look again.
    """

    actions: tuple[Action, ...] = ()
    next: datetime | None = None
    last: LastDrill | None = None
    seen: tuple[Seen, ...] = ()
    again: timedelta | None = None


def decide(observed: ObservedPlan, now: datetime) -> ScheduledDrills:
    """Decide on the drills of a plan."""
    plan = observed.plan
    drills = sorted(observed.drills, key=due_at)
    last = _last(drills) or plan.status.last_drill
    wanted = plan.spec.drill
    if wanted is None:
        return ScheduledDrills(last=last)
    now = now.astimezone(UTC).replace(microsecond=0)
    try:
        coming = next_time(wanted.schedule, now)
    except CronSimError:
        text = f"spec.drill.schedule {wanted.schedule} never comes: correct it, such as 0 3 * * 6 for Saturdays at 3"
        return ScheduledDrills(last=last, seen=(Seen(SCHEDULED, False, "BadSchedule", text),))
    due = plan.status.next_drill
    if due is None or plan.status.drill_schedule != wanted.schedule:
        due = None  # a schedule counts from when it is first seen: what was before is not made up for
    old = _beyond_limits(drills, wanted)
    again = max(timedelta(seconds=1), coming - now)
    if due is None or now < due:
        at = due or coming
        seen = _waiting(observed, wanted, drills, at)
        return ScheduledDrills(old, at, last, (seen,), max(timedelta(seconds=1), at - now))
    hindered = _hindrance(observed, wanted, drills)
    if hindered is not None:
        reason, text = hindered
        seen = Seen(SCHEDULED, False, reason, f"the drill of {due:%Y-%m-%d %H:%M} UTC was left out: {text}")
        return ScheduledDrills(old, coming, last, (seen,), again)
    drill = _begin(observed, wanted, latest_time(wanted.schedule, due, now))
    seen = Seen(SCHEDULED, True, "Started", f"TestFailover {drill.name} was started; the next one is due {_at(coming)}")
    return ScheduledDrills((drill, *old), coming, last, (seen,), again)


def next_time(schedule: str, after: datetime) -> datetime:
    """Return the first time of a schedule after an instant, in UTC; raises CronSimError if there is none."""
    return _first(CronSim(_expression(schedule), after))


def latest_time(schedule: str, due: datetime, now: datetime) -> datetime:
    """Return the newest time of a schedule up to now; `due` if it is none of the schedule any more."""
    # CronSim goes back from the minute before the one that it is given.
    found = _first(CronSim(_expression(schedule), now.replace(second=0) + timedelta(minutes=1), reverse=True))
    return max(found, due) if due <= now else found


def due_at(drill: TestFailover) -> datetime:
    """Return when a scheduled drill was due."""
    text = drill.metadata.annotations.get(SCHEDULED_ANNOTATION, "")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return drill.metadata.creation_timestamp or datetime.fromtimestamp(0, UTC)


def _expression(schedule: str) -> str:
    return WORDS.get(schedule, schedule.upper())


def _first(times: CronSim) -> datetime:
    try:
        return next(times)
    except StopIteration:
        raise CronSimError("no such day") from None


def _begin(observed: ObservedPlan, wanted: Drill, at: datetime) -> CreateOwned:
    meta = observed.plan.metadata
    spec = TestFailoverSpec(
        plan_ref=Reference(name=meta.name),
        network=wanted.network,
        probes=wanted.probes,
        cleanup_after=wanted.cleanup_after,
    )
    return CreateOwned(
        "TestFailover",
        meta.namespace,
        bounded(f"{meta.name}-{at:%Y%m%d-%H%M}", NAME_LENGTH),
        spec.dump(),
        id_of(observed.plan),
        annotations={SCHEDULED_ANNOTATION: at.isoformat()},
    )


def _hindrance(observed: ObservedPlan, wanted: Drill, drills: Sequence[TestFailover]) -> tuple[str, str] | None:
    """Return why no drill starts now: reason and sentence."""
    if wanted.suspend:
        return "Suspended", "spec.drill.suspend is true"
    run = planview.under_way(observed)
    if run is not None:
        return "RunUnderWay", f"{run.spec.kind} {run.metadata.name} is under way"
    if planview.active_site(observed) is ActiveSite.RECOVERY:
        return "AtRecoverySite", "machines of the plan run at the recovery site"
    busy = [drill.metadata.name for drill in drills if drill.status.phase is not TestFailoverPhase.CLEANED_UP]
    if busy:
        return "DrillUnderWay", f"TestFailover {busy[0]} is not cleaned up yet"
    return None


def _waiting(observed: ObservedPlan, wanted: Drill, drills: Sequence[TestFailover], at: datetime) -> Seen:
    """Say what is to come; a drill that is under way is no hindrance, it will be over by then."""
    hindered = _hindrance(observed, wanted, ())
    known = observed.plan.status.condition(SCHEDULED)
    if hindered is not None:
        return Seen(SCHEDULED, False, hindered[0], f"no drill starts: {hindered[1]}. The next one is due {_at(at)}")
    if known is not None and known.reason == "DrillUnderWay" and observed.plan.status.next_drill == at:
        return Seen(SCHEDULED, False, known.reason, known.message)  # stays until the next one, or nobody would see it
    return Seen(SCHEDULED, True, "Waiting", f"the next drill is due {_at(at)}")


def _beyond_limits(drills: Sequence[TestFailover], wanted: Drill) -> tuple[DeleteOwned, ...]:
    """Return the deletion of old drills: of which nothing is left, and that are not among the newest of their kind."""
    over = [drill for drill in reversed(drills) if drill.status.phase is TestFailoverPhase.CLEANED_UP]
    good = [drill for drill in over if _result(drill) == "Succeeded"]
    bad = [drill for drill in over if _result(drill) != "Succeeded"]
    old = (*good[wanted.successful_drills_history_limit :], *bad[wanted.failed_drills_history_limit :])
    return tuple(DeleteOwned(id_of(drill)) for drill in old if drill.metadata.deletion_timestamp is None)


def _last(drills: Sequence[TestFailover]) -> LastDrill | None:
    if not drills:
        return None
    drill = drills[-1]
    return LastDrill(
        name=drill.metadata.name,
        scheduled_at=due_at(drill),
        result=_result(drill),
        rpo_seconds=drill.status.rpo_seconds,
        rto_seconds=drill.status.rto_seconds,
        finished_at=drill.status.finished_at,
    )


def _result(drill: TestFailover) -> str:
    succeeded = drill.status.condition("DrillSucceeded")
    if succeeded is None:
        return "Failed" if drill.status.phase is TestFailoverPhase.CLEANED_UP else "Running"
    return "Succeeded" if succeeded.status.value == "True" else "Failed"


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
