"""Decisions on plans and runs: what starts, what never does, and what comes after what."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide_world import NOW, STACK, meta, observed, run

from farshore_engine.contract.tasks import TaskPhase, TaskReport, TaskResult
from farshore_operator.api import FailoverPlan, FailoverRun, Site, Task
from farshore_operator.api.failoverrun import FailoverRunSpec, RunKind, RunPhase
from farshore_operator.api.planstatus import PlanPhase
from farshore_operator.decide import failoverplan, failoverrun, runsteps
from farshore_operator.decide.actions import CreateOwned, DeleteOwned
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.decide.runjournal import ObservedRun
from farshore_operator.decide.runspec import Choices, Chosen, freeze
from farshore_operator.report.invariants import violations

CONNECTED = frozenset({"ps-stack", "ps-shore"})


def plan(active: str = "source", generation: int = 1, edit: dict[str, Any] | None = None, **more: Any) -> FailoverPlan:
    spec = {"activeSite": active, "groups": [{"name": "g", "members": [{"name": "web-01"}]}], **more}
    status = {"edit": edit} if edit else {}
    body = {"metadata": meta("plan", generation=generation), "spec": spec, "status": status}
    return FailoverPlan.of(body)


def seen(active: str, *, accepted: bool = True, reason: str = "NothingToDo", generation: int = 1) -> dict[str, Any]:
    return {
        "generation": generation,
        "activeSite": active,
        "accepted": accepted,
        "reason": reason,
        "seenAt": NOW.isoformat(),
    }


def at(found: FailoverPlan, *runs: FailoverRun, **machine: Any) -> ObservedPlan:
    return ObservedPlan(found, (Chosen(observed(runs=runs, **machine), "g"),), (), runs)


def started(observed_plan: ObservedPlan) -> list[str]:
    actions = failoverplan.decide(observed_plan, NOW).actions
    return [action.name for action in actions if isinstance(action, CreateOwned)]


def test_an_edit_is_judged_then_stored_then_starts_one_run() -> None:
    edited = plan("recovery", 2, seen("source"))
    first = failoverplan.decide(at(edited), NOW)
    assert first.actions == () and first.status is not None and first.status.edit is not None
    assert first.status.edit.accepted
    stored = edited.model_copy(update={"status": first.status})
    (name,) = started(at(stored))
    assert name == "plan-uid-p-2-failover"
    again = stored.model_copy(update={"metadata": stored.metadata.model_copy(update={"generation": 5})})
    assert started(at(again)) == [name], "a later edit of something else does not change which run is meant"
    assert started(at(stored, run(name=name))) == []


STARTS = seen("recovery", reason="StartsFailover", generation=2)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(at(plan("recovery")), id="created-at-recovery"),
        pytest.param(at(plan("recovery", 2, seen("recovery"))), id="machines-that-came-back-by-other-means"),
        pytest.param(at(plan("recovery", 2, seen("recovery", accepted=False, reason="X"))), id="refused-before"),
        pytest.param(at(plan("recovery", 2, STARTS), run(phase="Failed", name="plan-uid-p-2-failover")), id="failed"),
        pytest.param(at(plan("recovery", 3, STARTS), run(phase="Succeeded", name="r")), id="moved-already"),
        pytest.param(at(plan("source", 3, seen("recovery")), run(phase="Succeeded", name="r")), id="revert-after"),
        pytest.param(at(plan("source", 3, STARTS), run(name="r")), id="revert-during"),
    ],
)
def test_what_never_starts_a_run(found: ObservedPlan) -> None:
    assert started(found) == []
    status = failoverplan.decide(found, NOW).status
    assert status is not None and violations(found.plan, status, NOW) == []


def test_a_run_whose_record_was_deleted_is_not_repeated() -> None:
    found = plan("recovery", 2, STARTS)
    known = found.model_copy(update={"status": found.status.model_copy(update={"last_run": "plan-uid-p-2-failover"})})
    assert started(at(known)) == []


def test_a_revert_after_a_failover_is_a_mismatch_that_says_so() -> None:
    found = at(plan("source", 3, seen("recovery")), run(phase="Succeeded", name="r"))
    status = failoverplan.decide(found, NOW).status
    assert status is not None and status.phase is PlanPhase.MISMATCH
    assert status.condition("Stalled").reason == "DesiredStateMismatch"
    assert "failback" in status.next_step


@pytest.mark.parametrize(
    ("commit", "expected"),
    [
        pytest.param("Manual", [], id="manual"),
        pytest.param("another", [], id="names-another-run"),
        pytest.param("r", ["r-commit"], id="names-the-run"),
        pytest.param("Automatic", ["r-commit"], id="automatic"),
    ],
)
def test_commit(commit: str, expected: list[str]) -> None:
    found = at(plan("recovery", 2, seen("recovery"), commit=commit), run(phase="Succeeded", name="r"))
    assert started(found) == expected


def task(name: str, phase: TaskPhase | None, **more: Any) -> Task:
    spec = {"kind": "Hydrate", "processServer": "ps-shore", "run": "a-run", "protectedVM": "web-01"}
    made = Task.of({"metadata": meta(name), "spec": spec})
    report = TaskReport(phase=phase, **more) if phase else None
    return made.model_copy(update={"status": report})


def seen_run(
    found: FailoverRun, *tasks: Task, connected: frozenset[str] = CONNECTED, clean: bool = False
) -> ObservedRun:
    by_name = {one.metadata.name: one for one in tasks}
    return ObservedRun(found, by_name, {"web-01": observed()}, connected, clean)


def decided(observed_run: ObservedRun) -> tuple[dict[str, str], list[str], Any]:
    """Return the phases of the steps by name, the tasks that are asked for, and the status."""
    decision = failoverrun.decide(observed_run, NOW)
    assert decision.status is not None
    assert violations(observed_run.run, decision.status, NOW) == []
    steps = {step.name: step.phase.value for step in decision.status.steps}
    asked = [action.spec["kind"] for action in decision.actions if isinstance(action, CreateOwned)]
    # Reports have tests of their own: test_decide_runreporting.
    return steps, [kind for kind in asked if kind != "WriteReport"], decision.status


def ok(name: str, **result: Any) -> Task:
    return task(f"a-run-web-01-{name}", TaskPhase.SUCCEEDED, result=TaskResult(**result))


DONE = [ok(name) for name in ("fence", "selectpoint", "hydrate", "prepareguest", "startmachine", "probe")]


@pytest.mark.parametrize(
    ("tasks", "asked"),
    [
        pytest.param(DONE[:0], ["Fence"], id="first-the-fence"),
        pytest.param(DONE[:1], ["SelectPoint"], id="then-the-point"),
        pytest.param(DONE[:2], ["Hydrate"], id="then-the-disks"),
        pytest.param(DONE[:3], ["PrepareGuest"], id="then-the-guest"),
        pytest.param(DONE[:4], ["StartMachine"], id="then-the-machine"),
        pytest.param(DONE[:5], ["ProbeMachine"], id="then-the-probe"),
        pytest.param(DONE, [], id="then-nothing"),
    ],
)
def test_steps_follow_each_other(tasks: list[Task], asked: list[str]) -> None:
    _, kinds, status = decided(seen_run(run(phase=None), *tasks))
    assert kinds == asked
    assert status.phase is (RunPhase.SUCCEEDED if not asked else RunPhase.RUNNING)


def test_a_killed_operator_asks_for_the_same_task_again_and_for_no_other() -> None:
    found = seen_run(run(phase=None), *DONE[:2])
    once, twice = (failoverrun.decide(found, NOW).actions for _ in range(2))
    assert once == twice and len(once) == 1


def test_a_failed_task_fails_the_run_with_its_message() -> None:
    failed = task("a-run-web-01-hydrate", TaskPhase.FAILED, message="no space", remedy="make some")
    steps, kinds, status = decided(seen_run(run(phase=None), *DONE[:2], failed))
    assert steps["Hydrate"] == "Failed" and kinds == [] and status.phase is RunPhase.FAILED
    assert "no space" in status.condition("Stalled").message and "make some" in status.next_step


@pytest.mark.parametrize(
    ("shutdown", "phase", "step"),
    [
        pytest.param("BestEffort", RunPhase.RUNNING, "Skipped", id="best-effort-goes-on"),
        pytest.param("Required", RunPhase.FAILED, "Failed", id="required-stops"),
    ],
)
def test_a_source_that_is_gone(shutdown: str, phase: RunPhase, step: str) -> None:
    found = run(phase=None, shutdown=shutdown, recovery_point="Latest")
    steps, kinds, status = decided(seen_run(found, connected=CONNECTED - {STACK.name}))
    assert steps["ShutdownSource"] == step and status.phase is phase
    assert kinds == (["Fence"] if phase is RunPhase.RUNNING else [])


def test_a_run_that_nobody_can_carry_out_fails_at_once() -> None:
    """Its recovery server had gone when it was frozen: its tasks were for nobody, and waited for their deadlines."""
    found = run(phase=None)
    (member,) = found.spec.members
    nobody = member.model_copy(update={"process_server": ""})
    spec = found.spec.model_copy(update={"members": (nobody,)})
    steps, kinds, status = decided(seen_run(found.model_copy(update={"spec": spec})))
    assert (steps, kinds, status.phase) == ({"Prerequisites": "Failed"}, [], RunPhase.FAILED)
    assert "no process server of site shore" in status.condition("Stalled").message


def test_clean_up_forgets_unfinished_tasks_first() -> None:
    running = task("a-run-web-01-hydrate", TaskPhase.RUNNING)
    found = seen_run(run("TestFailover"), DONE[1], running, clean=True)
    decision = failoverrun.decide(found, NOW)
    assert [a.target.name for a in decision.actions if isinstance(a, DeleteOwned)] == ["a-run-web-01-hydrate"]
    assert [a.spec["kind"] for a in decision.actions if isinstance(a, CreateOwned)] == ["CleanUp"]
    cleaned = seen_run(run("TestFailover", "CleaningUp"), DONE[1], ok("cleanup"), clean=True)
    assert decided(cleaned)[2].phase is RunPhase.CLEANED_UP


def test_a_run_that_touched_nothing_is_clean_at_once() -> None:
    assert decided(seen_run(run("TestFailover", None), clean=True))[2].phase is RunPhase.CLEANED_UP


def test_a_task_whose_server_died_is_given_up_after_its_deadline() -> None:
    stuck = task("a-run-web-01-hydrate", TaskPhase.RUNNING)
    late = stuck.model_copy(update={"spec": stuck.spec.model_copy(update={"deadline": NOW - timedelta(minutes=3)})})
    assert decided(seen_run(run(phase=None), *DONE[:2], late))[2].phase is RunPhase.FAILED


@pytest.mark.parametrize(
    ("kind", "point", "shutdown", "first"),
    [
        pytest.param("Failover", "Latest", "BestEffort", ["CommitSpool", "ShutdownSource", "Fence"], id="latest"),
        pytest.param("Failover", "LatestProcessed", "Required", ["ShutdownSource", "Fence"], id="latest-processed"),
        pytest.param("Failover", "Latest", "Never", ["CommitSpool", "Fence"], id="source-left-alone"),
        pytest.param("TestFailover", "Latest", "Never", ["CommitSpool", "SelectPoint"], id="drill-of-latest"),
        pytest.param("TestFailover", "LatestProcessed", "Never", ["SelectPoint", "Hydrate"], id="drill"),
    ],
)
def test_the_last_point_is_taken_while_the_source_still_runs(
    kind: str, point: str, shutdown: str, first: list[str]
) -> None:
    spec = FailoverRunSpec.model_validate(
        {
            "kind": kind, "recoveryPoint": point, "shutdownSource": shutdown, "inputsHash": "h", "members": [],
            "owner": {"kind": "FailoverPlan", "name": "p", "uid": "u", "generation": 1},
        }
    )  # fmt: skip
    assert [rule.name for rule in runsteps.sequence(spec)][: len(first)] == first


@pytest.mark.parametrize(
    ("kind", "target", "pool", "address"),
    [
        pytest.param("Failover", {"privateIP": "10.77.3.4"}, "10.77.0.0/16", "10.77.3.4/16", id="of the site's range"),
        pytest.param("Failover", {"privateIP": "10.9.3.4"}, "10.77.0.0/16", "10.9.3.4/24", id="of another range"),
        pytest.param("Failover", {"privateIP": "10.9.3.4"}, None, "10.9.3.4/24", id="of a site without a range"),
        pytest.param("Failover", {}, None, "", id="any"),
        pytest.param("TestFailover", {"privateIP": "10.9.3.4"}, None, None, id="a drill keeps what it has"),
    ],
)
def test_a_recovered_machine_is_prepared_for_the_network_of_its_target(
    kind: str, target: dict[str, Any], pool: str | None, address: str | None
) -> None:
    machine = observed()
    target_spec = machine.vm.spec.target.model_validate(machine.vm.spec.target.dump() | target)
    vm = machine.vm.model_copy(update={"spec": machine.vm.spec.model_copy(update={"target": target_spec})})
    site = Site.of({"metadata": meta("shore"), "spec": {"provider": "local", "local": {"addressPool": pool}}})
    choices = Choices(RunKind(kind), "Latest")
    frozen = freeze(plan(), "a-run", choices, [Chosen(replace(machine, vm=vm, target_site=site), "g")])
    (member,) = frozen.members
    wanted = runsteps.preparation(frozen, member)
    assert wanted.detach_agent
    assert not wanted.restore_network
    assert (wanted.network.address if wanted.network is not None else None) == address
