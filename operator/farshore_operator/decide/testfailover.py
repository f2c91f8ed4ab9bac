"""Decides on a TestFailover: one object, one drill. It waits until it can begin, and never begins twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from farshore_operator.api import FailoverPlan, FailoverRun, TestFailover
from farshore_operator.api.failoverrun import MemberResult, RequestedBy, RunKind, RunPhase, StepPhase
from farshore_operator.api.testfailover import DrilledMachine, TestFailoverPhase, TestFailoverStatus
from farshore_operator.decide import readiness
from farshore_operator.decide.actions import CreateOwned, SetFinalizer
from farshore_operator.decide.decision import Action, Decision, Outcome
from farshore_operator.decide.hooks import awaits_approval
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import FORCE_DELETE_ANNOTATION, bounded
from farshore_operator.decide.origin import signed
from farshore_operator.decide.references import Problem, summary
from farshore_operator.decide.runreport import AWAITING_APPROVAL
from farshore_operator.decide.runspec import Choices, Chosen, drill_groups_of, freeze
from farshore_operator.report.conditions import Health, Seen, Verdict, ready, settle, stalled, waiting
from farshore_operator.report.happening import EventType, Happening

FINALIZER = "farshore.dev/protection"
SUCCEEDED = "DrillSucceeded"
CLEAN = "CleanedUp"
RETRY = timedelta(seconds=8)
TOLD = 5
"""Machines whose clean-up is told in full."""

_PHASES = {
    None: TestFailoverPhase.RUNNING,
    RunPhase.PENDING: TestFailoverPhase.RUNNING,
    RunPhase.RUNNING: TestFailoverPhase.RUNNING,
    RunPhase.SUCCEEDED: TestFailoverPhase.SUCCEEDED,
    RunPhase.FAILED: TestFailoverPhase.FAILED,
    RunPhase.ABORTED: TestFailoverPhase.FAILED,
    RunPhase.CLEANING_UP: TestFailoverPhase.CLEANING_UP,
    RunPhase.CLEANED_UP: TestFailoverPhase.CLEANED_UP,
}


@dataclass(frozen=True)
class ObservedDrill:
    """A drill, the machines that it means, and its run.

    Attributes:
        machines: in the plan's order; empty if the plan or machine does not exist.
        problems: references that do not resolve.
        run: the run that belongs to this very object, None before there is one (or when its record was deleted).
        plan: the plan that is drilled, None for a single machine.
        requests: who wrote each field that can ask for a run.
    """

    drill: TestFailover
    machines: tuple[Chosen, ...]
    problems: tuple[Problem, ...]
    run: FailoverRun | None
    plan: FailoverPlan | None = None
    requests: Mapping[str, RequestedBy] = field(default_factory=dict)


def run_name(drill: TestFailover) -> str:
    """Return the name of the drill's run: unique for this object, also when another one had its name before."""
    return bounded(f"{drill.metadata.name}-{drill.metadata.uid[:5]}", 200)


def decide(observed: ObservedDrill, now: datetime) -> Decision[TestFailoverStatus]:
    """Decide on a drill."""
    if observed.drill.metadata.deletion_timestamp:
        return _leave(observed, now)
    if observed.run is not None:
        return Decision(_mirrored(observed, observed.run, now), (), _until_clean_up(observed, now))
    if observed.drill.status.run:
        return Decision(_orphaned(observed, now))
    return _begin(observed, now)


def fold(status: TestFailoverStatus, outcome: Outcome) -> TestFailoverStatus:
    """Take over nothing."""
    return status


def clean_up_due(drill: TestFailover, run: FailoverRun, now: datetime) -> bool:
    """Tell whether what a drill made is to be removed now."""
    if drill.metadata.deletion_timestamp is not None:
        return True
    due = clean_up_at(drill, run)
    return due is not None and now >= due


def clean_up_at(drill: TestFailover, run: FailoverRun | None) -> datetime | None:
    """Return when a drill is cleaned up by itself, None if only deletion does that."""
    if run is None or run.status.finished_at is None or drill.spec.cleanup_after is None:
        return None
    return run.status.finished_at + drill.spec.cleanup_after


