"""Drills and failovers through the real API, played by two registered appliances: nothing twice, nothing unasked."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator_process import Installation, condition, message, reason, samples
from tests.cluster.played_appliance import PlayedAppliance, PlayedVault
from tests.cluster.waiting import eventually

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import FailoverPlan, FailoverRun, ProtectedVM, Task, TestFailover
from farshore_operator.api.failoverrun import RunKind, RunPhase
from farshore_operator.api.planstatus import PlanPhase
from farshore_operator.api.protectedvm import ProtectionPhase
from farshore_operator.api.testfailover import TestFailoverPhase
from farshore_operator.crypto.certificates import certificate_digest
from farshore_operator.kube.resources import FAILOVER_PLAN, PROTECTED_VM, TEST_FAILOVER, Resource

GROUND = ("Secret", "RecoveryVault", "Site", "ReplicationPolicy")
VM, DRILL, PLAN = "web-01", "web-01-drill", "shop"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("runs")) as up:
        yield up


@dataclass
class Scene:
    """A protected machine between two sites."""

    world: Installation
    namespace: str
    stack: PlayedAppliance
    shore: PlayedAppliance

    def wait(self, model: type[Any], name: str, until: Callable[[Any], bool]) -> Any:
        return self.world.wait(model, self.namespace, name, until)

    def get(self, model: type[Any], name: str) -> Any:
        return self.world.get(model, self.namespace, name)

    def runs(self, kind: RunKind) -> list[FailoverRun]:
        return [run for run in self.world.all(FailoverRun, self.namespace) if run.spec.kind is kind]

    def edit(self, resource: Resource, name: str, **spec: Any) -> None:
        self.world.admin.merge(resource, self.namespace, name, {"spec": spec})

    def plan(self, **spec: Any) -> None:
        """Apply the plan with its machines at the source, and wait until that was seen."""
        plan = samples("FailoverPlan")[0]
        plan["spec"] |= spec
        self.world.apply(self.namespace, plan)
        self.wait(FailoverPlan, PLAN, lambda plan: plan.status.edit is not None)


@pytest.fixture
def scene(world: Installation, tmp_path: Path) -> Iterator[Scene]:
    namespace = world.namespace(f"runs-{secrets.token_hex(3)}")
    world.apply(namespace, *samples(*GROUND))
    with ExitStack() as stack:
        eventually(lambda: "farshore-registrar-shore" in _registrars(world, namespace), "no registrar")
        eventually(lambda: "farshore-registrar-stack" in _registrars(world, namespace), "no registrar")
        vault = PlayedVault()
        source = stack.enter_context(PlayedAppliance(world, namespace, "stack", "ps-stack", tmp_path, vault))
        target = stack.enter_context(PlayedAppliance(world, namespace, "shore", "ps-shore", tmp_path, vault))
        world.apply(namespace, *samples("ProtectedVM"))
        made = Scene(world, namespace, source, target)
        made.wait(
            ProtectedVM,
            VM,
            lambda vm: vm.status.phase is ProtectionPhase.PROTECTED and condition(vm, "FailoverReady") == "True",
        )
        yield made
        world.check_invariants(namespace)


def _registrars(world: Installation, namespace: str) -> str:
    return world.plane.kubectl("-n", namespace, "get", "rolebindings", "-o", "name").stdout


def test_protection_says_what_was_observed(scene: Scene) -> None:
    vm = scene.wait(ProtectedVM, VM, lambda vm: vm.status.agent is not None)
    assert condition(vm, "Ready") == condition(vm, "AgentInstalled") == condition(vm, "RPOMet") == "True"
    assert vm.status.assignment.process_server == "ps-stack"
    assert vm.status.assignment.epoch == 1
    assert certificate_digest(vm.status.agent.certificate), "the machine's certificate can be read"
    scene.edit(PROTECTED_VM, VM, paused=True)
    scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.PAUSED)
    scene.edit(PROTECTED_VM, VM, paused=False)
    scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.PROTECTED)


def test_a_chain_that_is_ahead_raises_the_epoch(scene: Scene) -> None:
    scene.stack.vault_epoch[VM] = 7
    vm = scene.wait(ProtectedVM, VM, lambda vm: vm.status.assignment.epoch > 1)
    assert vm.status.assignment.epoch == 8


def test_a_drill_runs_once_is_killed_in_the_middle_and_cleans_up(scene: Scene) -> None:
    scene.shore.hold.add(TaskKind.HYDRATE)
    scene.world.apply(scene.namespace, *samples("TestFailover"))
    scene.wait(Task, _task(scene, "hydrate"), lambda task: task.status is not None)
    scene.world.kill_operator()
    scene.shore.hold.clear()
    time.sleep(1.0)
    scene.world.start_operator()
    drill = scene.wait(TestFailover, DRILL, lambda drill: drill.status.phase is TestFailoverPhase.SUCCEEDED)
    assert len(scene.runs(RunKind.TEST_FAILOVER)) == 1
    for kind in (TaskKind.SELECT_POINT, TaskKind.HYDRATE, TaskKind.START_MACHINE, TaskKind.PROBE_MACHINE):
        assert scene.shore.done[kind] == 1, kind
    run = scene.get(FailoverRun, drill.status.run)
    assert run.status.disks_verified is True
    assert run.status.rto_seconds is not None
    assert run.status.members[0].evidence == "SSH-2.0-played"
    assert drill.status.machines[0].address == "10.160.0.2"
    assert "delete TestFailover" in drill.status.next_step
    # The machine itself is not touched by a drill.
    assert scene.get(ProtectedVM, VM).status.desired == Desired.REPLICATE
    scene.world.admin.delete(TEST_FAILOVER, scene.namespace, DRILL)
    scene.world.wait_gone(TestFailover, scene.namespace, DRILL)
    assert scene.shore.done[TaskKind.CLEAN_UP] == 1
    assert scene.get(FailoverRun, drill.status.run).status.phase is RunPhase.CLEANED_UP


def _task(scene: Scene, step: str) -> str:
    eventually(lambda: any(task.metadata.name.endswith(step) for task in scene.world.all(Task, scene.namespace)), step)
    return next(
        task.metadata.name for task in scene.world.all(Task, scene.namespace) if task.metadata.name.endswith(step)
    )


def test_deleting_a_drill_in_the_middle_cleans_up(scene: Scene) -> None:
    scene.shore.hold.add(TaskKind.START_MACHINE)
    scene.world.apply(scene.namespace, *samples("TestFailover"))
    _task(scene, "startmachine")
    scene.world.admin.delete(TEST_FAILOVER, scene.namespace, DRILL)
    scene.world.wait_gone(TestFailover, scene.namespace, DRILL)
    assert scene.shore.done[TaskKind.CLEAN_UP] == 1
    left = [task for task in scene.world.all(Task, scene.namespace) if task.status and task.status.phase == "Running"]
    assert left == [], "no unfinished task stays, which an appliance would begin again"
    assert scene.shore.done[TaskKind.PROBE_MACHINE] == 0


def test_a_drill_cleans_up_by_itself_and_never_restarts(scene: Scene) -> None:
    drill = samples("TestFailover")[0]
    drill["spec"]["cleanupAfter"] = "3s"
    scene.world.apply(scene.namespace, drill)
    done = scene.wait(TestFailover, DRILL, lambda drill: drill.status.phase is TestFailoverPhase.CLEANED_UP)
    assert condition(done, "DrillSucceeded") == "True"
    assert condition(done, "CleanedUp") == "True"
    scene.edit(TEST_FAILOVER, DRILL, notes="seen")
    scene.wait(TestFailover, DRILL, lambda drill: drill.status.observed_generation == 2)
    run = scene.wait(FailoverRun, done.status.run, lambda run: run.status.phase is RunPhase.CLEANED_UP)
    assert len(scene.runs(RunKind.TEST_FAILOVER)) == 1
    assert scene.shore.done[TaskKind.HYDRATE] == 1
    assert run.status.cleaned_up_at is not None


def test_a_failed_step_fails_the_drill_with_its_message(scene: Scene) -> None:
    scene.shore.fail[TaskKind.HYDRATE] = "the disk is full"
    scene.world.apply(scene.namespace, *samples("TestFailover"))
    failed = scene.wait(TestFailover, DRILL, lambda drill: drill.status.phase is TestFailoverPhase.FAILED)
    assert "the disk is full" in message(failed)
    assert condition(failed, "Stalled") == "True"
    assert scene.shore.done[TaskKind.START_MACHINE] == 0
    scene.world.admin.delete(TEST_FAILOVER, scene.namespace, DRILL)
    scene.world.wait_gone(TestFailover, scene.namespace, DRILL)


def test_a_failover_moves_the_machine_and_a_commit_names_its_run(scene: Scene) -> None:
    scene.plan()
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
    vm = scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.FAILED_OVER)
    plan = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.AWAITING_COMMIT)
    (run,) = scene.runs(RunKind.FAILOVER)
    assert plan.status.active_run == run.metadata.name == vm.status.recovered.run
    assert vm.status.recovered.address == "10.160.0.2"
    assert vm.status.desired == Desired.STOP
    assert [step.name for step in run.status.steps if step.member] == [
        "CommitSpool", "ShutdownSource", "Fence", "SelectPoint", "Hydrate", "PrepareGuest", "StartMachine", "Probe"
    ]  # fmt: skip
    assert run.status.rpo_seconds is not None and 0 <= run.status.rpo_seconds < 600
    fence = scene.get(Task, next(step.task for step in run.status.steps if step.name == "Fence"))
    assert fence.spec.input.epoch == vm.status.assignment.epoch + 1
    scene.edit(FAILOVER_PLAN, PLAN, commit="another-run")
    scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.observed_generation == plan.metadata.generation)
    assert scene.runs(RunKind.COMMIT) == [], "a commit that names another run does nothing"
    scene.edit(FAILOVER_PLAN, PLAN, commit=run.metadata.name)
    scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.FAILED_OVER)
    scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.COMMITTED)


def test_a_revert_moves_nothing_and_a_prune_touches_no_machine(scene: Scene) -> None:
    scene.plan()
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
    scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.FAILED_OVER)
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="source")
    reverted = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.MISMATCH)
    assert reason(reverted) == "DesiredStateMismatch"
    assert condition(reverted, "Stalled") == "True"
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
    scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.AWAITING_COMMIT)
    scene.world.admin.delete(FAILOVER_PLAN, scene.namespace, PLAN)
    scene.world.wait_gone(FailoverPlan, scene.namespace, PLAN)
    time.sleep(2)
    assert scene.get(ProtectedVM, VM).status.phase is ProtectionPhase.FAILED_OVER
    assert len(scene.runs(RunKind.FAILOVER)) == 1
    assert scene.shore.done[TaskKind.START_MACHINE] == 1
    assert scene.shore.done[TaskKind.CLEAN_UP] == 0


def test_a_revert_in_flight_changes_nothing_of_the_run(scene: Scene) -> None:
    scene.shore.hold.add(TaskKind.HYDRATE)
    scene.plan()
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
    _task(scene, "hydrate")
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="source")
    seen = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.edit.active_site == "source")
    assert not seen.status.edit.accepted
    scene.shore.hold.clear()
    scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.FAILED_OVER)
    ended = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.MISMATCH)
    assert "under way" in message(ended)


def test_what_could_not_start_never_starts_by_itself(scene: Scene) -> None:
    scene.plan()
    scene.shore.stop()
    scene.wait(ProtectedVM, VM, lambda vm: reason(vm, "FailoverReady") == "RecoveryProcessServerNotConnected")
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
    refused = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.MISMATCH)
    assert "ps-shore" in message(refused)
    back = PlayedAppliance(scene.world, scene.namespace, "shore", "ps-shore", scene.shore.state.parent)
    with back:
        scene.wait(ProtectedVM, VM, lambda vm: condition(vm, "FailoverReady") == "True")
        time.sleep(3)
        assert scene.runs(RunKind.FAILOVER) == [], "passing time starts nothing"
        scene.edit(FAILOVER_PLAN, PLAN, activeSite="source")
        scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.IDLE)
        scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
        scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.FAILED_OVER)


def test_a_plan_that_is_created_at_recovery_moves_nothing(scene: Scene) -> None:
    plan = samples("FailoverPlan")[0]
    plan["spec"]["activeSite"] = "recovery"
    scene.world.apply(scene.namespace, plan)
    refused = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.MISMATCH)
    assert "Set activeSite to source first" in message(refused)
    assert scene.runs(RunKind.FAILOVER) == []


def test_a_failed_failover_lets_replication_go_on_and_is_cleaned_up_by_going_back(scene: Scene) -> None:
    scene.shore.fail[TaskKind.PROBE_MACHINE] = "nobody answers"
    scene.plan(shutdownSource="Never", recoveryPoint="LatestProcessed")
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
    failed = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.FAILED)
    assert "nobody answers" in message(failed)
    vm = scene.wait(ProtectedVM, VM, lambda vm: vm.status.desired == Desired.REPLICATE)
    assert vm.status.phase is not ProtectionPhase.FAILED_OVER, "FailedOver is claimed only after an answer"
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="source")
    scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.phase is PlanPhase.IDLE)
    (run,) = scene.runs(RunKind.FAILOVER)
    scene.wait(FailoverRun, run.metadata.name, lambda run: run.status.phase is RunPhase.CLEANED_UP)
    scene.shore.fail.clear()
    scene.edit(FAILOVER_PLAN, PLAN, activeSite="recovery")
    scene.wait(ProtectedVM, VM, lambda vm: vm.status.phase is ProtectionPhase.FAILED_OVER)
    assert len(scene.runs(RunKind.FAILOVER)) == 2


def test_a_machine_is_released_when_its_agent_is_removed(scene: Scene) -> None:
    scene.world.admin.delete(PROTECTED_VM, scene.namespace, VM)
    scene.world.wait_gone(ProtectedVM, scene.namespace, VM)
    assert not [event for event in scene.world.events(scene.namespace) if event[1] == "AgentLeftBehind"]


def test_a_machine_that_is_out_of_reach_is_released_by_force_and_says_what_is_left(scene: Scene) -> None:
    scene.stack.unreachable.add(VM)
    scene.world.admin.delete(PROTECTED_VM, scene.namespace, VM)
    waits = scene.wait(ProtectedVM, VM, lambda vm: reason(vm) == "Deleting")
    assert "farshore.dev/force-delete" in message(waits)
    forced = {"metadata": {"annotations": {"farshore.dev/force-delete": "yes"}}}
    scene.world.admin.merge(PROTECTED_VM, scene.namespace, VM, forced)
    scene.world.wait_gone(ProtectedVM, scene.namespace, VM)
    left = [note for _, event, note in scene.world.events(scene.namespace) if event == "AgentLeftBehind"]
    assert left and "10.0.0.4" in left[0]


def test_the_doctor_gets_a_preflight_for_each_request(scene: Scene) -> None:
    asked = {"metadata": {"annotations": {"farshore.dev/doctor-requested": "one"}}}
    scene.world.admin.merge(PROTECTED_VM, scene.namespace, VM, asked)
    eventually(lambda: scene.stack.done[TaskKind.PREFLIGHT] == 1, "no preflight")
    scene.world.admin.merge(PROTECTED_VM, scene.namespace, VM, asked)
    time.sleep(1)
    assert scene.stack.done[TaskKind.PREFLIGHT] == 1
