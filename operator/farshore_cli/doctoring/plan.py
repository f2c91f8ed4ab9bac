"""The checks of a FailoverPlan, from here: its own, those of each site once, and those of each machine.

The primary site is not asked: what is known of it is what the operator knows. So it works when that site is down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, cast

from farshore_cli.doctoring import planhooks, planlines, planmembers
from farshore_cli.doctoring.cluster import Namespace, current
from farshore_engine.checklist import Checklist
from farshore_engine.contract.faults import StopFault, WaitFault

if TYPE_CHECKING:
    from farshore_engine.contract.replication import Check
    from farshore_operator.api import FailoverPlan
    from farshore_operator.decide.planview import ObservedPlan
    from farshore_operator.kube.client import Json


def plan_checks(name: str, namespace: str) -> tuple[Check, ...]:
    """Read a FailoverPlan and all that it means from the cluster, and check it; raises Fault.

    Args:
        name: of the FailoverPlan.
        namespace: where it is; empty for the current context's.
    """
    from farshore_cli.status import utc_now
    from farshore_operator.kube.resources import WATCHED

    where = current(namespace)
    objects: list[Json] = []
    for resource in WATCHED:
        found = where.client.list_all(resource, where.name)
        objects += [{"apiVersion": resource.api_version, "kind": resource.kind, **body} for body in found]
    return checks_of(name, where, objects, utc_now)


def checks_of(name: str, where: Namespace, objects: Iterable[Json], now: Callable[[], datetime]) -> tuple[Check, ...]:
    """Check a plan among the objects of its namespace; raises StopFault where there is no such plan."""
    from farshore_cli.planning.cluster import Cluster
    from farshore_cli.planning.future import FutureWorld
    from farshore_cli.planning.manifests import Tree
    from farshore_operator.api import FailoverPlan
    from farshore_operator.observe.runs import observe_plan

    world = FutureWorld(objects, Tree(()), cast(Cluster, _Secrets(where)), now)
    plan = world.find(FailoverPlan, where.name, name)
    if plan is None:
        raise StopFault(
            f"there is no FailoverPlan {name} in namespace {where.name}", "`kubectl get failoverplans` lists them"
        )
    observed, found = observe_plan(world, plan), Checklist()
    found.need("Members", lambda: _members(observed))
    found.ask("Standing", lambda: _standing(plan))
    found.ask("Source", lambda: _source(observed))
    planhooks.check(found, plan, where)
    machines, troubles = planmembers.resolve(observed, where)
    planlines.check_conflicts(found, machines)
    sites = planlines.check_sites(found, machines, troubles)
    planlines.check_room(found, machines)
    for machine in machines:
        planlines.check_machine(found, machine, sites, now())
    return tuple(found.lines)


class _Secrets:
    """What of a cluster a `FutureWorld` asks."""

    def __init__(self, where: Namespace) -> None:
        self._where = where

    def has_secret(self, namespace: str, name: str) -> bool | None:
        """Tell whether a Secret exists; None where that may not be known."""
        from farshore_operator.kube.faults import Forbidden
        from farshore_operator.kube.resources import SECRET

        try:
            return self._where.client.get(SECRET, namespace, name) is not None
        except Forbidden:
            return None


def _members(observed: ObservedPlan) -> str:
    names = [one.observed.vm.metadata.name for one in observed.machines]
    empty = [
        group.name for group in observed.plan.spec.groups if group.name not in {m.group for m in observed.machines}
    ]
    wrong = [problem.message for problem in observed.problems]
    if empty and not wrong:
        wrong.append(f"no machine is in group {', '.join(empty)}: its selectors match nothing")
    if wrong:
        raise StopFault("; ".join(wrong), "Create the machines, or correct spec.groups", reason="MembersMissing")
    return f"{len(names)} machines: {', '.join(names)}"


def _standing(plan: FailoverPlan) -> str:
    """Say how the plan stands; what needs a person before anything starts is in the way."""
    from farshore_operator.api.planstatus import PlanPhase

    status = plan.status
    if status.phase in (PlanPhase.MISMATCH, PlanPhase.FAILED):
        edit = status.edit.message if status.edit is not None and status.edit.message else ""
        raise StopFault(
            f"the plan is {status.phase}: {edit or 'its last run left something to be done'}",
            status.next_step or "`kubectl describe failoverplan` says what",
            reason="PlanStalled",
        )
    if status.active_run is not None:
        raise WaitFault(
            f"run {status.active_run} is under way, or awaits its commit ({status.phase})",
            status.next_step or "Wait for its end",
            reason="RunUnderWay",
        )
    return f"the plan is {status.phase or 'not looked at by the operator yet'}; the machines run at the " + (
        status.active_site or "source"
    )


def _source(observed: ObservedPlan) -> str:
    """Say whether the source takes part, by what the operator hears; its site is not asked."""
    from farshore_operator.api.failoverplan import Mode, ShutdownSource

    spec, silent = observed.plan.spec, []
    for one in observed.machines:
        assigned = one.observed.vm.status.assignment
        server = one.observed.server(assigned.process_server) if assigned is not None else None
        if server is None or not server.connected:
            silent.append(one.observed.vm.metadata.name)
    if not silent:
        return "the process servers of the source are heard"
    text = f"the process servers that replicate {', '.join(silent)} are not heard"
    if spec.mode is Mode.PLANNED or spec.shutdown_source is ShutdownSource.REQUIRED:
        raise StopFault(
            f"{text}, and the plan wants the source to take part",
            "If the source is lost: set mode: unplanned and shutdownSource: BestEffort or Never",
            reason="SourceSilent",
        )
    raise WaitFault(f"{text}: what changed since the newest point would be lost", "", reason="SourceSilent")
