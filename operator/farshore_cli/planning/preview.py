"""What the operator would do with the future world: its own observers and decisions are called, and nothing is done.

A decision is repeated with the status that it would write, as the operator repeats it, until it makes a run or rests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from farshore_cli.planning.future import Change, FutureWorld
from farshore_cli.planning.runpreview import RunPreview, preview_run
from farshore_operator.api import FailoverPlan, FailoverRun
from farshore_operator.api.failoverrun import MemberResult, RunKind, RunPhase
from farshore_operator.api.resource import Condition, ConditionStatus
from farshore_operator.decide import failoverplan
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.decision import Decision
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.handlers.kinds import KINDS
from farshore_operator.observe.runs import observe_plan

ROUNDS = 4
"""Decisions until a run begins: the verdict is stored first, then the run is made."""
LATER = timedelta(minutes=30)
"""When the revert of a run that has ended is looked at."""
SEEN = ("FailoverPlan", "TestFailover", "ProtectedVM", "RecoveryVault", "Site", "ReplicationPolicy")


@dataclass(frozen=True)
class Revert:
    """What would follow if the change were reverted."""

    when: str
    outcome: str


@dataclass(frozen=True)
class Preview:
    """One object: how it would change, how it would stand, what would begin, and what is in the way."""

    kind: str
    namespace: str
    name: str
    file: str
    change: str
    checked: str
    fields: list[tuple[str, str, str]] = field(default_factory=list)
    health: str = ""
    message: str = ""
    next_step: str = ""
    runs: list[RunPreview] = field(default_factory=list)
    blockers: list[str] = field(default_factory=list)
    reverts: list[Revert] = field(default_factory=list)


def preview(world: FutureWorld, change: Change, now: datetime) -> Preview:
    """Return what one manifest would bring about."""
    manifest = change.manifest
    word = "create" if change.before is None else "change" if change.differs else "none"
    base = Preview(manifest.kind, manifest.namespace, manifest.name, manifest.file, word, change.checked, change.fields)
    if change.refused:
        return replace(base, health="Refused", message=change.refused, blockers=[change.refused])
    if manifest.kind not in SEEN:
        return base
    kind = KINDS[manifest.kind]
    resource: Any = kind.model.of(change.after)
    status, runs = _settle(world, resource, now)
    told = _told(status)
    shown = replace(
        base,
        health=told.health,
        message=told.message,
        next_step=told.next_step,
        runs=[preview_run(world, run, now) for run in runs],
    )
    if isinstance(resource, FailoverPlan):
        return _plan(world, change, shown, status, runs, now)
    if manifest.kind == "TestFailover" and runs:
        text = "deleting the TestFailover cleans up: machines, disks and pins of the drill are removed"
        return replace(shown, reverts=[Revert("at any time", text)])
    return shown


def _settle(world: FutureWorld, resource: Any, now: datetime) -> tuple[Any, list[FailoverRun]]:
    """Decide until a run begins or nothing new is said; return the last status and the runs that would be made."""
    kind = KINDS[resource.definition.kind]
    status = resource.status
    for _ in range(ROUNDS):
        decision: Decision[Any] = kind.decide(kind.observe(world, resource), now)
        status = decision.status if decision.status is not None else status
        runs = _made(decision)
        if runs or resource.status == status:
            return status, runs
        resource = resource.model_copy(update={"status": status})
    return status, []


def _made(decision: Decision[Any]) -> list[FailoverRun]:
    return [
        FailoverRun.of(
            {
                "metadata": {"name": action.name, "namespace": action.namespace, "uid": f"new-{action.name}"},
                "spec": dict(action.spec),
            }
        )
        for action in decision.actions
        if isinstance(action, CreateOwned) and action.kind == "FailoverRun"
    ]


@dataclass(frozen=True)
class _Told:
    """How a status reads."""

    health: str
    message: str
    next_step: str


def _told(status: Any) -> _Told:
    """Return health, message and next step of a status."""
    found = {one.type: one for one in status.conditions}
    true = next((name for name in ("Stalled", "Reconciling", "Ready") if _holds(found.get(name))), "")
    condition = found.get(true)
    message = f"{condition.reason}: {condition.message}" if condition is not None else ""
    return _Told(true, message, getattr(status, "next_step", None) or "")


def _holds(condition: Condition | None) -> bool:
    return condition is not None and condition.status is ConditionStatus.TRUE


def _plan(
    world: FutureWorld, change: Change, shown: Preview, status: Any, runs: list[FailoverRun], now: datetime
) -> Preview:
    """Add what is in the way of a plan's edit, and what its revert would do."""
    plan = FailoverPlan.of(change.after)
    edit = status.edit
    newly = edit is not None and edit != plan.status.edit
    refused = [edit.message] if newly and not edit.accepted and edit.message else []
    asked = {(one.field, one.value) for one in plan.status.requests}
    refused += [
        one.message
        for one in status.requests
        if not one.accepted and one.message and (one.field, one.value) not in asked
    ]
    moving = [run for run in runs if run.spec.kind is not RunKind.TEST_FAILOVER]
    reverts = [found for run in moving for found in _reverts(world, change, status, run, now)]
    blockers = [*refused, *(blocker for run in shown.runs for blocker in run.blockers)]
    return replace(shown, blockers=blockers, reverts=reverts)


