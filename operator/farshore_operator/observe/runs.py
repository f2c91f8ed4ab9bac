"""What decisions on runs, drills and plans are made from."""

from __future__ import annotations

from dataclasses import replace

from farshore_operator.api import (
    FailoverPlan,
    FailoverRun,
    ProcessServer,
    ProtectedVM,
    RecoveryVault,
    Task,
    TestFailover,
)
from farshore_operator.api.failoverplan import ActiveSite, Member
from farshore_operator.api.failoverrun import RunKind, RunPhase
from farshore_operator.decide.hooks import rolls_back
from farshore_operator.decide.machineruns import ordered
from farshore_operator.decide.planrequests import ABORT
from farshore_operator.decide.planview import ObservedPlan, stops_machines
from farshore_operator.decide.references import ObjectUse, Problem, problems
from farshore_operator.decide.runjournal import ObservedRun
from farshore_operator.decide.runspec import AS_PLANNED, Chosen
from farshore_operator.decide.testfailover import ObservedDrill, clean_up_at, clean_up_due, run_name
from farshore_operator.engines.capabilities import FACTS, Capability
from farshore_operator.engines.siterecovery import naming
from farshore_operator.kube.client import Json
from farshore_operator.observe import history, jobs, protectedvm
from farshore_operator.observe.origin import requests
from farshore_operator.observe.world import World


def observe_run(world: World, run: FailoverRun) -> ObservedRun:
    """Collect the tasks and machines of a run, and whether its owner wants it cleaned up."""
    namespace, name = run.metadata.namespace, run.metadata.name
    tasks = world.all(Task, namespace, lambda body: body["spec"].get("run") == name)
    machines = {}
    for member in run.spec.members:
        vm = world.find(ProtectedVM, namespace, member.protected_vm)
        if vm is not None:
            machines[member.protected_vm] = protectedvm.observe(world, vm)
    now = world.now()
    connected = frozenset(
        server.metadata.name
        for server in world.all(ProcessServer, namespace)
        if world.heartbeats.connected(namespace, server.metadata.name, now)
    )
    drill = _drill(world, run)
    return ObservedRun(
        run=run,
        tasks={task.metadata.name: task for task in tasks},
        machines=machines,
        connected=connected | _drivers(world, namespace),
        clean_up=_clean_up(world, run, drill),
        clean_up_at=clean_up_at(drill, run) if drill else None,
        notes=drill.spec.notes if drill else None,
        history=history.of_run(world, run),
        called_off=_called_off(world, run),
        approvals=jobs.approvals(world, run),
        jobs=jobs.jobs(world, run),
    )


def _drivers(world: World, namespace: str) -> frozenset[str]:
    """Return the names under which the operator itself takes tasks: those of vaults without process servers."""
    return frozenset(
        naming.driver(vault.metadata.name)
        for vault in world.all(RecoveryVault, namespace)
        if Capability.OWN_SERVERS not in FACTS[vault.spec.engine].capabilities
    )


def observe_drill(world: World, drill: TestFailover) -> ObservedDrill:
    """Collect the machines that a drill means, its run, and who asked for it."""
    found = _observe_drill(world, drill)
    return replace(found, requests=requests(world, drill, begins=found.run is None))


def _observe_drill(world: World, drill: TestFailover) -> ObservedDrill:
    namespace = drill.metadata.namespace
    run = world.find(FailoverRun, namespace, drill.status.run or run_name(drill))
    if drill.spec.plan_ref is not None:
        plan = world.find(FailoverPlan, namespace, drill.spec.plan_ref.name)
        if plan is None:
            use = ObjectUse("spec.planRef", "FailoverPlan", drill.spec.plan_ref.name, exists=False)
            return ObservedDrill(drill, (), problems(namespace, (use,)), run)
        machines, missing = _plan_machines(world, plan)
        return ObservedDrill(drill, machines, missing, run, plan)
    name = drill.spec.protected_vm_ref.name if drill.spec.protected_vm_ref else ""
    vm = world.find(ProtectedVM, namespace, name)
    if vm is None:
        use = ObjectUse("spec.protectedVMRef", "ProtectedVM", name, exists=False)
        return ObservedDrill(drill, (), problems(namespace, (use,)), run)
    return ObservedDrill(drill, (Chosen(protectedvm.observe(world, vm)),), (), run)


