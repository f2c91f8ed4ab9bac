"""Makes the runs that a plan asks for. Their inputs are frozen; their names say what asked, so that none is made twice.

A run that follows another one (commit, abort, change of point, reprotect) takes over its machines.
"""

from __future__ import annotations

from collections.abc import Sequence

from farshore_operator.api import FailoverPlan, FailoverRun
from farshore_operator.api.failoverrun import FailoverRunSpec, Owner, RunKind, RunMember
from farshore_operator.api.replicationpolicy import OnCommit
from farshore_operator.decide import failback, lifecycle, machineruns, planview
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.naming import bounded
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.decide.runspec import Choices, Chosen, freeze, groups_of, hashed, next_sequence
from farshore_operator.engines.capabilities import Capability

SUFFIXES = {
    RunKind.FAILOVER: "failover",
    RunKind.FAILBACK: "failback",
    RunKind.ABORT: "abort",
    RunKind.CHANGE_POINT: "point",
}


def run_name(plan: FailoverPlan, generation: int, kind: RunKind = RunKind.FAILOVER) -> str:
    """Return the name of the run that an edit starts, by the generation in which the edit was first seen."""
    return bounded(f"{plan.metadata.name}-{plan.metadata.uid[:5]}-{generation}-{SUFFIXES[kind]}", 200)


def following_name(observed: ObservedPlan, previous: FailoverRun, kind: RunKind) -> str | None:
    """Return the name of the commit or reprotect of a run; None while one is there that has not failed, and where an
    engine has no reprotect.

    After one that failed, an edit of the plan makes another one.
    """
    if kind is RunKind.REPROTECT and planview.refused(observed, Capability.REPROTECT) is not None:
        return None
    name = bounded(f"{previous.metadata.name}-{kind.value.lower()}")
    made = [run for run in observed.runs if run.spec.kind is kind and run.spec.previous_run == previous.metadata.name]
    if not made:
        return name
    last, generation = made[-1], observed.plan.metadata.generation
    if last.status.phase != "Failed" or last.spec.owner.generation >= generation:
        return None
    return bounded(f"{previous.metadata.name}-{kind.value.lower()}-{generation}")


def failover(observed: ObservedPlan, name: str) -> CreateOwned:
    """Move all machines of the plan to the recovery site."""
    plan = observed.plan
    choices = Choices(
        RunKind.FAILOVER,
        plan.spec.recovery_point,
        shutdown_source=plan.spec.shutdown_source,
        network=plan.spec.network,
        probes=plan.spec.probes,
        mode=plan.spec.mode,
        groups=groups_of(plan),
    )
    return _create(plan, name, freeze(plan, name, choices, observed.machines))


def fail_back(observed: ObservedPlan, name: str) -> CreateOwned:
    """Move the machines that run at the recovery site back to where they came from."""
    plan = observed.plan
    away = [chosen for chosen in observed.machines if machineruns.life(chosen.observed).at_recovery]
    spec = FailoverRunSpec(
        kind=RunKind.FAILBACK,
        owner=owner(plan),
        inputs_hash="",
        recovery_point=plan.spec.recovery_point,
        mode=plan.spec.mode,
        shutdown_source=plan.spec.shutdown_source,
        members=tuple(failback.member(chosen) for chosen in away),
        probes=plan.spec.probes,
        groups=groups_of(plan),
        sequence=next_sequence(observed.machines),
    )
    return _create(plan, name, hashed(spec))


def follow(
    observed: ObservedPlan, previous: FailoverRun, kind: RunKind, name: str, *, point: str | None = None
) -> CreateOwned:
    """Make the run that commits, undoes, reverses or replaces another one.

    Args:
        observed: the plan.
        previous: the run that is meant.
        kind: COMMIT, ABORT, REPROTECT or CHANGE_POINT.
        name: of the run.
        point: what CHANGE_POINT recovers; None for what `previous` did.
    """
    plan, old = observed.plan, previous.spec
    moved = RunKind.FAILBACK if RunKind.FAILBACK in (old.kind, old.undoes) else RunKind.FAILOVER
    spec = FailoverRunSpec(
        kind=kind,
        owner=owner(plan),
        inputs_hash="",
        recovery_point=point or old.recovery_point,
        mode=old.mode,
        members=_members(observed.machines, previous, kind),
        probes=old.probes,
        groups=tuple(group.model_copy(update={"before": (), "after": ()}) for group in old.groups),
        previous_run=previous.metadata.name,
        undoes=None if kind is RunKind.REPROTECT else moved,
        sequence=max(next_sequence(observed.machines), old.sequence + 1),
    )
    return _create(plan, name, hashed(spec))


def owner(plan: FailoverPlan) -> Owner:
    """Return the plan as the owner of a run."""
    meta = plan.metadata
    return Owner(kind="FailoverPlan", name=meta.name, uid=meta.uid, generation=meta.generation)


def _create(plan: FailoverPlan, name: str, spec: FailoverRunSpec) -> CreateOwned:
    return CreateOwned("FailoverRun", plan.metadata.namespace, name, spec.dump())


def _members(machines: Sequence[Chosen], previous: FailoverRun, kind: RunKind) -> tuple[RunMember, ...]:
    by_name = {chosen.observed.vm.metadata.name: chosen.observed for chosen in machines}
    return tuple(_member(by_name.get(member.protected_vm), previous, member, kind) for member in previous.spec.members)


def _member(observed: ObservedVM | None, previous: FailoverRun, member: RunMember, kind: RunKind) -> RunMember:
    """Return a machine's part in the run that follows; what the earlier run did to it is frozen with it."""
    result = lifecycle.result_of(previous, member.protected_vm)
    update: dict[str, object] = {
        "stopped": lifecycle.was_stopped(previous, member)
        or (kind is RunKind.ABORT and lifecycle.may_be_stopped(previous, member)),
        "arrived": kind is RunKind.ABORT and lifecycle.has_arrived(previous, member),
        "point": result.point.name if result.point is not None else member.point,
    }
    if observed is not None and kind is RunKind.COMMIT and observed.policy is not None:
        update["delete_points"] = True if observed.policy.spec.retention.on_commit is OnCommit.DELETE else None
    if observed is not None:
        update["epoch"] = max(member.epoch, machineruns.fenced(observed))
        update["source_process_server"] = _server(observed, member.source_site, member.source_process_server or "")
        update["process_server"] = _server(observed, member.target_site, member.process_server) or member.process_server
    return member.model_copy(update=update)


def _server(observed: ObservedVM, site: str, before: str) -> str | None:
    """Return the process server of a site that carries on: the same as before unless it is gone."""
    if observed.server(before) is not None:
        return before
    able = [server for server in observed.servers if server.site == site and server.registered and server.connected]
    chosen = min(able, key=lambda server: (server.load, server.name), default=None)
    return chosen.name if chosen is not None else before or None
