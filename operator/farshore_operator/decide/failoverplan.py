"""Decides on a FailoverPlan: an edit of `activeSite` starts a run if it could when it was first seen, or never.

So a revert cannot promote a drill, fire a finished run again, change one that is under way, or move machines by itself.
What follows a run (commit, abort, another point, reprotect) names it, or is declared as automatic. `planview` says what
is, `planedit` and `planrequests` judge, `planruns` makes the runs, `planreport` tells.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from farshore_operator.api.failoverrun import RunKind, RunPhase
from farshore_operator.api.planstatus import FailoverPlanStatus, PlanMember, PlanPhase, SeenEdit, SeenRequest
from farshore_operator.decide import (
    history,
    planedit,
    planreport,
    planrequests,
    planruns,
    planview,
    prune,
    recoveryplan,
    scheduleddrills,
)
from farshore_operator.decide.decision import Action, Decision, Outcome
from farshore_operator.decide.drift import drift
from farshore_operator.decide.hooks import rolls_back
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.origin import signed
from farshore_operator.decide.planruns import follow, following_name
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.decide.runspec import Chosen
from farshore_operator.decide.scheduleddrills import ScheduledDrills
from farshore_operator.report.conditions import Seen, settle, waiting

AWAITING_COMMIT = "AwaitingCommit"
RETRY = timedelta(seconds=8)
AUTOMATIC = "Automatic"


def decide(observed: ObservedPlan, now: datetime) -> Decision[FailoverPlanStatus]:
    """Decide on a plan. Deleting one touches no machine, so there is nothing to be done then."""
    if observed.plan.metadata.deletion_timestamp:
        return Decision(None)
    unread = [chosen.observed for chosen in observed.machines if history.pending(chosen.observed)]
    if unread:
        return Decision(_unread(observed, unread[0], now), (), RETRY)
    edit = planedit.judge(observed, now)
    requests = planrequests.judge(observed)
    action = _next(observed, edit, requests)
    drills = scheduleddrills.decide(observed, now)
    status = _status(observed, edit, requests, drills, now)
    actions = (*signed((action,) if action is not None else (), observed.requests), *prune.runs(observed))
    again = min(filter(None, (RETRY if observed.problems else None, drills.again)), default=None)
    return Decision(status, (*actions, *drills.actions), again)


def fold(status: FailoverPlanStatus, outcome: Outcome) -> FailoverPlanStatus:
    """Take over nothing."""
    return status


def _unread(observed: ObservedPlan, machine: ObservedVM, now: datetime) -> FailoverPlanStatus:
    """Judge nothing until it is known what the vault knows of the machines."""
    plan, generation = observed.plan, observed.plan.metadata.generation
    why = f"{machine.vm.metadata.name}: {history.message(machine)}"
    conditions = settle(plan.status.conditions, waiting("ReadingHistory", why), (), generation, now)
    update = {
        "observed_generation": generation,
        "conditions": conditions,
        # What is asked for now is refused: it would begin by itself, whenever that is read.
        "edit": planedit.unread(observed, why, now),
        "requests": planrequests.judge(observed, why),
    }
    return plan.status.model_copy(update=update)


def _next(observed: ObservedPlan, edit: SeenEdit | None, requests: tuple[SeenRequest, ...]) -> Action | None:
    """Return the one run that begins now, None if there is none. While a run is under way, none begins."""
    if edit is None or planview.under_way(observed) is not None:
        return None
    return (
        _abort(observed, edit, requests)
        or _change(observed, requests)
        or _move(observed, edit)
        or _commit(observed)
        or _reprotect(observed)
    )


def _move(observed: ObservedPlan, edit: SeenEdit) -> Action | None:
    """Begin the failover or failback that an edit asks for."""
    plan = observed.plan
    begins = planreport.started_by(observed, edit)
    if begins is None or plan.spec.active_site is planview.active_site(observed):
        return None
    name, kind = begins
    # The verdict must be in the status before the run begins, so that a killed operator never judges twice. A run
    # whose record was deleted is remembered, and not repeated.
    if plan.status.edit != edit or name in planview.known_names(observed):
        return None
    return planruns.failover(observed, name) if kind is RunKind.FAILOVER else planruns.fail_back(observed, name)


def _abort(observed: ObservedPlan, edit: SeenEdit, requests: tuple[SeenRequest, ...]) -> Action | None:
    """Undo the run that `abort` names, or a failed one that has stopped machines when activeSite is set back or a hook
    of it says that it is rolled back."""
    request = planrequests.accepted(observed, requests, planrequests.ABORT)
    run = planview.find(observed, request.run) if request is not None else None
    generation = request.generation if request is not None else 0
    if run is None:
        run, generation = planview.failed_move(observed), edit.generation
        back = edit == observed.plan.status.edit and edit.active_site == planview.active_site(observed)
        if run is None or not (rolls_back(run) or (back and generation > run.spec.owner.generation)):
            return None
        if run.spec.kind is not RunKind.FAILBACK and not planview.stops_machines(run):
            return None  # the run cleans up after itself
    name = planruns.run_name(observed.plan, generation, RunKind.ABORT)
    if name in planview.known_names(observed) or planview.undone(observed, run):
        return None
    over = run.status.phase is RunPhase.FAILED or run is planview.awaiting(observed)
    return follow(observed, run, RunKind.ABORT, name) if over else None


def _change(observed: ObservedPlan, requests: tuple[SeenRequest, ...]) -> Action | None:
    request = planrequests.accepted(observed, requests, planrequests.CHANGE)
    run, wanted = planview.awaiting(observed), observed.plan.spec.change_recovery_point
    if request is None or wanted is None or run is None or run.metadata.name != request.run:
        return None
    name = planruns.run_name(observed.plan, request.generation, RunKind.CHANGE_POINT)
    if name in planview.known_names(observed):
        return None
    return follow(observed, run, RunKind.CHANGE_POINT, name, point=wanted.point)


def _commit(observed: ObservedPlan) -> Action | None:
    """Record a commit, if the plan names the run that awaits it (or commits by itself). Another name does nothing."""
    run, wanted = planview.awaiting(observed), observed.plan.spec.commit
    if run is None or wanted not in (AUTOMATIC, run.metadata.name):
        return None
    name = following_name(observed, run, RunKind.COMMIT)
    return follow(observed, run, RunKind.COMMIT, name) if name is not None else None


def _reprotect(observed: ObservedPlan) -> Action | None:
    """Replicate the other way, if the plan names the run that is committed (or does so by itself)."""
    run, wanted = planview.committed(observed), observed.plan.spec.reprotect
    if run is None or wanted not in (AUTOMATIC, run.metadata.name):
        return None
    name = following_name(observed, run, RunKind.REPROTECT)
    return follow(observed, run, RunKind.REPROTECT, name) if name is not None else None


def _status(
    observed: ObservedPlan,
    edit: SeenEdit | None,
    requests: tuple[SeenRequest, ...],
    drills: ScheduledDrills,
    now: datetime,
) -> FailoverPlanStatus:
    plan, generation = observed.plan, observed.plan.metadata.generation
    phase = planreport.phase(observed, edit)
    verdict, step = planreport.verdict(observed, edit, requests, phase)
    awaiting = planview.awaiting(observed)
    seen = [Seen(AWAITING_COMMIT, True, "AwaitingCommit", step or "")] if phase is PlanPhase.AWAITING_COMMIT else []
    seen += (*drills.seen, *recoveryplan.seen(plan.status.site_recovery))
    active = planview.under_way(observed) or awaiting
    over = [run for run in observed.runs if run.spec.kind is not RunKind.TEST_FAILOVER and run is not active]
    members = tuple(_plan_member(chosen) for chosen in observed.machines)
    able = sum(1 for member in members if member.failover_ready == "Ready")
    return plan.status.model_copy(
        update={
            "observed_generation": generation,
            "conditions": settle(plan.status.conditions, verdict, seen, generation, now),
            "phase": phase,
            "active_site": planview.active_site(observed).value,
            "active_run": active.metadata.name if active else None,
            "last_run": over[-1].metadata.name if over else plan.status.last_run,
            "edit": edit,
            "requests": requests,
            "members": members,
            "failover_ready": f"{able}/{len(members)}",
            "next_step": step,
            "drift": drift(observed, active),
            "last_drill": drills.last,
            "next_drill": drills.next,
            "drill_schedule": plan.spec.drill.schedule if plan.spec.drill else None,
        }
    )


def _plan_member(chosen: Chosen) -> PlanMember:
    vm = chosen.observed.vm
    verdict = vm.status.failover_ready
    return PlanMember(
        protected_vm=vm.metadata.name,
        group=chosen.group or "",
        phase=vm.status.phase.value if vm.status.phase else None,
        failover_ready=verdict.verdict.value if verdict else None,
    )
