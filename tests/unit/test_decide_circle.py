"""The whole life of a failover, by the real observers and decisions over a played world: circle and accidents."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.circle import AWAY, HOME, Circle

from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api.failoverrun import RunPhase
from farshore_operator.api.planstatus import PlanPhase
from farshore_operator.api.protectedvm import Place, ProtectionPhase
from farshore_operator.decide.runhistory import PASSED
from farshore_operator.decide.runinputs import journalled, spec_of
from farshore_operator.observe.processserver import observe


def moved(circle: Circle) -> str:
    """Fail over, and return the run's name."""
    circle.edit(activeSite="recovery")
    circle.settle()
    assert circle.plan.status.phase is PlanPhase.AWAITING_COMMIT, circle.plan.status
    return str(circle.plan.status.active_run)


def test_the_circle() -> None:
    circle = Circle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED and circle.vm.status.active_site == "source"
    run = moved(circle)
    assert circle.vm.status.phase is ProtectionPhase.FAILED_OVER
    assert circle.power["web-01"] == {HOME: False, AWAY: True}
    final = circle.points["web-01"][-1].name
    circle.edit(commit=run)
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.COMMITTED
    assert circle.pins["web-01"] == {run}, "the point that the machine goes on from is kept"
    circle.edit(reprotect=run)
    circle.settle()
    vm = circle.vm
    assert vm.status.phase is ProtectionPhase.PROTECTED_REVERSE
    assert vm.status.next_step is None, "that it cannot be failed over again is as it should be"
    assert circle.pins["web-01"] == set()
    assert (vm.status.assignment.process_server, vm.status.assignment.base_point) == (AWAY, final)
    circle.edit(activeSite="source")
    circle.settle()
    back = str(circle.plan.status.active_run)
    assert circle.vm.status.phase is ProtectionPhase.FAILED_BACK, circle.plan.status
    assert circle.power["web-01"] == {HOME: True, AWAY: False}
    circle.edit(commit=back)
    circle.settle()
    vm = circle.vm
    assert vm.status.phase is ProtectionPhase.PROTECTED and circle.plan.status.phase is PlanPhase.IDLE
    assert vm.status.assignment.process_server == HOME and vm.status.recovered is None
    kinds = [run.spec.kind.value for run in circle.runs()]
    assert kinds == ["Failover", "Commit", "Reprotect", "Failback", "Commit"]
    assert circle.violations == [] and circle.pins["web-01"] == set()


@pytest.mark.parametrize(
    ("on_commit", "steps"),
    [
        pytest.param("Keep", ["Prerequisites", "Record"], id="points are kept by the retention"),
        pytest.param("Delete", ["Prerequisites", "Record", "DeletePoints"], id="the policy says that they go"),
    ],
)
def test_a_commit_deletes_points_only_where_the_policy_says_so(on_commit: str, steps: list[str]) -> None:
    circle = Circle()
    circle._put("ReplicationPolicy", "standard", {"retention": {"onCommit": on_commit}})
    circle.edit(commit=moved(circle))
    circle.settle()
    (commit,) = circle.runs("Commit")
    assert [step.name for step in commit.status.steps] == steps
    assert commit.status.phase == "Succeeded"


def test_the_circle_goes_round_by_itself_where_it_is_declared_so() -> None:
    circle = Circle("web-01", "web-02", commit="Automatic", reprotect="Automatic")
    circle.edit(activeSite="recovery")
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE
    circle.edit(activeSite="source")
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED and circle.violations == []
    circle.edit(activeSite="recovery")
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE and circle.violations == []


def test_an_abort_brings_the_machine_back() -> None:
    circle = Circle()
    run = moved(circle)
    circle.edit(abort=run)
    circle.settle()
    assert circle.power["web-01"] == {HOME: True, AWAY: False}
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED and circle.vm.status.standing.place is Place.SOURCE
    (abort,) = circle.runs("Abort")
    assert "without loss" in abort.status.account
    assert circle.plan.status.phase is PlanPhase.MISMATCH, "activeSite still says recovery, and that does nothing"
    circle.edit(activeSite="source", abort=None)
    circle.settle()
    assert circle.plan.status.phase is PlanPhase.IDLE
    moved(circle)
    assert len(circle.runs("Failover")) == 2 and circle.violations == []


