"""Hooks of a plan: what is begun, once, what its end means to the run, and who may approve."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.decide_world import NOW, meta, observed, run

from farshore_engine.contract.tasks import JournalledRun, JournalledStep, TaskPhase
from farshore_operator.api import Approval, FailoverRun, Task
from farshore_operator.api.failoverrun import RunPhase, StepPhase
from farshore_operator.decide import failoverrun, hooks
from farshore_operator.decide.actions import CallService, CreateOwned, HookAnswered, JobFacts, JobState, RunJob
from farshore_operator.decide.runjournal import ObservedRun
from farshore_operator.report.invariants import violations

JOB = {"name": "dump", "job": {"image": "tools:1", "command": ["dump"]}}
CALL = {"name": "lb", "http": {"url": "https://lb.example/drain?token=x"}}
ASK = {"name": "go", "approval": {"message": "Is it dark?", "users": ["ann", "bob"], "groups": ["dba"], "count": 2}}
STEP = "web/before/"
DUMP = "a-run-web-before-dump"


def a_run(*before: dict[str, Any], kind: str = "Failover", after: Any = (), phase: Any = None, **status: Any) -> Any:
    base = run(kind, phase)
    group = {"name": "web", "before": [*before], "after": [*after]}
    body = base.dump()
    body["spec"] |= {"groups": [group], "members": [{**body["spec"]["members"][0], "group": "web"}]}
    body["status"] = {**body.get("status", {}), **status}
    return FailoverRun.of({**body, "metadata": meta("a-run", creationTimestamp=NOW.isoformat())})


def noted(*steps: str) -> dict[str, JournalledRun]:
    """What the vault's journal has when these hooks are over."""
    made = tuple(JournalledStep(step=step, phase=TaskPhase.SUCCEEDED, at=NOW) for step in steps)
    return {"web-01": JournalledRun(run="a-run", spec="", begun_at=NOW, steps=made)}


def seen(found: FailoverRun, **more: Any) -> ObservedRun:
    return ObservedRun(found, {}, {"web-01": observed()}, frozenset({"ps-stack", "ps-shore"}), False, **more)


def decided(found: FailoverRun, at: datetime = NOW, **more: Any) -> tuple[Any, list[Any], FailoverRun]:
    """Return the hook's step, the actions, and the run with its new status."""
    decision = failoverrun.decide(seen(found, **more), at)
    assert decision.status is not None
    assert violations(found, decision.status, at) == []
    step = next((step for step in decision.status.steps if hooks.is_hook(step)), None)
    actions = [action for action in decision.actions if not _reports(action)]
    return step, actions, found.model_copy(update={"status": decision.status})


def kinds(actions: Any) -> list[str]:
    return [action.spec["kind"] for action in actions if isinstance(action, CreateOwned)]


def _reports(action: Any) -> bool:
    """Tell whether an action writes the report of a run that is over, of which nothing is said here."""
    return isinstance(action, CreateOwned) and action.spec["kind"] == "WriteReport"


def approval(user: str, *groups: str, answer: str = "Approve", at: datetime = NOW, hook: str = "go") -> Approval:
    spec = {"run": "a-run", "hook": hook, "answer": answer, "user": user, "groups": [*groups], "comment": "not yet"}
    return Approval.of({"metadata": meta(f"by-{user}", creationTimestamp=at.isoformat()), "spec": spec})


def test_the_machines_wait_for_the_hook_before_them() -> None:
    step, actions, after = decided(a_run(JOB))
    assert step.name == f"{STEP}dump" and step.phase is StepPhase.RUNNING
    assert [type(action) for action in actions] == [RunJob], "no task yet"
    (made,) = actions
    assert made.name == DUMP and made.environment["FARSHORE_MACHINES"] == "web-01"
    assert decided(after)[1] == actions, "a killed operator asks for the same Job again"
    assert decided(after, jobs={DUMP: JobFacts(JobState.RUNNING, "1 pod")})[1] == [], "and not for one that exists"


@pytest.mark.parametrize(
    ("on_failure", "phase", "rolls_back"),
    [
        pytest.param("Stop", RunPhase.FAILED, False, id="stop"),
        pytest.param("Continue", RunPhase.RUNNING, False, id="continue"),
        pytest.param("RollBack", RunPhase.FAILED, True, id="roll-back"),
    ],
)
def test_a_job_that_failed(on_failure: str, phase: RunPhase, rolls_back: bool) -> None:
    begun = decided(a_run({**JOB, "onFailure": on_failure}))[2]
    step, actions, ended = decided(begun, jobs={DUMP: JobFacts(JobState.FAILED, "BackoffLimitExceeded")})
    assert step.phase is StepPhase.FAILED and "BackoffLimitExceeded" in step.message and "logs job/" in step.remedy
    assert ended.status.phase is phase
    assert hooks.rolls_back(ended) is rolls_back
    goes_on = phase is RunPhase.RUNNING
    assert kinds(actions) == (["Note"] if goes_on else [])
    assert kinds(decided(ended, history=noted(f"{STEP}dump"))[1]) == (["Fence"] if goes_on else [])
    if phase is RunPhase.FAILED:
        assert "logs job/" in ended.status.next_step


