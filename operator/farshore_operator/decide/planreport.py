"""Phase, health and next step of a plan."""

from __future__ import annotations

from collections.abc import Iterator

from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import RunKind, RunPhase
from farshore_operator.api.planstatus import PlanPhase, SeenEdit, SeenRequest
from farshore_operator.api.protectedvm import Place
from farshore_operator.decide import lifecycle, machineruns, planedit, planrequests, planview, twins
from farshore_operator.decide.hooks import awaits_approval
from farshore_operator.decide.planruns import SUFFIXES, run_name
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.decide.references import summary
from farshore_operator.decide.runreport import AWAITING_APPROVAL
from farshore_operator.engines.capabilities import Capability
from farshore_operator.report.conditions import Verdict, ready, stalled, waiting

_PHASES = {
    RunKind.FAILOVER: PlanPhase.FAILING_OVER,
    RunKind.CHANGE_POINT: PlanPhase.FAILING_OVER,
    RunKind.COMMIT: PlanPhase.AWAITING_COMMIT,
    RunKind.ABORT: PlanPhase.ABORTING,
    RunKind.REPROTECT: PlanPhase.REPROTECTING,
    RunKind.FAILBACK: PlanPhase.FAILING_BACK,
}


def started_by(observed: ObservedPlan, edit: SeenEdit | None) -> tuple[str, RunKind] | None:
    """Return name and kind of the run that an edit starts or has started, None if it starts none."""
    if edit is None or not edit.accepted or edit.reason not in planedit.STARTING:
        return None
    kind = RunKind.FAILOVER if edit.reason == planedit.STARTS else RunKind.FAILBACK
    return run_name(observed.plan, edit.generation, kind), kind


def failed(observed: ObservedPlan) -> FailoverRun | None:
    """Return the failed run that a person must deal with, None if there is none."""
    last = planview.newest(observed)
    if last is None or last.status.phase is not RunPhase.FAILED:
        return planview.failed_move(observed)
    if last.spec.kind in SUFFIXES and last.spec.kind in (RunKind.FAILOVER, RunKind.FAILBACK):
        return planview.failed_move(observed)
    return last


def phase(observed: ObservedPlan, edit: SeenEdit | None) -> PlanPhase:
    """Return what the plan is doing."""
    running = planview.under_way(observed)
    if running is not None:
        return _PHASES.get(running.spec.kind, PlanPhase.FAILING_OVER)
    mismatch = observed.plan.spec.active_site is not planview.active_site(observed)
    if failed(observed) is not None and (mismatch or _serious(observed)):
        return PlanPhase.FAILED
    begins = started_by(observed, edit)
    if mismatch and begins is not None and begins[0] not in planview.known_names(observed):
        return _PHASES[begins[1]]
    if mismatch:
        return PlanPhase.MISMATCH
    return _at_rest(observed)


def _serious(observed: ObservedPlan) -> bool:
    """Tell whether a failed run has left something undone although the machines are where they should be."""
    run = failed(observed)
    return run is not None and (run.spec.kind not in machineruns.LEAVING or planview.stops_machines(run))


def _at_rest(observed: ObservedPlan) -> PlanPhase:
    places = {machineruns.life(chosen.observed).standing.place for chosen in observed.machines}
    if places & set(lifecycle.TO_BE_COMMITTED):
        return PlanPhase.AWAITING_COMMIT
    return PlanPhase.IDLE if places <= {Place.SOURCE} else PlanPhase.FAILED_OVER