@pytest.mark.parametrize("step", ["FinalPoint", "Fence", "SelectPoint", "Hydrate", "StartMachine", "Probe"])
def test_a_planned_failover_is_called_off_half_way(step: str) -> None:
    circle = Circle()
    circle.edit(activeSite="recovery")
    circle.until(step)
    (run,) = circle.runs("Failover")
    circle.edit(abort=run.metadata.name)
    circle.settle()
    assert circle.power["web-01"] == {HOME: True, AWAY: False} and circle.violations == []
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED
    assert circle.get("FailoverRun", run.metadata.name).status.phase is RunPhase.FAILED


@pytest.mark.parametrize(
    "kind", [TaskKind.FENCE, TaskKind.SELECT_POINT, TaskKind.HYDRATE, TaskKind.START_MACHINE, TaskKind.PROBE_MACHINE]
)
@pytest.mark.parametrize("by", ["abort", "activeSite"])
def test_a_failed_failover_says_what_it_did_and_is_undone(kind: TaskKind, by: str) -> None:
    circle = Circle()
    circle.fail.add(kind)
    circle.edit(activeSite="recovery")
    circle.settle()
    (run,) = circle.runs("Failover")
    assert run.status.phase is RunPhase.FAILED
    assert (
        "switched off at site stack" in run.status.account
        and f"spec.abort to {run.metadata.name}" in run.status.account
    )
    assert circle.plan.status.phase is PlanPhase.FAILED
    circle.edit(**({"abort": run.metadata.name} if by == "abort" else {"activeSite": "source"}))
    circle.settle()
    assert circle.power["web-01"] == {HOME: True, AWAY: False} and circle.violations == []
    circle.edit(activeSite="source", abort=None)
    circle.settle()
    moved(circle)


def test_a_failed_final_point_leaves_the_machine_as_it_was() -> None:
    circle = Circle()
    circle.fail.add(TaskKind.FINAL_POINT)
    circle.edit(activeSite="recovery")
    circle.settle()
    assert circle.power["web-01"][HOME] and circle.vm.status.phase is ProtectionPhase.PROTECTED
    account = circle.runs("Failover")[0].status.account
    assert account is not None
    assert account.startswith("web-01: nothing was done at site shore. Whether it was switched off at site stack")
    circle.edit(activeSite="source")
    circle.settle()
    assert circle.plan.status.phase is PlanPhase.IDLE
    moved(circle)


@pytest.mark.parametrize("kind", [TaskKind.FENCE, TaskKind.WRITE_BACK, TaskKind.START_SOURCE, TaskKind.PROBE_MACHINE])
def test_a_failed_failback_is_undone_to_the_recovered_machine(kind: TaskKind) -> None:
    circle = Circle(commit="Automatic", reprotect="Automatic")
    circle.edit(activeSite="recovery")
    circle.settle()
    circle.fail.add(kind)
    circle.edit(activeSite="source")
    circle.settle()
    assert circle.runs("Failback")[0].status.phase is RunPhase.FAILED
    circle.edit(activeSite="recovery")
    circle.settle()
    assert circle.power["web-01"] == {HOME: False, AWAY: True} and circle.violations == []
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE
    circle.edit(activeSite="source")
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED and circle.violations == []