def _begin(observed: ObservedDrill, now: datetime) -> Decision[TestFailoverStatus]:
    """Start as soon as nothing makes the drill impossible; what is frozen then stays."""
    drill = observed.drill
    actions: list[Action] = []
    if FINALIZER not in drill.metadata.finalizers:
        actions.append(SetFinalizer(id_of(drill), present=True))
    verdict = _hindrance(observed, now)
    if verdict is not None:
        again = RETRY if verdict.health is Health.RECONCILING else None
        return Decision(_status(observed, verdict, TestFailoverPhase.PENDING, now), tuple(actions), again)
    name = run_name(drill)
    plan = observed.plan
    choices = Choices(
        RunKind.TEST_FAILOVER,
        drill.spec.recovery_point,
        network=drill.spec.network,
        probes=drill.spec.probes or (plan.spec.probes if plan else ()),
        groups=drill_groups_of(plan) if plan else (),
    )
    spec = freeze(drill, name, choices, observed.machines)
    actions += signed([CreateOwned("FailoverRun", drill.metadata.namespace, name, spec.dump())], observed.requests)
    status = _status(observed, waiting("Running", f"run {name} begins"), TestFailoverPhase.RUNNING, now)
    # The run's name is written only after the run exists: until then this decision is made again.
    return Decision(status.model_copy(update={"run": name, "started_at": now.replace(microsecond=0)}), tuple(actions))


def _hindrance(observed: ObservedDrill, now: datetime) -> Verdict | None:
    if observed.problems:
        problem = summary(observed.problems)
        return waiting(problem.reason, problem.message)
    if not observed.machines:
        return waiting("NoMachine", "the plan means no machine: add members to its groups")
    for chosen in observed.machines:
        hard = [blocker for blocker in readiness.blockers(chosen.observed, now) if blocker.hard and blocker.drills]
        if hard:
            name = chosen.observed.vm.metadata.name
            return waiting(hard[0].reason, f"{name}: {hard[0].message}. The drill begins as soon as it can")
    return None


def _mirrored(observed: ObservedDrill, run: FailoverRun, now: datetime) -> TestFailoverStatus:
    phase = _PHASES[run.status.phase]
    verdict = _verdict(run, phase)
    status = _status(observed, verdict, phase, now)
    return status.model_copy(
        update={
            "run": run.metadata.name,
            "machines": tuple(_machine(result) for result in run.status.members),
            "started_at": run.status.started_at,
            "finished_at": run.status.finished_at,
            "clean_up_at": clean_up_at(observed.drill, run),
            "rpo_seconds": run.status.rpo_seconds,
            "rto_seconds": run.status.rto_seconds,
            "next_step": _next_step(observed.drill, run, phase),
        }
    )


def _machine(result: MemberResult) -> DrilledMachine:
    point = result.point.name if result.point else None
    return DrilledMachine(
        protected_vm=result.protected_vm,
        point=point,
        address=result.address,
        port=result.port,
        probes=result.probes,
    )


def _status(observed: ObservedDrill, verdict: Verdict, phase: TestFailoverPhase, now: datetime) -> TestFailoverStatus:
    drill = observed.drill
    generation = drill.metadata.generation
    return TestFailoverStatus(
        observed_generation=generation,
        conditions=settle(drill.status.conditions, verdict, _own(observed.run), generation, now),
        phase=phase,
        next_step=verdict.message if verdict.health is not Health.READY and observed.run is None else None,
    )


def _own(run: FailoverRun | None) -> tuple[Seen, ...]:
    if run is None:
        return ()
    seen: list[Seen] = []
    result = run.status.condition("Succeeded")
    if result is not None:
        seen.append(Seen(SUCCEEDED, result.status.value == "True", result.reason, result.message))
    if run.status.phase is RunPhase.CLEANED_UP:
        seen.append(Seen(CLEAN, True, "NothingLeft", _nothing_left(run)))
    return tuple(seen)


def _nothing_left(run: FailoverRun) -> str:
    """Say what was removed, and what was looked for afterwards; of many machines the first ones."""
    told = []
    for member in run.status.members[:TOLD]:
        if member.looked_for:
            removed = ", ".join(member.removed) or "nothing more"
            told.append(
                f"{member.protected_vm}: removed {removed}; looked for and not found: {', '.join(member.looked_for)}"
            )
    more = len(run.status.members) - TOLD
    rest = f". And {more} more machines: see FailoverRun {run.metadata.name}" if more > 0 else ""
    return f"nothing is left of the drill{': ' if told else ''}{'. '.join(told)}{rest}"


