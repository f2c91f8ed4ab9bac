"""Decides on a FailoverPlan: an edit of `activeSite` starts a failover if it could when it was first seen, or never.

So a revert cannot promote a drill, fire a finished run again, change one that is under way, or move machines by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from farshore_operator.api import FailoverPlan, FailoverRun
from farshore_operator.api.failoverplan import ActiveSite
from farshore_operator.api.failoverrun import FailoverRunSpec, Owner, RequestedBy, RunKind, RunPhase
from farshore_operator.api.planstatus import FailoverPlanStatus, PlanMember, PlanPhase, SeenEdit
from farshore_operator.decide import machineruns, planedit
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.decision import Action, Decision, Outcome
from farshore_operator.decide.naming import bounded
from farshore_operator.decide.origin import signed
from farshore_operator.decide.references import Problem, summary
from farshore_operator.decide.runspec import Choices, Chosen, freeze, groups_of
from farshore_operator.report.conditions import Seen, Verdict, ready, settle, stalled, waiting

AWAITING_COMMIT = "AwaitingCommit"
RETRY = timedelta(seconds=8)
AUTOMATIC = "Automatic"


@dataclass(frozen=True)
class ObservedPlan:
    """A plan, its machines in order, references that do not resolve, and its runs, oldest first.

    `requests` says who wrote each field that can ask for a run.
    """

    plan: FailoverPlan
    machines: tuple[Chosen, ...]
    problems: tuple[Problem, ...]
    runs: tuple[FailoverRun, ...]
    requests: Mapping[str, RequestedBy] = field(default_factory=dict)


def run_name(plan: FailoverPlan, generation: int) -> str:
    """Return the name of the failover that an edit starts, by the generation in which it was first seen."""
    return bounded(f"{plan.metadata.name}-{plan.metadata.uid[:5]}-{generation}-failover", 200)


def decide(observed: ObservedPlan, now: datetime) -> Decision[FailoverPlanStatus]:
    """Decide on a plan. Deleting one touches no machine, so there is nothing to be done then."""
    plan = observed.plan
    if plan.metadata.deletion_timestamp:
        return Decision(None)
    where = active_site(observed)
    newest = _newest(observed, RunKind.FAILOVER)
    edit = planedit.judge(observed.plan, observed.machines, observed.problems, newest, where, now)
    actions: list[Action] = []
    if _starts(observed, edit, where, newest):
        actions.append(_failover(observed, run_name(plan, edit.generation if edit else 0)))
    commit = _commit(observed, newest, where)
    if commit is not None:
        actions.append(commit)
    status = _status(observed, edit, where, newest, now)
    return Decision(status, signed(actions, observed.requests), RETRY if observed.problems else None)


def fold(status: FailoverPlanStatus, outcome: Outcome) -> FailoverPlanStatus:
    """Take over nothing."""
    return status


def active_site(observed: ObservedPlan) -> ActiveSite:
    """Return where the machines run: at the recovery site as soon as one of them does."""
    moved = [machineruns.recovered(chosen.observed) is not None for chosen in observed.machines]
    return ActiveSite.RECOVERY if any(moved) else ActiveSite.SOURCE


def under_way(run: FailoverRun | None) -> bool:
    """Tell whether a run is neither over nor missing."""
    return run is not None and run.status.phase in (None, RunPhase.PENDING, RunPhase.RUNNING)


def _starts(observed: ObservedPlan, edit: SeenEdit | None, where: ActiveSite, newest: FailoverRun | None) -> bool:
    plan = observed.plan
    wanted = plan.spec.active_site is ActiveSite.RECOVERY and where is ActiveSite.SOURCE
    if not wanted or edit is None or not edit.accepted or edit.reason != planedit.STARTS:
        return False
    # The verdict must be in the status before the run begins, so that a killed operator never judges twice.
    if plan.status.edit != edit or under_way(newest):
        return False
    name = run_name(plan, edit.generation)
    # A run whose record was deleted is remembered by the status, and not repeated.
    known = {plan.status.active_run, plan.status.last_run, *(run.metadata.name for run in observed.runs)}
    return name not in known


def _failover(observed: ObservedPlan, name: str) -> CreateOwned:
    plan = observed.plan
    choices = Choices(
        RunKind.FAILOVER,
        plan.spec.recovery_point,
        shutdown_source=plan.spec.shutdown_source,
        network=plan.spec.network,
        probes=plan.spec.probes,
        groups=groups_of(plan),
    )
    spec = freeze(plan, name, choices, observed.machines)
    return CreateOwned("FailoverRun", plan.metadata.namespace, name, spec.dump())


def _commit(observed: ObservedPlan, newest: FailoverRun | None, where: ActiveSite) -> CreateOwned | None:
    """Record a commit, if the plan names the run that awaits it (or commits by itself). Another name does nothing."""
    plan = observed.plan
    if newest is None or newest.status.phase is not RunPhase.SUCCEEDED or where is not ActiveSite.RECOVERY:
        return None
    if plan.spec.commit not in (AUTOMATIC, newest.metadata.name) or _committed(observed, newest):
        return None
    meta = plan.metadata
    spec = FailoverRunSpec(
        kind=RunKind.COMMIT,
        owner=Owner(kind="FailoverPlan", name=meta.name, uid=meta.uid, generation=meta.generation),
        inputs_hash=newest.spec.inputs_hash,
        recovery_point=newest.spec.recovery_point,
        members=newest.spec.members,
        previous_run=newest.metadata.name,
    )
    return CreateOwned("FailoverRun", meta.namespace, bounded(f"{newest.metadata.name}-commit"), spec.dump())


def _committed(observed: ObservedPlan, run: FailoverRun) -> bool:
    return any(one.spec.kind is RunKind.COMMIT and one.spec.previous_run == run.metadata.name for one in observed.runs)


def _newest(observed: ObservedPlan, kind: RunKind) -> FailoverRun | None:
    return next((run for run in reversed(observed.runs) if run.spec.kind is kind), None)


def _status(
    observed: ObservedPlan, edit: SeenEdit | None, where: ActiveSite, newest: FailoverRun | None, now: datetime
) -> FailoverPlanStatus:
    plan, generation = observed.plan, observed.plan.metadata.generation
    phase = _phase(observed, edit, where, newest)
    verdict, step = _verdict(observed, edit, phase, newest)
    awaiting = phase is PlanPhase.AWAITING_COMMIT
    seen = [Seen(AWAITING_COMMIT, True, "AwaitingCommit", step or "")] if awaiting else []
    active = newest if newest is not None and (under_way(newest) or awaiting) else None
    over = [run for run in observed.runs if run.spec.kind is RunKind.FAILOVER and run is not active]
    members = tuple(_plan_member(chosen) for chosen in observed.machines)
    able = sum(1 for member in members if member.failover_ready == "Ready")
    return FailoverPlanStatus(
        observed_generation=generation,
        conditions=settle(plan.status.conditions, verdict, seen, generation, now),
        phase=phase,
        active_site=where.value,
        active_run=active.metadata.name if active else None,
        last_run=over[-1].metadata.name if over else plan.status.last_run,
        edit=edit,
        members=members,
        failover_ready=f"{able}/{len(members)}",
        next_step=step,
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


def _phase(observed: ObservedPlan, edit: SeenEdit | None, where: ActiveSite, newest: FailoverRun | None) -> PlanPhase:
    if under_way(newest):
        return PlanPhase.FAILING_OVER
    mismatch = observed.plan.spec.active_site is not where
    if mismatch and edit is not None and edit.accepted and edit.reason == planedit.STARTS:
        ours = newest is not None and newest.spec.owner.generation >= edit.generation
        return PlanPhase.FAILED if ours else PlanPhase.FAILING_OVER
    if mismatch:
        return PlanPhase.MISMATCH
    if where is ActiveSite.SOURCE:
        return PlanPhase.IDLE
    if newest is not None and newest.status.phase is RunPhase.SUCCEEDED and not _committed(observed, newest):
        return PlanPhase.AWAITING_COMMIT
    return PlanPhase.FAILED_OVER


def _verdict(
    observed: ObservedPlan, edit: SeenEdit | None, phase: PlanPhase, newest: FailoverRun | None
) -> tuple[Verdict, str | None]:
    """Return the health and the next step."""
    plan = observed.plan
    run = newest.metadata.name if newest else ""
    match phase:
        case PlanPhase.FAILING_OVER:
            return waiting("FailingOver", f"run {run} is under way" if run else "a failover is about to begin"), None
        case PlanPhase.FAILED:
            told = newest.status.condition("Ready") if newest else None
            step = "Correct that, set activeSite to source (which cleans up), and then to recovery again"
            text = f"run {run} failed: {told.message if told else 'see its steps'}"
            return stalled("RunFailed", text), step
        case PlanPhase.MISMATCH:
            text = edit.message if edit is not None and edit.message else "activeSite says otherwise"
            return stalled("DesiredStateMismatch", text), text
        case PlanPhase.AWAITING_COMMIT:
            step = f"Check the machines, then set spec.commit to {run}"
            return ready("AwaitingCommit", f"run {run} moved the machines; it can still be judged"), step
        case _:
            return _at_rest(plan, observed, phase)


def _at_rest(plan: FailoverPlan, observed: ObservedPlan, phase: PlanPhase) -> tuple[Verdict, str | None]:
    if observed.problems:
        problem = summary(observed.problems)
        return waiting(problem.reason, problem.message), problem.message
    lacking = planedit.not_in_this_release(plan)
    if lacking:
        return stalled("NotInThisRelease", lacking), lacking
    if phase is PlanPhase.FAILED_OVER:
        return ready("FailedOver", "the machines run at the recovery site, and that is final"), None
    return ready("Idle", "the machines run at the source, as declared"), None