def test_another_point_before_the_commit() -> None:
    circle = Circle()
    run = moved(circle)
    circle.edit(changeRecoveryPoint={"run": run, "point": "p-1"})
    circle.settle()
    (changed,) = circle.runs("ChangePoint")
    name = changed.metadata.name
    assert circle.plan.status.active_run == name and changed.spec.previous_run == run
    circle.edit(commit=run)
    circle.settle()
    assert circle.runs("Commit") == [], "the run that is meant is another one now"
    circle.edit(abort=name, commit="Manual", changeRecoveryPoint=None)
    circle.settle()
    assert circle.power["web-01"] == {HOME: True, AWAY: False} and circle.violations == []


@pytest.mark.parametrize(
    "wish", [pytest.param("commit", id="a commit"), pytest.param("changeRecoveryPoint", id="another point again")]
)
def test_no_run_begins_while_another_of_the_plan_is_under_way(wish: str) -> None:
    circle = Circle()
    run = moved(circle)
    circle.edit(changeRecoveryPoint={"run": run, "point": "p-1"})
    circle.until("Hydrate")
    circle.edit(**{wish: run if wish == "commit" else {"run": run, "point": "p-2"}})
    for _ in range(5):
        circle.reconcile("FailoverPlan", "plan")
    assert [one.spec.kind.value for one in circle.runs()] == ["Failover", "ChangePoint"]
    circle.settle()
    assert circle.power["web-01"] == {HOME: False, AWAY: True} and circle.violations == []


def test_an_abort_needs_somebody_who_starts_the_machine() -> None:
    circle = Circle()
    run = moved(circle)
    circle.connected.discard(HOME)
    circle.now = circle.now.replace(minute=circle.now.minute + 5)
    circle.edit(abort=run)
    circle.settle()
    assert circle.runs("Abort") == [] and "the only one" in circle.plan.status.condition("Ready").message
    circle.connected.add(HOME)
    circle.settle()
    assert circle.runs("Abort") == [], "that it has come back starts nothing"
    circle.edit(abort=None)
    circle.settle()
    circle.edit(abort=run)
    circle.settle()
    assert circle.power["web-01"] == {HOME: True, AWAY: False}


def unplanned(**more: str) -> Circle:
    return Circle(mode="unplanned", shutdownSource="Required", recoveryPoint="LatestProcessed", **more)


@pytest.mark.parametrize("carried_out", [True, False], ids=["switched-off-after-all", "never-asked"])
@pytest.mark.parametrize("step", [TaskKind.SHUTDOWN_SOURCE, TaskKind.FINAL_POINT])
def test_a_machine_that_may_have_been_switched_off_is_started_by_an_abort(step: TaskKind, carried_out: bool) -> None:
    """The order was taken and the login was refused then, or the disks differed: nobody started the machine again."""
    circle = unplanned() if step is TaskKind.SHUTDOWN_SOURCE else Circle()
    circle.fail.add(step)
    circle.edit(activeSite="recovery")
    circle.settle()
    (run,) = circle.runs("Failover")
    assert run.status.phase is RunPhase.FAILED
    assert "Whether it was switched off at site stack is not known" in run.status.account
    assert f"set spec.abort to {run.metadata.name}" in run.status.account
    circle.power["web-01"][HOME] = not carried_out
    circle.edit(abort=run.metadata.name)
    circle.settle()
    assert circle.runs("Abort")[-1].status.phase is RunPhase.SUCCEEDED
    assert circle.power["web-01"] == {HOME: True, AWAY: False} and circle.violations == []


def test_an_unplanned_failover_is_undone_only_if_the_source_answers() -> None:
    circle = Circle(mode="unplanned", shutdownSource="Never")
    circle.power["web-01"][HOME] = False  # it is gone
    run = moved(circle)
    circle.edit(abort=run)
    circle.settle()
    assert circle.power["web-01"] == {HOME: False, AWAY: True}, "its copy is the only one there is"
    (abort,) = circle.runs("Abort")
    assert abort.status.phase is RunPhase.FAILED and circle.plan.status.phase is PlanPhase.FAILED


# The accidents of Git.