def _verdict(run: FailoverRun, phase: TestFailoverPhase) -> Verdict:
    told = run.status.condition("Ready")
    message = told.message if told else ""
    match phase:
        case TestFailoverPhase.SUCCEEDED:
            return ready("Succeeded", "every machine answered; they run until clean-up")
        case TestFailoverPhase.CLEANED_UP:
            return ready("CleanedUp", _nothing_left(run))
        case TestFailoverPhase.FAILED:
            return stalled("DrillFailed", message or "a step failed")
        case TestFailoverPhase.CLEANING_UP:
            broken = told is not None and told.reason == "CleanUpFailed"
            return stalled("CleanUpFailed", message) if broken else waiting("CleaningUp", message or "it is cleaned up")
        case _ if (asked := awaits_approval(run, run.status)) is not None:
            return ready(AWAITING_APPROVAL, f"{asked.name}: {asked.message}")
        case _:
            working = [s for s in run.status.steps if s.phase is StepPhase.RUNNING]
            return waiting("Running", "; ".join(f"{s.name} of {s.member}" for s in working) or "the drill begins")


def _next_step(drill: TestFailover, run: FailoverRun, phase: TestFailoverPhase) -> str | None:
    name = drill.metadata.name
    if phase is TestFailoverPhase.SUCCEEDED:
        at = clean_up_at(drill, run)
        own = f", or wait: it is cleaned up at {at:%Y-%m-%dT%H:%M:%SZ}" if at else ""
        return f"Look at the machines, then delete TestFailover {name} to clean up{own}"
    if phase is TestFailoverPhase.FAILED:
        return f"Look at FailoverRun {run.metadata.name}, then delete TestFailover {name} to clean up, and drill again"
    return run.status.next_step


def _orphaned(observed: ObservedDrill, now: datetime) -> TestFailoverStatus:
    """Keep what was known of a drill whose record was deleted: it is never begun again."""
    drill = observed.drill
    old = drill.status
    generation = drill.metadata.generation
    if old.phase is TestFailoverPhase.CLEANED_UP:
        verdict = ready("CleanedUp", "nothing is left of the drill")
    else:
        text = f"FailoverRun {old.run} was deleted; the drill does not begin again, and what it made may be left behind"
        verdict = stalled("RunDeleted", text)
    own = tuple(
        Seen(c.type, c.status.value == "True", c.reason, c.message)
        for c in old.conditions
        if c.type in (SUCCEEDED, CLEAN)
    )
    conditions = settle(old.conditions, verdict, own, generation, now)
    return old.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _leave(observed: ObservedDrill, now: datetime) -> Decision[TestFailoverStatus]:
    """Let the object go when nothing is left of its drill."""
    drill, run = observed.drill, observed.run
    if FINALIZER not in drill.metadata.finalizers:
        return Decision(None)
    release = SetFinalizer(id_of(drill), present=False)
    if run is None or run.status.phase is RunPhase.CLEANED_UP:
        return Decision(None, (release,))
    if FORCE_DELETE_ANNOTATION in drill.metadata.annotations:
        text = f"deletion was forced before clean-up: machines, disks and pins of run {run.metadata.name} may be left"
        return Decision(None, (release,), None, (Happening(EventType.WARNING, "DrillLeftBehind", text, "CleanUp"),))
    status = _mirrored(observed, run, now)
    ends = f"annotation {FORCE_DELETE_ANNOTATION} ends the wait at once, and leaves behind what the drill made"
    why = status.condition("Ready")
    step = f"{why.message if why and why.message else 'The clean-up is under way'}. If it cannot end: {ends}"
    return Decision(status.model_copy(update={"next_step": step}), (), RETRY)


def _until_clean_up(observed: ObservedDrill, now: datetime) -> timedelta | None:
    due = clean_up_at(observed.drill, observed.run)
    return None if due is None else max(timedelta(seconds=1), due - now)