def observe_plan(world: World, plan: FailoverPlan) -> ObservedPlan:
    """Collect the machines and the runs of a plan."""
    machines, missing = _plan_machines(world, plan)
    name = plan.metadata.name

    def asked_for(body: Json) -> bool:
        # By name: a plan that was pruned and applied again, or a rebuilt cluster, goes on with the runs it had.
        owner = body["spec"].get("owner") or {}
        return bool(owner.get("kind") == "FailoverPlan" and owner.get("name") == name)

    runs = world.all(FailoverRun, plan.metadata.namespace, asked_for)
    asked = requests(world, plan, begins=_may_begin(plan))
    unplanned = _unplanned(world, plan.metadata.namespace)
    drills = world.all(TestFailover, plan.metadata.namespace, lambda body: _made_by(body, plan.metadata.uid))
    return ObservedPlan(
        plan, machines, missing, ordered(runs), requests=asked, unplanned=unplanned, drills=tuple(drills)
    )


def _made_by(body: Json, uid: str) -> bool:
    """Tell whether the operator made a drill for this very plan."""
    return any(owner.get("uid") == uid for owner in body["metadata"].get("ownerReferences") or [])


def _unplanned(world: World, namespace: str) -> frozenset[str]:
    """Return the machines of a namespace that no plan means."""
    there = {body["metadata"]["name"] for body in world.cache.all(ProtectedVM.definition.kind, namespace)}
    for plan in world.all(FailoverPlan, namespace):
        for group in plan.spec.groups:
            for member in group.members:
                there -= {vm.metadata.name for vm in _members(world, namespace, member)}
    return frozenset(there)


def _may_begin(plan: FailoverPlan) -> bool:
    """Tell whether the plan may make a run now: it wants the machines elsewhere, or one awaits what it says."""
    return plan.spec.active_site.value != plan.status.active_site or plan.status.active_site != ActiveSite.SOURCE.value


def _plan_machines(world: World, plan: FailoverPlan) -> tuple[tuple[Chosen, ...], tuple[Problem, ...]]:
    """Return the machines that a plan means, in order, each once, and the names that mean none."""
    namespace = plan.metadata.namespace
    chosen: dict[str, Chosen] = {}
    missing: list[ObjectUse] = []
    for group in plan.spec.groups:
        for member in group.members:
            found = _members(world, namespace, member)
            if not found and member.name:
                field = f"spec.groups[{group.name}].members"
                missing.append(ObjectUse(field, "ProtectedVM", member.name, exists=False))
            for vm in found:
                if vm.metadata.name not in chosen:
                    own = member.overrides or AS_PLANNED
                    chosen[vm.metadata.name] = Chosen(protectedvm.observe(world, vm), group.name, own)
    return tuple(chosen.values()), problems(namespace, missing)


def _members(world: World, namespace: str, member: Member) -> list[ProtectedVM]:
    if member.name:
        vm = world.find(ProtectedVM, namespace, member.name)
        return [vm] if vm else []

    def meant(body: Json) -> bool:
        meta = body["metadata"]
        return member.means(meta["name"], meta.get("labels") or {})

    return world.all(ProtectedVM, namespace, meant)


def _drill(world: World, run: FailoverRun) -> TestFailover | None:
    """Return the drill that the run belongs to, None if it is gone, or another one has its name."""
    if run.spec.kind is not RunKind.TEST_FAILOVER:
        return None
    drill = world.find(TestFailover, run.metadata.namespace, run.spec.owner.name)
    return drill if drill is not None and drill.metadata.uid == run.spec.owner.uid else None


def _clean_up(world: World, run: FailoverRun, drill: TestFailover | None) -> bool:
    """Tell whether what the run made is to be removed now."""
    if run.spec.kind is RunKind.TEST_FAILOVER:
        undone = run.status.phase is RunPhase.FAILED and rolls_back(run)
        return drill is None or undone or clean_up_due(drill, run, world.now())
    if run.spec.kind is not RunKind.FAILOVER or run.status.phase not in (RunPhase.FAILED, RunPhase.CLEANING_UP):
        return False
    plan = world.find(FailoverPlan, run.metadata.namespace, run.spec.owner.name)
    # A failed failover is kept to be looked at until its plan is set back, unless a hook says that it is rolled back.
    back = (
        plan is not None
        and plan.metadata.uid == run.spec.owner.uid
        and plan.metadata.generation > run.spec.owner.generation
        and plan.spec.active_site is ActiveSite.SOURCE
        and not stops_machines(run)  # that is undone by another run
    )
    undone = rolls_back(run) and not stops_machines(run)
    return run.status.phase is RunPhase.CLEANING_UP or back or undone


def _called_off(world: World, run: FailoverRun) -> bool:
    """Tell whether the run's plan has accepted an abort of it."""
    if run.spec.owner.kind != "FailoverPlan":
        return False
    plan = world.find(FailoverPlan, run.metadata.namespace, run.spec.owner.name)
    requests = plan.status.requests if plan is not None and plan.spec.abort == run.metadata.name else ()
    return any(one.field == ABORT and one.accepted and one.run == run.metadata.name for one in requests)
