"""The driver's decisions as tables: what an item shows, and what is done about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from farshore_engine.contract.assignment import Desired, Policy
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.contract.replication import ReplicationReport, State
from farshore_engine.contract.tasks import TaskInput, TaskKind, TaskPhase, TaskReport
from farshore_operator.engines.siterecovery.decide import machine, task
from farshore_operator.engines.siterecovery.facts import Item, Job, Points, Problem
from farshore_operator.engines.siterecovery.settings import VaultSettings
from farshore_operator.engines.siterecovery.target import TargetWish
from farshore_operator.engines.siterecovery.wishes import MachineWish, TaskWish, VaultWish

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
POINT = RecoveryPoint(name="p1", slot=1, time=NOW, consistency=Consistency.CRASH)
VAULT = VaultWish("dr", "asr", VaultSettings("s", "g", "v"))
ALL = frozenset({"UnplannedFailover", "DisableProtection", "TestFailover"})


def item(**more: Any) -> Item:
    given: dict[str, Any] = {
        "id": "/i", "name": "i", "fabric": "f", "container": "c", "friendly": "web1", "scenario": "InMageAzureV2",
        "address": "10.0.0.11", "state": "Protected", "state_text": "Protected", "location": "Primary",
        "drill": "None", "allowed": ALL, "health": "Normal", "policy": "p", "agent_version": "9.63", **more,
    }  # fmt: skip
    return Item(**given)


def wish(desired: Desired = Desired.REPLICATE, report: ReplicationReport | None = None) -> MachineWish:
    return MachineWish("web1", "dr.web1", 3, desired, "10.0.0.11", False, Policy(), TargetWish("/g"), report=report)


@pytest.mark.parametrize(
    ("shown", "points", "desired", "state"),
    [
        (item(), 1, Desired.REPLICATE, State.REPLICATING),
        (item(), 0, Desired.REPLICATE, State.INITIAL),
        (item(state="InitialReplicationInProgress"), 0, Desired.REPLICATE, State.INITIAL),
        (item(state="UnprotectedStatesBegin", agent_version=""), 0, Desired.REPLICATE, State.INSTALLING),
        (item(state="ANewWordOfMicrosofts"), 1, Desired.REPLICATE, State.REPLICATING),
        (item(state="ANewWordOfMicrosofts"), 0, Desired.REPLICATE, State.INITIAL),
        (item(resync=True), 1, Desired.REPLICATE, State.RESYNC),
        (item(state="EnablingFailed"), 0, Desired.REPLICATE, State.BLOCKED),
        (item(state="UnplannedFailoverCancelled"), 1, Desired.REPLICATE, State.BLOCKED),
        (item(location="Recovery"), 1, Desired.STOP, State.STOPPED),
        (item(location="Recovery"), 1, Desired.REPLICATE, State.BLOCKED),
        (item(switched_to="/other"), 1, Desired.REPLICATE, State.STOPPED),
        (item(problems=(Problem("78188", "too much churn"),)), 1, Desired.REPLICATE, State.REPLICATING),
        (item(), 1, Desired.PAUSE, State.REPLICATING),
        (None, 0, Desired.UNINSTALL, State.UNINSTALLED),
        (None, 0, Desired.REPLICATE, State.WAITING),
        (None, 0, Desired.STOP, State.STOPPED),
    ],
    ids=["protected", "no point yet", "copying", "installing", "unknown state with points", "unknown state", "resync",
         "enabling failed", "failover cancelled", "failed over", "failed over outside", "switched", "unwell", "paused",
         "disabled", "no vault", "stopped"],
)  # fmt: skip
def test_what_an_item_shows_is_told_in_the_words_of_every_engine(
    shown: Item | None, points: int, desired: Desired, state: State
) -> None:
    view = machine.MachineView(wish(desired), VAULT, item=shown, points=Points((POINT,) * points))
    verdict = machine.decide(view, NOW)
    assert (verdict.report.state, verdict.call) == (state, None)
    assert (verdict.report.process_server, verdict.report.epoch) == ("siterecovery-asr", 3)
    assert state is not State.BLOCKED or verdict.report.remedy


@pytest.mark.parametrize(
    ("shown", "call"),
    [
        (item(), "DisableProtection"),
        (item(allowed=frozenset()), ""),
        (item(job="j", doing="UnplannedFailover"), ""),
        (item(drill="WaitingForCompletion", allowed=frozenset({"TestFailoverCleanup"}), job="j"), ""),
    ],
    ids=["allowed", "not allowed", "busy", "a drill waits"],
)
def test_protection_is_disabled_only_where_that_is_allowed(shown: Item, call: str) -> None:
    verdict = machine.decide(machine.MachineView(wish(Desired.UNINSTALL), VAULT, item=shown), NOW)
    assert (verdict.call.name if verdict.call else "") == call and verdict.report.message


def _task(kind: TaskKind, report: TaskReport | None = None) -> TaskWish:
    return TaskWish("t", kind, TaskInput(machine_id="dr.web1"), "web1", "run", NOW - timedelta(minutes=1), report)


RUNNING = TaskReport(
    phase=TaskPhase.RUNNING, started_at=NOW, operation=Operation(call="Failover", job="j", begun_at=NOW)
)
DRILLED = {"drill": "WaitingForCompletion", "allowed": frozenset({"TestFailoverCleanup"})}


@pytest.mark.parametrize(
    ("kind", "report", "shown", "job", "phase", "call"),
    [
        (TaskKind.FAILOVER, None, item(), None, TaskPhase.RUNNING, "Failover"),
        (TaskKind.FAILOVER, RUNNING, item(allowed=frozenset(), job="j"), Job("j", "x", "InProgress"),
         TaskPhase.RUNNING, ""),
        (TaskKind.FAILOVER, RUNNING, item(), Job("j", "x", "Failed"), TaskPhase.FAILED, ""),
        (TaskKind.FAILOVER, RUNNING, item(), Job("j", "x", "ANewState"), TaskPhase.RUNNING, ""),
        (TaskKind.FAILOVER, RUNNING, item(location="Recovery"), Job("j", "x", "Succeeded"), TaskPhase.SUCCEEDED, ""),
        (TaskKind.FAILOVER, None, item(allowed=frozenset()), None, TaskPhase.RUNNING, ""),
        (TaskKind.FAILOVER, None, item(**DRILLED), None, TaskPhase.FAILED, ""),
        (TaskKind.FAILOVER, None, None, None, TaskPhase.FAILED, ""),
        (TaskKind.CLEAN_UP, None, item(**DRILLED, last_drill=NOW), None, TaskPhase.RUNNING, "CleanUpTest"),
        (TaskKind.CLEAN_UP, None, item(**DRILLED, last_drill=NOW - timedelta(hours=1)), None, TaskPhase.SUCCEEDED, ""),
        (TaskKind.CLEAN_UP, None, item(**DRILLED), None, TaskPhase.FAILED, ""),
        (TaskKind.CLEAN_UP, None, item(drill="MarkedForDeletion"), None, TaskPhase.SUCCEEDED, ""),
        (TaskKind.COMMIT, None, item(location="Recovery", allowed=frozenset({"Commit"})), None, TaskPhase.RUNNING,
         "Commit"),
        (TaskKind.COMMIT, None, item(location="Recovery", allowed=frozenset({"ReverseReplicate"})), None,
         TaskPhase.SUCCEEDED, ""),
        (TaskKind.HYDRATE, None, item(), None, TaskPhase.FAILED, ""),
        (TaskKind.SELECT_POINT, None, item(), None, TaskPhase.FAILED, ""),
    ],
    ids=["begun", "goes on", "failed", "in an unknown state", "done", "not allowed yet", "in the way of a drill",
         "not protected", "own drill", "another's drill", "drill of unknown age", "cleaned up", "commit", "committed",
         "a step of the native engine", "no point"],
)  # fmt: skip
def test_a_step_follows_from_what_the_item_allows_and_the_job_says(
    kind: TaskKind, report: TaskReport | None, shown: Item | None, job: Job | None, phase: TaskPhase, call: str
) -> None:
    verdict = task.decide(task.TaskView(_task(kind, report), shown, job=job), NOW)
    assert (verdict.report.phase, verdict.call.name if verdict.call else "") == (phase, call)
    assert phase is not TaskPhase.FAILED or verdict.report.remedy