def test_a_revert_before_the_run_begins_starts_nothing() -> None:
    circle = Circle()
    circle.edit(activeSite="recovery")
    circle.edit(activeSite="source")
    circle.settle()
    assert circle.runs() == []
    circle.edit(activeSite="recovery")
    circle.reconcile("FailoverPlan", "plan")  # it is judged
    circle.edit(activeSite="source")
    circle.settle()
    assert circle.runs() == [] and circle.plan.status.phase is PlanPhase.IDLE


@pytest.mark.parametrize("step", ["FinalPoint", "Fence", "Hydrate", "StartMachine", "Probe"])
def test_a_revert_during_the_run_changes_nothing_of_it(step: str) -> None:
    circle = Circle()
    circle.edit(activeSite="recovery")
    circle.until(step)
    circle.edit(activeSite="source", mode="unplanned", recoveryPoint="p-1")
    circle.settle()
    assert circle.power["web-01"] == {HOME: False, AWAY: True} and circle.violations == []
    assert [run.spec.kind.value for run in circle.runs()] == ["Failover"]
    assert circle.plan.status.phase is PlanPhase.MISMATCH


def test_a_revert_after_the_run_moves_nothing_also_when_a_reprotect_ends() -> None:
    circle = Circle()
    run = moved(circle)
    circle.edit(activeSite="source")
    circle.settle()
    assert circle.plan.status.phase is PlanPhase.AWAITING_COMMIT or circle.plan.status.phase is PlanPhase.MISMATCH
    circle.edit(commit=run, reprotect=run)
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE, "the reprotect was asked for by name"
    assert circle.runs("Failback") == [], "the revert was refused when it was seen, and stays refused"
    circle.edit(activeSite="recovery")
    circle.settle()
    circle.edit(activeSite="source")
    circle.settle()
    assert len(circle.runs("Failback")) == 1 and circle.violations == []


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param({"commit": "plan-other-9-failover"}, id="commit"),
        pytest.param({"abort": "plan-other-9-failover"}, id="abort"),
        pytest.param({"reprotect": "plan-other-9-failover"}, id="reprotect"),
        pytest.param({"changeRecoveryPoint": {"run": "plan-other-9-failover", "point": "p-1"}}, id="point"),
    ],
)
def test_what_names_another_run_does_nothing(stale: dict[str, object]) -> None:
    circle = Circle()
    moved(circle)
    circle.edit(**stale)
    circle.settle()
    assert [run.spec.kind.value for run in circle.runs()] == ["Failover"]
    assert circle.power["web-01"] == {HOME: False, AWAY: True}


def test_a_stale_abort_of_a_committed_run_does_nothing() -> None:
    circle = Circle()
    run = moved(circle)
    circle.edit(commit=run)
    circle.settle()
    circle.edit(commit="Manual", abort=run)
    circle.settle()
    assert circle.runs("Abort") == [] and circle.power["web-01"] == {HOME: False, AWAY: True}
    assert "committed" in circle.plan.status.condition("Ready").message


def test_a_point_is_good_for_one_run() -> None:
    circle = Circle(mode="unplanned", recoveryPoint="p-1")
    run = moved(circle)
    circle.edit(abort=run)
    circle.settle()
    circle.edit(activeSite="source", abort=None)
    circle.settle()
    circle.edit(activeSite="recovery")
    circle.settle()
    assert len(circle.runs("Failover")) == 1 and "p-1 was used by run" in circle.plan.status.condition("Ready").message


@pytest.mark.parametrize("step", ["FinalPoint", "Hydrate", "Probe"])
def test_a_plan_that_is_pruned_in_the_middle_stops_nothing(step: str) -> None:
    circle = Circle()
    circle.edit(activeSite="recovery")
    circle.until(step)
    circle.delete("FailoverPlan", "plan")
    circle.settle()
    assert circle.power["web-01"] == {HOME: False, AWAY: True}
    run = circle.vm.status.standing.run
    circle.apply_plan()
    circle.settle()
    assert circle.plan.status.phase is PlanPhase.AWAITING_COMMIT and circle.plan.status.active_run == run
    assert len(circle.runs()) == 1
    circle.edit(commit=run)
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.COMMITTED and circle.violations == []