def verdict(
    observed: ObservedPlan, edit: SeenEdit | None, requests: tuple[SeenRequest, ...], now_in: PlanPhase
) -> tuple[Verdict, str | None]:
    """Return the health and the next step."""
    running = planview.under_way(observed)
    asked = awaits_approval(running, running.status) if running is not None else None
    if running is not None and asked is not None:
        return ready(AWAITING_APPROVAL, f"run {running.metadata.name}, {asked.name}: {asked.message}"), asked.remedy
    if running is not None:
        reason = "Committing" if running.spec.kind is RunKind.COMMIT else now_in.value
        return waiting(reason, f"run {running.metadata.name} is under way"), None
    match now_in:
        case PlanPhase.FAILED:
            return _failed(observed)
        case PlanPhase.FAILING_OVER | PlanPhase.FAILING_BACK:
            return waiting(
                now_in.value, f"a {'failover' if now_in is PlanPhase.FAILING_OVER else 'failback'} begins"
            ), None
        case PlanPhase.MISMATCH:
            text = _mismatch(observed, edit)
            return stalled("DesiredStateMismatch", text), text
    refused = planrequests.refused(requests)
    if now_in is PlanPhase.AWAITING_COMMIT:
        run = planview.awaiting(observed)
        name = run.metadata.name if run is not None else _lost(observed)
        step = f"Check the machines, then set spec.commit to {name}"
        lost = planview.refused(observed, Capability.KEEP_POINTS)
        if lost is not None:
            step = f"{step}. {lost.reason}: {lost.message}"
        return ready("AwaitingCommit", _also(f"run {name} moved the machines; it can still be judged", refused)), step
    return _rest(observed, now_in, refused)


def _lost(observed: ObservedPlan) -> str:
    standings = (machineruns.life(chosen.observed).standing for chosen in observed.machines)
    return next((s.run or "" for s in standings if s.place in lifecycle.TO_BE_COMMITTED), "")


def _failed(observed: ObservedPlan) -> tuple[Verdict, str | None]:
    run = failed(observed)
    if run is None:
        return stalled("RunFailed", "a run failed"), None
    told, name = run.status.condition("Ready"), run.metadata.name
    text = f"run {name} failed: {told.message if told else 'see its steps'}"
    back = planview.active_site(observed).value
    match run.spec.kind:
        case RunKind.FAILOVER | RunKind.FAILBACK:
            undo = "starts the machines again where they ran" if planview.stops_machines(run) else "cleans up"
            step = f"Correct that, set activeSite to {back} (which {undo}), and then start again"
            if observed.plan.spec.active_site is planview.active_site(observed):
                step = f"Set spec.abort to {name}, which starts the machines again where they ran"
        case RunKind.ABORT:
            step = "Correct that, remove spec.abort, and set it again"
        case RunKind.CHANGE_POINT:
            step = "Correct that, remove spec.changeRecoveryPoint, and set it again"
        case _:
            step = "Correct that, and edit the plan again"
    return stalled("RunFailed", text), step


def _mismatch(observed: ObservedPlan, edit: SeenEdit | None) -> str:
    if edit is not None and edit.message:
        return edit.message
    where = planview.active_site(observed).value
    begins = started_by(observed, edit)
    known = f", and run {begins[0]}, which the edit started, is over" if begins is not None else ""
    return f"the machines run at the {where}, activeSite says otherwise{known}: set activeSite to {where}"


def _rest(observed: ObservedPlan, now_in: PlanPhase, refused: str) -> tuple[Verdict, str | None]:
    if observed.problems:
        problem = summary(observed.problems)
        return waiting(problem.reason, problem.message), problem.message
    if now_in is not PlanPhase.FAILED_OVER:
        step = next(filter(None, _twins(observed)), None)
        return ready("Idle", _also("the machines run at the source, as declared", refused)), refused or step
    waits = planview.committed(observed)
    if waits is None:
        text = "the machines run at the recovery site and are replicated from there"
        return ready("ProtectedReverse", _also(text, refused)), refused or None
    step = f"To replicate the machines from the recovery site, set spec.reprotect to {waits.metadata.name}"
    lacks = planview.refused(observed, Capability.REPROTECT)
    if lacks is not None:
        step = lacks.message
        if observed.plan.spec.reprotect in ("Automatic", waits.metadata.name):
            refused = _also(f"spec.reprotect does nothing: {lacks.reason}: {lacks.message}", refused)
    return ready("FailedOver", _also("the machines run at the recovery site, and that is final", refused)), step


def _twins(observed: ObservedPlan) -> Iterator[str | None]:
    planned = planview.names(observed)
    return (twins.next_step(one.observed.vm, one.observed.twins, planned) for one in observed.machines)


def _also(text: str, more: str) -> str:
    return f"{text}. {more}" if more else text
