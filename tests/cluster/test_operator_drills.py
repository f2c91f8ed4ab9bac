"""Scheduled drills and reports through the real API, played by two registered appliances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cluster.operator_process import Installation, condition, message
from tests.cluster.test_operator_runs import PLAN, Scene, scene  # noqa: F401
from tests.cluster.waiting import eventually

from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import FailoverPlan, FailoverRun, TestFailover
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.testfailover import TestFailoverPhase
from farshore_operator.kube.resources import FAILOVER_PLAN


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("drills")) as up:
        yield up


def _started(stage: Scene, due: datetime) -> bool:
    """Let the plan's next drill be due, and tell whether it was made.

    The status is the operator's: one that it had decided on before it saw our time is written over that.
    """
    if stage.world.all(TestFailover, stage.namespace):
        return True
    if stage.get(FailoverPlan, PLAN).status.next_drill != due:
        told = json.dumps({"status": {"nextDrill": due.strftime("%Y-%m-%dT%H:%M:%SZ")}})
        patch = ("patch", "failoverplan", PLAN, "--subresource=status", "--type=merge", "-p", told)
        stage.world.plane.kubectl("-n", stage.namespace, *patch)
    return False


def test_a_drill_is_made_at_its_time_reported_cleaned_up_and_remembered(scene: Scene, tmp_path: Path) -> None:  # noqa: F811
    schedule = f"0 3 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"
    scene.plan(drill={"schedule": schedule, "cleanupAfter": "1s", "probes": [{"name": "page", "http": {}}]})
    plan = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.next_drill is not None)
    assert condition(plan, "DrillsScheduled") == "True"
    assert scene.world.all(TestFailover, scene.namespace) == []

    due = (datetime.now(UTC) - timedelta(minutes=1)).replace(second=0, microsecond=0)
    eventually(lambda: _started(scene, due), "no drill is made")
    plan = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.last_drill is not None)
    name = plan.status.last_drill.name
    assert name == f"{PLAN}-{due:%Y%m%d-%H%M}"
    assert plan.status.next_drill > datetime.now(UTC), "the next one is at the schedule's own time"

    drill = scene.wait(TestFailover, name, lambda drill: drill.status.phase is TestFailoverPhase.CLEANED_UP)
    assert [probe.name for probe in drill.spec.probes] == ["page"]
    assert "looked for and not found: everything" in message(drill, "CleanedUp")
    (run,) = scene.runs(RunKind.TEST_FAILOVER)
    run = scene.wait(FailoverRun, run.metadata.name, lambda run: condition(run, "ReportWritten") == "True")
    assert f"farshore vault report {run.spec.members[0].machine_id} {run.metadata.name}" in message(
        run, "ReportWritten"
    )
    assert all(member.report == f"{run.metadata.name}/000000" for member in run.status.members)
    assert scene.shore.done[TaskKind.WRITE_REPORT] >= 1
    plan = scene.wait(FailoverPlan, PLAN, lambda plan: plan.status.last_drill.result == "Succeeded")
    assert plan.status.last_drill.rto_seconds is not None
    assert len(scene.world.all(TestFailover, scene.namespace)) == 1

    scene.world.admin.delete(FAILOVER_PLAN, scene.namespace, PLAN)
    eventually(lambda: not scene.world.all(TestFailover, scene.namespace), "its drill stays behind")