def _reverts(world: FutureWorld, change: Change, status: Any, run: FailoverRun, now: datetime) -> list[Revert]:
    """Play the revert of an edit that starts a run: while it is under way, and after it has succeeded."""
    if change.before is None:
        return [Revert("at any time", "deleting the plan touches no machine; a run that has begun goes on")]
    before, plan = FailoverPlan.of(change.before), FailoverPlan.of(change.after)
    found = []
    for when, phase, later in (
        ("while the run is under way", RunPhase.RUNNING, timedelta(minutes=1)),
        ("after the run has succeeded", RunPhase.SUCCEEDED, LATER),
    ):
        begun = _as_if(run, phase, now)
        meta = plan.metadata.model_copy(update={"generation": plan.metadata.generation + 1})
        again = before.model_copy(update={"metadata": meta, "status": status})
        outcome = _outcome(_with(observe_plan(world, again), begun), now + later)
        found.append(Revert(when, outcome))
    return found


def _as_if(run: FailoverRun, phase: RunPhase, now: datetime) -> FailoverRun:
    """Return the run as if it had come so far."""
    results = tuple(MemberResult(protected_vm=member.protected_vm) for member in run.spec.members)
    status = run.status.model_copy(update={"phase": phase, "started_at": now, "members": results})
    meta = run.metadata.model_copy(update={"creation_timestamp": now})
    return run.model_copy(update={"metadata": meta, "status": status})


def _with(observed: ObservedPlan, run: FailoverRun) -> ObservedPlan:
    """Return what would be observed if the run were there."""
    members = {member.protected_vm for member in run.spec.members}
    machines = tuple(
        replace(chosen, observed=replace(chosen.observed, runs=(*chosen.observed.runs, run)))
        if chosen.observed.vm.metadata.name in members
        else chosen
        for chosen in observed.machines
    )
    return replace(observed, machines=machines, runs=(*observed.runs, run))


def _outcome(observed: ObservedPlan, now: datetime) -> str:
    """Say what the plan would do and how it would stand."""
    for _ in range(ROUNDS):
        decision = failoverplan.decide(observed, now)
        runs = _made(decision)
        if runs:
            return f"{' and '.join(run.spec.kind for run in runs)} {runs[0].metadata.name} would start"
        if decision.status is None or decision.status == observed.plan.status:
            break
        observed = replace(observed, plan=observed.plan.model_copy(update={"status": decision.status}))
    status = observed.plan.status
    told = _told(status)
    return f"nothing is moved; the plan is then {told.health}: {told.message}"