@pytest.mark.parametrize("step", ["FinalPoint", "Fence", "SelectPoint", "Hydrate", "StartMachine", "Probe"])
@pytest.mark.parametrize("carried_out", [False, True])
def test_a_run_that_is_pruned_in_the_middle_goes_on(step: str, *, carried_out: bool) -> None:
    circle = Circle("web-01", "web-02")
    circle.edit(activeSite="recovery")
    circle.until(step)
    if carried_out:
        circle.work()
    (run,) = circle.runs()
    circle.delete("FailoverRun", run.metadata.name)
    circle.settle()
    assert [one.metadata.name for one in circle.runs()] == [run.metadata.name] or step == "FinalPoint"
    assert circle.violations == []
    assert all(sum(power.values()) == 1 for power in circle.power.values())


def test_a_finished_run_that_is_pruned_can_still_be_committed() -> None:
    circle = Circle()
    run = moved(circle)
    circle.delete("FailoverRun", run)
    circle.settle()
    circle.edit(commit=run)
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.COMMITTED and circle.violations == []


STEPS = [
    ("recovery", "FinalPoint"), ("recovery", "Fence"), ("recovery", "SelectPoint"), ("recovery", "Hydrate"),
    ("recovery", "StartMachine"), ("recovery", "Probe"),
    ("source", "FinalPoint"), ("source", "Fence"), ("source", "WriteBack"), ("source", "StartSource"),
    ("source", "Probe"),
]  # fmt: skip


@pytest.mark.parametrize(("to", "step"), STEPS)
@pytest.mark.parametrize("carried_out", [False, True])
def test_a_cluster_that_is_rebuilt_in_the_middle_of_a_run_goes_on(to: str, step: str, *, carried_out: bool) -> None:
    circle = Circle("web-01", "web-02", commit="Manual")
    if to == "source":
        run = moved(circle)
        circle.edit(commit=run, reprotect=run)
        circle.settle()
    circle.edit(activeSite=to)
    circle.until(step)
    if carried_out:
        circle.work()
    begun = list(circle.begun)
    circle.build()
    circle.settle()
    assert circle.violations == []
    place = AWAY if to == "recovery" or (step == "FinalPoint" and not carried_out) else HOME
    if step != "FinalPoint" or carried_out:
        assert all(power == {HOME: place == HOME, AWAY: place == AWAY} for power in circle.power.values())
        assert circle.begun == begun, "no run was begun anew"
        assert circle.plan.status.phase is PlanPhase.AWAITING_COMMIT, circle.plan.status
    else:
        assert all(sum(power.values()) == 1 for power in circle.power.values())


def test_a_cluster_that_is_rebuilt_at_rest_knows_where_everything_is() -> None:
    circle = Circle(commit="Automatic", reprotect="Automatic")
    for site, phase in (("recovery", ProtectionPhase.PROTECTED_REVERSE), ("source", ProtectionPhase.PROTECTED)):
        circle.edit(activeSite=site)
        circle.settle()
        epoch = circle.epochs["web-01"]
        circle.build()
        circle.settle()
        assert circle.vm.status.phase is phase and circle.vm.status.active_site == site
        assert circle.epochs["web-01"] > epoch and circle.violations == []


def test_nothing_moves_or_replicates_until_the_vault_was_asked() -> None:
    circle = Circle()
    moved(circle)
    circle.connected.clear()
    circle.build()
    circle.settle()
    vm = circle.vm
    assert vm.status.active_site is None and vm.status.assignment is None
    assert circle.plan.status.edit is None and vm.status.condition("Ready").reason == "ProcessServerNotConnected"


