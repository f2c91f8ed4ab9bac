"""A run that is over is reported into the vault, once for what is known of it, and again when more is known."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide_world import NOW, meta, observed, run

from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import FailoverRun, Task
from farshore_operator.decide import failoverrun
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.runjournal import ObservedRun

BEGUN = NOW - timedelta(minutes=5)
MEMBER: dict[str, Any] = {
    "protectedVM": "web-01",
    "point": {"name": "p-20250131t075900z-1", "slot": 1, "time": "2025-01-31T07:54:00Z", "consistency": "crash"},
    "rpoSeconds": 60.0,
    "rtoSeconds": 42.0,
    "probes": [{"name": "page", "passed": True, "answer": "/ answered 200 OK", "seconds": 12.5}],
}


def over(phase: str = "Succeeded", **more: Any) -> FailoverRun:
    steps = [
        {"name": "Prerequisites", "member": "", "phase": "Succeeded"},
        {"name": "Probe", "member": "web-01", "phase": "Succeeded", "finishedAt": NOW.isoformat()},
        {"name": "Probe", "member": "db-01", "phase": "Succeeded"},
    ]
    fields = {"startedAt": BEGUN.isoformat(), "finishedAt": NOW.isoformat(), "steps": steps, "members": [MEMBER]}
    return run("TestFailover", phase, **{**fields, **more})


def decided(done: FailoverRun, *tasks: Task, notes: str | None = None) -> Any:
    found = ObservedRun(
        run=done,
        tasks={task.metadata.name: task for task in tasks},
        machines={"web-01": observed()},
        connected=frozenset({"ps-shore", "ps-stack"}),
        clean_up=False,
        notes=notes,
    )
    return failoverrun.decide(found, NOW)


def asked(decision: Any) -> list[CreateOwned]:
    return [
        action
        for action in decision.actions
        if isinstance(action, CreateOwned) and action.spec.get("kind") == TaskKind.WRITE_REPORT.value
    ]


def made(action: CreateOwned, **status: Any) -> Task:
    body = {"metadata": meta(action.name), "spec": action.spec, **({"status": status} if status else {})}
    return Task.of(body)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_run_that_is_over_is_reported_for_each_machine(phase: str) -> None:
    (task,) = asked(decided(over(phase), notes="the shop was there"))
    assert task.spec["processServer"] == "ps-shore"
    report = json.loads(task.spec["input"]["report"])
    assert report["machine"] == "shop.web-01"
    assert (report["rpoSeconds"], report["rtoSeconds"]) == (60.0, 42.0)
    assert report["recoveryPoint"] == "p-20250131t075900z-1"
    assert report["probes"] == [{"name": "page", "result": "Passed", "answer": "/ answered 200 OK", "seconds": 12.5}]
    assert [step["name"] for step in report["steps"]] == ["Prerequisites", "Probe"], "of this machine only"
    assert report["notes"] == "the shop was there"


def test_a_run_that_is_under_way_is_not_reported() -> None:
    assert asked(decided(over("Running", finishedAt=None))) == []


def test_it_is_reported_once_and_again_when_more_is_known() -> None:
    (first,) = asked(decided(over()))
    written = made(first, phase="Succeeded", result={"reportName": "a-run/000000"})
    assert asked(decided(over(), written)) == []
    (noted,) = asked(decided(over(), written, notes="looked at by ada"))
    assert noted.name != first.name
    (cleaned,) = asked(decided(over("CleanedUp"), written, made(noted), notes="looked at by ada"))
    assert cleaned.name not in (first.name, noted.name)


@pytest.mark.parametrize(
    ("status", "expected", "told"),
    [
        pytest.param({}, "False", "is being written", id="asked for"),
        pytest.param(
            {"phase": "Failed", "message": "the vault is away"}, "False", "the vault is away", id="it could not be"
        ),
        pytest.param(
            {"phase": "Succeeded", "result": {"reportName": "a-run/000000"}},
            "True",
            "farshore vault report shop.web-01 a-run",
            id="written",
        ),
    ],
)
def test_the_run_says_whether_its_report_is_in_the_vault(status: dict[str, Any], expected: str, told: str) -> None:
    (task,) = asked(decided(over()))
    made_status = decided(over(), made(task, **status)).status
    condition = made_status.condition("ReportWritten")
    assert condition.status.value == expected
    assert told in condition.message
    assert made_status.phase.value == "Succeeded", "a report that cannot be written fails nothing"
    assert made_status.members[0].report == (status.get("result") or {}).get("reportName")
