"""The whole circle through the real API, played by two registered appliances; then the control plane is lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_process import Installation, condition, samples
from tests.cluster.played_appliance import PlayedAppliance, PlayedVault
from tests.cluster.waiting import eventually

from farshore_engine.contract.assignment import Direction
from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import FailoverPlan, FailoverRun, ProtectedVM, Task
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.planstatus import PlanPhase
from farshore_operator.api.protectedvm import ProtectionPhase
from farshore_operator.kube.resources import FAILOVER_PLAN

GROUND = ("Secret", "RecoveryVault", "Site", "ReplicationPolicy", "ProtectedVM")
VM, PLAN = "web-01", "shop"


class Stage:
    """A machine between two sites, in one control plane."""

    def __init__(self, world: Installation, namespace: str, stack: PlayedAppliance, shore: PlayedAppliance) -> None:
        self.world, self.namespace, self.stack, self.shore = world, namespace, stack, shore

    def plan(self, **spec: Any) -> None:
        plan = samples("FailoverPlan")[0]
        plan["spec"] |= {"mode": "planned", "shutdownSource": "Required", **spec}
        self.world.apply(self.namespace, plan)
        self.world.wait(FailoverPlan, self.namespace, PLAN, lambda plan: plan.status.edit is not None)

    def edit(self, **spec: Any) -> None:
        self.world.admin.merge(FAILOVER_PLAN, self.namespace, PLAN, {"spec": spec})

    def reach(self, phase: ProtectionPhase) -> ProtectedVM:
        return self.world.wait(ProtectedVM, self.namespace, VM, lambda vm: vm.status.phase is phase)

    def ready(self) -> None:
        def able(vm: ProtectedVM) -> bool:
            return vm.status.phase is ProtectionPhase.PROTECTED and condition(vm, "FailoverReady") == "True"

        self.world.wait(ProtectedVM, self.namespace, VM, able)

    def awaiting(self) -> str:
        def waits(plan: FailoverPlan) -> bool:
            return plan.status.phase is PlanPhase.AWAITING_COMMIT

        plan = self.world.wait(FailoverPlan, self.namespace, PLAN, waits)
        assert plan.status.active_run is not None
        return plan.status.active_run

    def runs(self, kind: RunKind) -> list[FailoverRun]:
        return [run for run in self.world.all(FailoverRun, self.namespace) if run.spec.kind is kind]

    def wait_for_task(self, step: str) -> None:
        def there() -> bool:
            return any(task.spec.step == step and task.status for task in self.world.all(Task, self.namespace))

        eventually(there, f"step {step} does not come")


@contextmanager
def staged(world: Installation, namespace: str, directory: Path, vault: PlayedVault) -> Iterator[Stage]:
    """Apply the manifests, and register an appliance at each site."""
    world.namespace(namespace)
    world.apply(namespace, *samples(*GROUND))
    with ExitStack() as stack:
        made = []
        for site in ("stack", "shore"):
            account = f"farshore-registrar-{site}"
            eventually(lambda account=account: account in _bindings(world, namespace), "no registrar")  # type: ignore[misc]
            made.append(stack.enter_context(PlayedAppliance(world, namespace, site, f"ps-{site}", directory, vault)))
        yield Stage(world, namespace, *made)


def _bindings(world: Installation, namespace: str) -> str:
    return world.plane.kubectl("-n", namespace, "get", "rolebindings", "-o", "name").stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("circle")) as up:
        yield up


@pytest.fixture
def stage(world: Installation, tmp_path: Path) -> Iterator[Stage]:
    with staged(world, f"circle-{secrets.token_hex(3)}", tmp_path, PlayedVault()) as made:
        made.ready()
        yield made
        world.check_invariants(made.namespace)


def test_the_circle(stage: Stage) -> None:
    stage.plan()
    stage.edit(activeSite="recovery")
    run = stage.awaiting()
    assert stage.stack.done[TaskKind.FINAL_POINT] == 1
    stage.edit(commit=run)
    stage.reach(ProtectionPhase.COMMITTED)
    stage.edit(reprotect=run)
    vm = stage.reach(ProtectionPhase.PROTECTED_REVERSE)
    seen = stage.shore.seen[VM]
    assert (seen.direction, seen.source.address, seen.base_point) == (
        Direction.REVERSE, "10.160.0.2", vm.status.standing.point
    )  # fmt: skip
    assert seen.source.credentials is not None, "the login came with the disks"
    stage.edit(activeSite="source")
    eventually(lambda: bool(stage.runs(RunKind.FAILBACK)), "no failback begins")
    stage.reach(ProtectionPhase.FAILED_BACK)
    back = stage.awaiting()
    assert stage.stack.done[TaskKind.WRITE_BACK] == stage.shore.done[TaskKind.FINAL_POINT] == 1
    (failback,) = stage.runs(RunKind.FAILBACK)
    assert failback.status.members[0].bytes_written == 128
    stage.edit(commit=back)
    vm = stage.reach(ProtectionPhase.PROTECTED)
    assert vm.status.recovered is None
    eventually(lambda: stage.shore.done[TaskKind.CLEAN_UP] >= 2, "the recovered machine is not cleaned up")
    assert stage.shore.done[TaskKind.CLEAN_UP] == 2, "the failover's pin at the reprotect, the machine at the commit"
    assert stage.stack.seen[VM].direction is Direction.FORWARD


def test_an_abort_names_its_run_and_brings_the_machine_back(stage: Stage) -> None:
    stage.plan()
    stage.edit(activeSite="recovery")
    run = stage.awaiting()
    stage.edit(abort="another-run")
    time.sleep(3)
    assert stage.runs(RunKind.ABORT) == []
    stage.edit(abort=run)
    stage.reach(ProtectionPhase.PROTECTED)
    eventually(lambda: all(run.status.account for run in stage.runs(RunKind.ABORT)), "the abort gives no account")
    assert stage.stack.done[TaskKind.START_SOURCE] == stage.shore.done[TaskKind.CLEAN_UP] == 1
    (abort,) = stage.runs(RunKind.ABORT)
    assert "without loss" in (abort.status.account or "")


def test_a_fresh_control_plane_continues_a_run_and_repeats_nothing(world: Installation, tmp_path: Path) -> None:
    namespace, vault = f"circle-{secrets.token_hex(3)}", PlayedVault()
    with staged(world, namespace, tmp_path / "before", vault) as lost:
        lost.ready()
        lost.plan()
        lost.shore.hold.add(TaskKind.START_MACHINE)
        lost.edit(activeSite="recovery")
        lost.wait_for_task("StartMachine")
        (run,) = lost.runs(RunKind.FAILOVER)
        world.kill_operator()
    world.close()
    with (
        Installation(tmp_path / "fresh") as fresh,
        staged(fresh, namespace, tmp_path / "after", vault) as stage,
    ):
        stage.plan(activeSite="recovery")
        assert stage.awaiting() == run.metadata.name
        (again,) = stage.runs(RunKind.FAILOVER)
        assert again.spec == run.spec
        for kind in (TaskKind.FENCE, TaskKind.SELECT_POINT, TaskKind.HYDRATE):
            assert (lost.shore.done[kind], stage.shore.done[kind]) == (1, 0), f"{kind} is not repeated"
        assert lost.stack.done[TaskKind.FINAL_POINT] == 1 and stage.stack.done[TaskKind.FINAL_POINT] == 0
        assert (lost.shore.done[TaskKind.START_MACHINE], stage.shore.done[TaskKind.START_MACHINE]) == (0, 1)
        assert again.status.members[0].rto_seconds is not None
        stage.edit(commit=run.metadata.name)
        stage.reach(ProtectionPhase.COMMITTED)
        fresh.check_invariants(namespace)