def test_a_job_that_is_complete_lets_the_machines_begin() -> None:
    begun = decided(a_run(JOB))[2]
    step, actions, ended = decided(begun, jobs={DUMP: JobFacts(JobState.COMPLETE, "")})
    assert step.phase is StepPhase.SUCCEEDED and ended.status.phase is RunPhase.RUNNING
    assert kinds(actions) == ["Note"], "the vault hears of it before anything else is done"
    assert kinds(decided(ended, history=noted(f"{STEP}dump"))[1]) == ["Fence"]


@pytest.mark.parametrize(
    ("report", "later", "expected"),
    [
        pytest.param(None, timedelta(0), [], id="asked-for"),
        pytest.param(TaskPhase.RUNNING, timedelta(minutes=1), [], id="being-written"),
        pytest.param(TaskPhase.SUCCEEDED, timedelta(0), ["Fence"], id="written"),
        pytest.param(TaskPhase.FAILED, timedelta(0), ["Fence"], id="cannot-be-written"),
        pytest.param(None, timedelta(minutes=11), ["Fence"], id="nobody-writes-it"),
    ],
)
def test_a_run_waits_a_while_until_the_vault_knows_of_a_hook(
    report: TaskPhase | None, later: timedelta, expected: list[str]
) -> None:
    begun = decided(a_run(JOB))[2]
    _, actions, ended = decided(begun, jobs={DUMP: JobFacts(JobState.COMPLETE, "")})
    (made,) = actions
    body = {"metadata": meta(made.name), "spec": dict(made.spec)}
    task = Task.of({**body, "status": {"phase": report.value}} if report else body)
    found = ObservedRun(ended, {made.name: task}, {"web-01": observed()}, frozenset({"ps-stack", "ps-shore"}), False)
    decision = failoverrun.decide(found, NOW + later)
    assert kinds(decision.actions) == expected


def test_nobody_waits_for_a_process_server_that_is_away_to_note_a_hook() -> None:
    begun = decided(a_run(JOB))[2]
    alone = ObservedRun(
        begun, {}, {"web-01": observed()}, frozenset(), False, jobs={DUMP: JobFacts(JobState.COMPLETE, "")}
    )
    assert "Note" not in kinds(failoverrun.decide(alone, NOW).actions)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        pytest.param(JobFacts(JobState.RUNNING, "1 pod"), "has not ended by", id="that-never-ends"),
        pytest.param(JobFacts(JobState.COMPLETE, "", foreign=True), "another Job", id="of-somebody-else-complete"),
        pytest.param(JobFacts(JobState.RUNNING, "", foreign=True), "another Job", id="of-somebody-else"),
    ],
)
def test_a_job(facts: JobFacts, word: str) -> None:
    begun = decided(a_run(JOB))[2]
    assert word in decided(begun, NOW + timedelta(minutes=12), jobs={DUMP: facts})[0].message


def test_a_call_is_repeated_until_its_time_is_up() -> None:
    step, (call,), begun = decided(a_run(CALL))
    assert isinstance(call, CallService) and call.key == "uid-a-run/web/before/lb"
    assert '"machines": ["web-01"]' in call.body
    again = hooks.fold(begun.status, HookAnswered(step.name, None, "it answered 503", NOW))
    assert again.steps[-1].phase is StepPhase.RUNNING or again.steps[0].phase is StepPhase.RUNNING
    waiting = begun.model_copy(update={"status": again})
    assert decided(waiting)[1] == [call]
    late, actions, ended = decided(waiting, NOW + timedelta(minutes=10))
    assert late.phase is StepPhase.FAILED and "503" in late.message and actions == []
    assert ended.status.phase is RunPhase.FAILED


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_the_answer_ends_the_step(good: bool) -> None:
    step, _, begun = decided(a_run(CALL))
    folded = hooks.fold(begun.status, HookAnswered(step.name, good, "it answered", NOW, "look"))
    ended = decided(begun.model_copy(update={"status": folded}))[2]
    assert ended.status.phase is (RunPhase.RUNNING if good else RunPhase.FAILED)
    late = hooks.fold(ended.status, HookAnswered(step.name, not good, "a late echo", NOW))
    assert late == ended.status, "what is over stays over"