def test_old_records_go_and_nothing_is_forgotten() -> None:
    circle = Circle(commit="Automatic", reprotect="Automatic", runsHistoryLimit=2)
    for site in ("recovery", "source", "recovery", "source", "recovery"):
        circle.edit(activeSite=site)
        circle.settle()
    assert len(circle.begun) == 13
    kept = [run.metadata.name for run in circle.runs()]
    assert circle.begun[-2:] == kept[-2:] and len(kept) <= 4, "the newest, and what the machine's standing rests on"
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE
    circle.build()
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE and circle.violations == []
    assert len(circle.runs()) <= 4


def test_a_deletion_of_everything_by_a_person_is_no_reason_to_move() -> None:
    circle = Circle(commit="Automatic", reprotect="Automatic")
    circle.edit(activeSite="recovery")
    circle.settle()
    for run in circle.runs():
        circle.delete("FailoverRun", run.metadata.name)
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE and circle.power["web-01"][AWAY]
    assert circle.violations == []


def test_a_plan_that_is_created_with_another_site_moves_nothing() -> None:
    circle = Circle(activeSite="recovery")
    assert circle.runs() == [] and circle.plan.status.edit.reason == "CreatedAtRecovery"
    circle.edit(activeSite="source")
    circle.settle()
    run = moved(circle)
    circle.edit(commit=run, reprotect=run)
    circle.settle()
    circle.plan_spec["activeSite"] = "source"
    circle.build()
    circle.settle()
    assert circle.runs("Failback") == [] and circle.plan.status.edit.reason == "CreatedAtSource"
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE and circle.violations == []


def _hooked() -> Circle:
    hooks = {
        "before": [{"name": "stop", "http": {"url": "http://a.example"}, "onFailure": "Continue", "timeout": "1s"}],
        "after": [{"name": "tell", "http": {"url": "http://a.example"}, "onFailure": "Continue", "timeout": "1s"}],
    }
    groups = [
        {"name": group, "members": [{"name": name}], **hooks} for group, name in (("one", "web-01"), ("two", "web-02"))
    ]
    return Circle("web-01", "web-02", groups=groups)


def _passed(circle: Circle) -> set[str]:
    steps = circle.runs()[0].status.steps
    return {one.name for one in steps if not one.member and one.message == PASSED}


@pytest.mark.parametrize(
    "rounds", [pytest.param(count, id=f"after {count} decisions") for count in (4, 8, 12, 16, 20, 24, 28, 32)]
)
def test_a_hook_that_ended_is_not_called_again_whenever_the_control_plane_is_lost(rounds: int) -> None:
    circle = _hooked()
    circle.edit(activeSite="recovery")
    for _ in range(rounds):
        for kind, name in list(circle.objects()):
            circle.reconcile(kind, name)
        circle.work()
        circle.now += timedelta(seconds=1)
    steps = circle.runs()[0].status.steps if circle.runs() else ()
    runs = [run for journal in circle.journals.values() for run in journal.values()]
    noted = {step.step for run in runs for step in run.steps if "/" in step.step}
    begun = {one.member for one in steps}
    assert "web-01" not in begun or "one/before/stop" in noted, "a hook is in the vault before anything follows it"
    assert "web-02" not in begun or {"one/before/stop", "one/after/tell", "two/before/stop"} <= noted
    circle.build()
    circle.called.clear()
    circle.settle()
    assert not noted & set(circle.called) and noted <= _passed(circle)
    assert circle.violations == []


@pytest.mark.parametrize(
    ("step", "skipped", "left"),
    [
        pytest.param("Hydrate", {"one/before/stop"}, {"one/after/tell", "two/before/stop"}, id="in the first group"),
        pytest.param(
            "Probe", {"one/before/stop"}, {"one/after/tell", "two/before/stop"}, id="at the end of the first group"
        ),
    ],
)
def test_a_hook_whose_turn_was_over_is_not_called_again(step: str, skipped: set[str], left: set[str]) -> None:
    circle = _hooked()
    circle.edit(activeSite="recovery")
    circle.until(step)
    circle.build()
    for _ in range(6):
        for kind, name in list(circle.objects()):
            circle.reconcile(kind, name)
        circle.work()
    steps = {one.name: one.phase.value for one in circle.runs()[0].status.steps if not one.member}
    assert {name for name, phase in steps.items() if phase == "Skipped"} == skipped
    assert not left & {name for name, phase in steps.items() if phase == "Skipped"}


