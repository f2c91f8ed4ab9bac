"""The verdict on an edit of `activeSite`: made once, when its generation is first seen, and kept in the status.

Passing time never changes it. What was refused stays refused, until somebody edits `activeSite` again.
"""

from __future__ import annotations

from datetime import datetime

from farshore_engine.contract.points import Selector
from farshore_operator.api.failoverplan import ActiveSite, Mode
from farshore_operator.api.planstatus import SeenEdit
from farshore_operator.api.protectedvm import Place
from farshore_operator.decide import failback, machineruns, planview, readiness
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.decide.references import Problem
from farshore_operator.engines.capabilities import Capability

STARTS = "StartsFailover"
STARTS_BACK = "StartsFailback"
NOTHING = "NothingToDo"
STARTING = (STARTS, STARTS_BACK)


def judge(observed: ObservedPlan, now: datetime) -> SeenEdit | None:
    """Return the verdict on the newest edit of `activeSite`; the one in the status unless the edit is new.

    None while a plan that is seen for the first time, as after the loss of a cluster, finds a run under way: where its
    machines run is known when that is over.

    Only an edit with a reason in `STARTING` ever starts a run: one that found the machines in place does not, whatever
    happens to them later.
    """
    plan = observed.plan
    known, wanted = plan.status.edit, plan.spec.active_site
    if known is not None and known.active_site == wanted:
        return known
    if known is None and planview.under_way(observed) is not None:
        return None
    refused = _refusal(observed, now, first=known is None)
    starts = STARTS if wanted is ActiveSite.RECOVERY else STARTS_BACK
    idle = wanted is planview.active_site(observed) or planview.under_way(observed) is not None
    return SeenEdit(
        generation=plan.metadata.generation,
        active_site=wanted.value,
        accepted=refused is None,
        reason=refused.reason if refused else (NOTHING if idle else starts),
        message=refused.message if refused else None,
        seen_at=now.replace(microsecond=0),
    )


def unread(observed: ObservedPlan, why: str, now: datetime) -> SeenEdit | None:
    """Return the verdict while it is not known what the vault knows of the machines: a new edit is refused.

    Args:
        observed: the plan.
        why: what is waited for.
        now: when.
    """
    plan = observed.plan
    known, wanted = plan.status.edit, plan.spec.active_site
    if known is None or known.active_site == wanted:
        return known
    text = f"activeSite was changed while {why}. When that is over, set it back, and edit it again"
    return SeenEdit(
        generation=plan.metadata.generation,
        active_site=wanted.value,
        accepted=False,
        reason="ReadingHistory",
        message=text,
        seen_at=now.replace(microsecond=0),
    )


def _refusal(observed: ObservedPlan, now: datetime, *, first: bool) -> Problem | None:
    wanted, where = observed.plan.spec.active_site, planview.active_site(observed)
    running = planview.under_way(observed)
    if running is not None:
        text = f"activeSite was changed while run {running.metadata.name} is under way, which goes on as it began"
        return Problem("RunUnderWay", f"{text}. When it is over, edit activeSite again")
    if wanted is where:
        return None
    if first:
        return _created(where)
    again = f"Correct that, then set activeSite to {where.value} and to {wanted.value} again"
    kind = "failover" if wanted is ActiveSite.RECOVERY else "failback"
    found = _not_possible(observed, now) or (
        _no_failover(observed, now) if wanted is ActiveSite.RECOVERY else _no_failback(observed)
    )
    if found is None:
        return None
    if found.reason.endswith("NotSupported") and wanted is ActiveSite.SOURCE:
        again = f"Set activeSite to {where.value}"
    return Problem(found.reason, f"the {kind} could not start: {found.message}. {again}")


def _created(where: ActiveSite) -> Problem:
    if where is ActiveSite.SOURCE:
        text = "the plan was created with activeSite recovery, but its machines run at the source: nothing is moved"
        return Problem("CreatedAtRecovery", f"{text}. Set activeSite to source first, then to recovery")
    text = "the plan was created with activeSite source, but its machines run at the recovery site: nothing is moved"
    return Problem("CreatedAtSource", f"{text}. Set activeSite to recovery first; going back is then an edit to source")


def _not_possible(observed: ObservedPlan, now: datetime) -> Problem | None:
    """Return what is in the way of any move."""
    if observed.problems:
        return observed.problems[0]
    if not observed.machines:
        return Problem("NoMachine", "the plan means no machine")
    twice = planview.twice(observed)
    if twice is not None:
        return twice
    failed = planview.failed_move(observed)
    if failed is not None:
        text = f"run {failed.metadata.name} failed and is not undone yet: set spec.abort to it, or set activeSite back"
        return Problem("NotCleanedUp", f"{text}, and wait for that")
    return _stale_point(observed)


def _stale_point(observed: ObservedPlan) -> Problem | None:
    """Refuse the name or time of a point that an earlier run has used: whoever reverts an edit would get it again."""
    point = observed.plan.spec.recovery_point
    if point in set(Selector):
        return None
    used = next((run for run in observed.runs if run.spec.recovery_point == point), None)
    if used is None:
        return None
    text = (
        f"spec.recoveryPoint {point} was used by run {used.metadata.name}, and a point's name or time is good for one"
    )
    return Problem("StalePoint", f"{text} run: choose a point anew")


def _no_failover(observed: ObservedPlan, now: datetime) -> Problem | None:
    for chosen in observed.machines:
        machine = chosen.observed
        name = machine.vm.metadata.name
        standing = machineruns.life(machine).standing
        if standing.place is Place.FAILED_BACK:
            return Problem("NotCommitted", f"{name} was failed back by run {standing.run}: commit or abort that first")
        hard = [blocker for blocker in readiness.blockers(machine, now) if blocker.hard]
        if hard:
            return Problem(hard[0].reason, f"{name}: {hard[0].message}")
        if observed.plan.spec.mode is Mode.PLANNED and not _serves(machine):
            text = f"{name}: no process server of the source is connected, so its last change cannot be taken along"
            return Problem("ProcessServerNotConnected", f"{text}: start it, or use mode unplanned")
    return None


def _serves(machine: ObservedVM) -> bool:
    assignment = machine.vm.status.assignment
    server = machine.server(assignment.process_server) if assignment is not None else None
    return server is not None and server.connected


def _no_failback(observed: ObservedPlan) -> Problem | None:
    refused = planview.refused(observed, Capability.FAILBACK)
    if refused is not None:
        return refused
    for chosen in observed.machines:
        if machineruns.life(chosen.observed).at_recovery:
            found = failback.hindrance(chosen.observed, observed.plan.spec.mode)
            if found is not None:
                return found
    return None