YES_YES = (approval("ann"), approval("bob"))


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        pytest.param((), StepPhase.RUNNING, id="nobody"),
        pytest.param((approval("ann"),), StepPhase.RUNNING, id="one-of-two"),
        pytest.param(YES_YES, StepPhase.SUCCEEDED, id="two-users"),
        pytest.param((approval("ann"), approval("zoe", "dba")), StepPhase.SUCCEEDED, id="a-user-and-one-of-the-group"),
        pytest.param((approval("ann"), approval("ann")), StepPhase.RUNNING, id="the-same-person-twice"),
        pytest.param((approval("ann"), approval("zoe", "ops")), StepPhase.RUNNING, id="one-of-another-group"),
        pytest.param((approval("ann"), approval("mallory")), StepPhase.RUNNING, id="somebody-who-may-not"),
        pytest.param(
            (*YES_YES, approval("zoe", "dba", answer="Reject")), StepPhase.FAILED, id="a-rejection-weighs-more"
        ),
        pytest.param((*YES_YES, approval("mallory", answer="Reject")), StepPhase.SUCCEEDED, id="not-a-strangers"),
        pytest.param(
            (approval("ann"), approval("bob", at=NOW - timedelta(seconds=1))), StepPhase.RUNNING, id="before-it-waited"
        ),
        pytest.param((approval("ann"), approval("bob", hook="other")), StepPhase.RUNNING, id="of-another-hook"),
        pytest.param((approval("ann"), approval("bob", hook=f"{STEP}go")), StepPhase.SUCCEEDED, id="by-the-steps-name"),
    ],
)
def test_who_approves(said: tuple[Approval, ...], phase: StepPhase) -> None:
    begun = decided(a_run(ASK))[2]
    assert decided(begun, approvals=said)[0].phase is phase


def test_a_run_that_waits_for_people_is_ready_and_says_for_whom() -> None:
    step, actions, begun = decided(a_run(ASK))
    assert actions == []
    assert begun.status.condition("Ready").status == begun.status.condition("AwaitingApproval").status == "True"
    assert "2 of ann, bob or group dba" in step.message and "Is it dark?" in step.message
    assert begun.status.next_step == f"farshore approve a-run {STEP}go"
    assert decided(begun, NOW + timedelta(days=30))[0].phase is StepPhase.RUNNING, "without limit"


def test_an_approval_may_have_a_limit() -> None:
    begun = decided(a_run({**ASK, "timeout": "1h"}))[2]
    step, _, ended = decided(begun, NOW + timedelta(hours=1), approvals=YES_YES[:1])
    assert step.phase is StepPhase.FAILED and "1 of 2" in step.message
    assert ended.status.phase is RunPhase.FAILED


def test_what_somebody_rejected_says_who_and_why() -> None:
    begun = decided(a_run(ASK))[2]
    assert decided(begun, approvals=(approval("ann", answer="Reject"),))[0].message == "ann rejected it: not yet"


@pytest.mark.parametrize("hook", [JOB, CALL, ASK], ids=["job", "http", "approval"])
def test_a_drill_runs_only_the_hooks_that_are_for_drills(hook: dict[str, Any]) -> None:
    step, actions, _ = decided(a_run(hook, kind="TestFailover"))
    assert step.phase is StepPhase.SKIPPED and [type(action) for action in actions] == [CreateOwned]
    step, actions, _ = decided(a_run({**hook, "inDrills": True}, kind="TestFailover"))
    assert step.phase is StepPhase.RUNNING and not any(isinstance(action, CreateOwned) for action in actions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("web/before/dump", "db/before/dump"),
        ("Web Tier (1)/before/dump", "Web Tier [1]/before/dump"),
        ("a/b/x" * 20, "a/b/y" * 20),
    ],
    ids=["plain", "signs", "long"],
)
def test_each_hook_has_a_job_of_its_own_with_a_name_that_the_cluster_takes(one: str, other: str) -> None:
    names = {hooks.job_name("a-run", step) for step in (one, other)}
    assert len(names) == 2
    assert all(re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)


def test_hooks_of_a_list_follow_each_other() -> None:
    begun = decided(a_run(JOB, CALL))[2]
    assert [step.name for step in begun.status.steps if hooks.is_hook(step)] == [f"{STEP}dump"]
    ended = decided(begun, jobs={DUMP: JobFacts(JobState.COMPLETE, "")})[2]
    _, actions, after = decided(ended, history=noted(f"{STEP}dump"))
    assert [type(action) for action in actions] == [CallService]
    assert [step.name for step in after.status.steps if hooks.is_hook(step)] == [f"{STEP}dump", f"{STEP}lb"]


def many(parallel: int | None) -> FailoverRun:
    found = a_run()
    (member,) = found.spec.members
    names = ("web-01", "web-02", "web-03")
    members = tuple(member.model_copy(update={"protected_vm": name, "target_name": name}) for name in names)
    (group,) = found.spec.groups
    spec = {"members": members, "groups": (group.model_copy(update={"max_parallel": parallel}),)}
    return found.model_copy(update={"spec": found.spec.model_copy(update=spec)})


@pytest.mark.parametrize(("parallel", "asked"), [(None, 3), (1, 1), (2, 2), (5, 3)])
def test_so_many_machines_at_a_time(parallel: int | None, asked: int) -> None:
    found = many(parallel)
    machines = {member.protected_vm: observed() for member in found.spec.members}
    rested = ObservedRun(found, {}, machines, frozenset({"ps-stack", "ps-shore"}), False)
    decision = failoverrun.decide(rested, NOW)
    assert len(decision.actions) == asked
    assert decision.status is not None and decision.status.phase is RunPhase.RUNNING
