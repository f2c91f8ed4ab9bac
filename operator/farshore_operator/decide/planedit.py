"""The verdict on an edit of `activeSite`: made once, when its generation is first seen, and kept in the status.

Passing time never changes it. What was refused stays refused, until somebody edits `activeSite` again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from farshore_operator.api import FailoverPlan, FailoverRun
from farshore_operator.api.failoverplan import ActiveSite, Mode
from farshore_operator.api.failoverrun import RunPhase
from farshore_operator.api.planstatus import SeenEdit
from farshore_operator.decide import readiness
from farshore_operator.decide.references import Problem
from farshore_operator.decide.runspec import Chosen

MANUAL = "Manual"
STARTS = "StartsFailover"
NOTHING = "NothingToDo"


def judge(
    plan: FailoverPlan,
    machines: Sequence[Chosen],
    problems: Sequence[Problem],
    newest: FailoverRun | None,
    where: ActiveSite,
    now: datetime,
) -> SeenEdit:
    """Return the verdict on the newest edit of `activeSite`; the one in the status unless the edit is new.

    Only an edit with the reason `STARTS` ever starts a run: one that found the machines in place does not, whatever
    happens to them later.
    """
    known, wanted = plan.status.edit, plan.spec.active_site
    if known is not None and known.active_site == wanted:
        return known
    refused = _refusal(plan, machines, problems, newest, where, now, first=known is None)
    return SeenEdit(
        generation=plan.metadata.generation,
        active_site=wanted.value,
        accepted=refused is None,
        reason=refused.reason if refused else (NOTHING if wanted is where else STARTS),
        message=refused.message if refused else None,
        seen_at=now.replace(microsecond=0),
    )


def not_in_this_release(plan: FailoverPlan) -> str:
    """Say which parts of the plan this release does not carry out, empty if none."""
    spec = plan.spec
    found = []
    if spec.drill is not None:
        found.append("spec.drill (make a TestFailover instead)")
    if spec.abort:
        found.append("spec.abort")
    if spec.change_recovery_point is not None:
        found.append("spec.changeRecoveryPoint")
    if spec.reprotect != MANUAL:
        found.append("spec.reprotect other than Manual")
    found += _blocking(plan)
    return f"this release does not carry out {', '.join(found)}: remove it" if found else ""


def _blocking(plan: FailoverPlan) -> list[str]:
    """Return what would make a failover wrong if it were silently left out."""
    found = [f"hooks of group {group.name}" for group in plan.spec.groups if group.before or group.after]
    if plan.spec.mode is Mode.PLANNED:
        found.append("mode planned (use unplanned with shutdownSource: Required)")
    return found


def _refusal(
    plan: FailoverPlan,
    machines: Sequence[Chosen],
    problems: Sequence[Problem],
    newest: FailoverRun | None,
    where: ActiveSite,
    now: datetime,
    *,
    first: bool,
) -> Problem | None:
    wanted = plan.spec.active_site
    running = newest is not None and newest.status.phase in (None, RunPhase.PENDING, RunPhase.RUNNING)
    if running and newest is not None:
        text = f"activeSite was changed while run {newest.metadata.name} is under way, which goes on as it began"
        return Problem("RunUnderWay", f"{text}. When it is over, edit activeSite again")
    if wanted is where:
        return None
    if wanted is ActiveSite.SOURCE:
        text = "activeSite is source, but the machines run at the recovery site: going back is a failback, which"
        return Problem("FailbackNotPossible", f"{text} this release cannot do. Set activeSite to recovery again")
    if first:
        text = "the plan was created with activeSite recovery, but its machines run at the source"
        return Problem(
            "CreatedAtRecovery", f"{text}: nothing is moved. Set activeSite to source first, then to recovery"
        )
    return _not_possible(plan, machines, problems, newest, now)


def _not_possible(
    plan: FailoverPlan,
    machines: Sequence[Chosen],
    problems: Sequence[Problem],
    newest: FailoverRun | None,
    now: datetime,
) -> Problem | None:
    again = "Correct that, then set activeSite to source and to recovery again"
    if problems:
        return Problem(problems[0].reason, f"the failover could not start: {problems[0].message}. {again}")
    if not machines:
        return Problem("NoMachine", f"the failover could not start: the plan means no machine. {again}")
    if newest is not None and newest.status.phase in (RunPhase.FAILED, RunPhase.CLEANING_UP):
        text = f"the failover could not start: run {newest.metadata.name} failed and is not cleaned up yet"
        return Problem("NotCleanedUp", f"{text}. Set activeSite to source, wait for the clean-up, then to recovery")
    blocking = _blocking(plan)
    if blocking:
        text = f"the failover could not start: this release does not carry out {', '.join(blocking)}"
        return Problem("NotInThisRelease", f"{text}. {again}")
    for chosen in machines:
        hard = [blocker for blocker in readiness.blockers(chosen.observed, now) if blocker.hard]
        if hard:
            name = chosen.observed.vm.metadata.name
            return Problem(hard[0].reason, f"the failover could not start: {name}: {hard[0].message}. {again}")
    return None