def test_a_failback_needs_a_finished_reprotect_and_the_end_of_one_starts_nothing() -> None:
    circle = Circle()
    run = moved(circle)
    circle.edit(commit=run)
    circle.settle()
    circle.edit(activeSite="source", reprotect=run)
    circle.settle()
    assert circle.vm.status.phase is ProtectionPhase.PROTECTED_REVERSE
    assert circle.runs("Failback") == [] and circle.plan.status.edit.reason == "NotProtectedReverse"
    assert circle.power["web-01"] == {HOME: False, AWAY: True}


def test_a_planned_failover_recovers_the_last_point_whatever_recovery_point_says() -> None:
    circle = Circle(recoveryPoint="p-1")
    circle.edit(activeSite="recovery")
    circle.until("Hydrate")
    selected = circle.body("Task", f"{circle.runs()[0].metadata.name}-web-01-selectpoint")["spec"]["input"]["selector"]
    assert selected == circle.points["web-01"][-1].name != "p-1"


def test_the_inputs_of_a_large_run_fit_into_each_of_its_tasks() -> None:
    circle = Circle()
    moved(circle)
    spec = circle.runs()[0].spec
    members = tuple(
        spec.members[0].model_copy(update={"protected_vm": f"web-{number:04d}", "uid": f"{number:036d}"})
        for number in range(1000)
    )
    large = spec.model_copy(update={"members": members})
    assert spec_of(journalled(large)) == large and len(journalled(large)) < 50_000
    assert spec_of(journalled(spec)) == spec and spec_of('{"gzip": "bm8="}') is None


@pytest.mark.parametrize("field", ["activeSite", "abort"])
def test_what_is_asked_for_while_the_vault_is_read_does_not_begin_later(field: str) -> None:
    circle = Circle()
    run = moved(circle)
    circle.edit(commit=run, reprotect=run)
    circle.settle()
    if field == "abort":
        circle.edit(activeSite="source")
        circle.settle()
        run = str(circle.plan.status.active_run)
    begun = list(circle.begun)
    circle.fail.add(TaskKind.READ_JOURNAL)
    circle.delete("FailoverRun", run)
    circle.settle()
    circle.edit(**({"abort": run} if field == "abort" else {"activeSite": "source"}))
    circle.settle()
    assert circle.plan.status.condition("Ready").reason == "ReadingHistory"
    circle.now += timedelta(days=1)
    circle.settle()
    assert circle.begun == begun and circle.violations == []


@pytest.mark.parametrize("step", ["StartMachine", "Probe"])
def test_a_run_that_was_called_off_stays_so_in_a_fresh_control_plane(step: str) -> None:
    """That it was called off is in no journal: it went on, and started the machine beside the one at home."""
    circle = Circle()
    circle.edit(activeSite="recovery")
    circle.until(step)
    circle.edit(abort=circle.runs()[0].metadata.name)
    circle.settle()
    circle.plan_spec.pop("abort")
    circle.build()
    circle.settle()
    assert circle.violations == [] and circle.power["web-01"] == {HOME: True, AWAY: False}


def test_a_process_server_may_log_in_from_the_first_task_of_a_run_to_the_last() -> None:
    """The right went with each task and came back with the next, whose beginning had to wait for it."""
    circle = Circle()
    away = circle.get("ProcessServer", AWAY)
    assert "ssh" not in observe(circle.world, away).secrets
    body = circle.body("ProtectedVM", "web-01")
    circle._write("ProtectedVM", {**body, "status": {**body["status"], "activeRun": "run"}})
    assert "ssh" in observe(circle.world, away).secrets
