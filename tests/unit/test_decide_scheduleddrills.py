"""Scheduled drills: one at its time, one for many that were missed, none while machines are moved, old ones go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.decide_world import NOW, meta, observed, run

from farshore_operator.api import FailoverPlan, FailoverRun, TestFailover
from farshore_operator.decide import failoverplan
from farshore_operator.decide.actions import CreateOwned, DeleteOwned
from farshore_operator.decide.naming import SCHEDULED_ANNOTATION
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.decide.runspec import Chosen

SATURDAY = datetime(2025, 2, 1, 3, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
KNOWN = {"nextDrill": SATURDAY.isoformat(), "drillSchedule": "0 3 * * 6", "activeSite": "source"}


def plan(status: dict[str, Any] | None = None, **drill: Any) -> FailoverPlan:
    spec: dict[str, Any] = {"groups": [{"name": "all", "members": [{"name": "web-01"}]}]}
    spec["drill"] = {"schedule": "0 3 * * 6", **drill}
    created = (NOW - timedelta(days=400)).isoformat()
    return FailoverPlan.of({"metadata": meta("shop", creationTimestamp=created), "spec": spec, "status": status or {}})


def drill(at: datetime, phase: str = "CleanedUp", succeeded: bool | None = True, **status: Any) -> TestFailover:
    name = f"shop-{at:%Y%m%d-%H%M}"
    told = {
        "type": "DrillSucceeded",
        "status": str(succeeded),
        "reason": "x",
        "message": "",
        "lastTransitionTime": at.isoformat(),
    }
    fields = {"phase": phase, "conditions": [told] if succeeded is not None else [], **status}
    given = meta(name, annotations={SCHEDULED_ANNOTATION: at.isoformat()})
    return TestFailover.of({"metadata": given, "spec": {"planRef": {"name": "shop"}}, "status": fields})


def seen(one: FailoverPlan, *drills: TestFailover, runs: tuple[FailoverRun, ...] = ()) -> ObservedPlan:
    machine = replace(observed(), runs=runs)
    return ObservedPlan(one, (Chosen(machine, "all"),), (), runs, drills=drills)


def decided(found: ObservedPlan, now: datetime) -> tuple[list[str], list[str], Any]:
    """Return the names of drills that begin and that go, and the plan's status."""
    decision = failoverplan.decide(found, now)
    begun = [a.name for a in decision.actions if isinstance(a, CreateOwned) and a.kind == "TestFailover"]
    gone = [a.target.name for a in decision.actions if isinstance(a, DeleteOwned)]
    return begun, gone, decision.status


def told(status: Any) -> tuple[str, str]:
    condition = status.condition("DrillsScheduled")
    return condition.reason, condition.message


def test_a_schedule_counts_from_when_it_is_first_seen() -> None:
    begun, _, status = decided(seen(plan()), NOW)
    assert begun == [], "what a year before would have been due is not made up for"
    assert status.next_drill == SATURDAY
    assert told(status) == ("Waiting", "the next drill is due 2025-02-01 03:00 UTC")


def test_a_drill_begins_at_its_time_once() -> None:
    late = SATURDAY + timedelta(seconds=20)
    found = seen(plan(KNOWN, network="drills", cleanupAfter="2h", probes=[{"name": "page", "http": {}}]))
    decision = failoverplan.decide(found, late)
    (made,) = [a for a in decision.actions if isinstance(a, CreateOwned)]
    assert (made.name, made.owner.kind, made.owner.name) == ("shop-20250201-0300", "FailoverPlan", "shop")
    assert made.spec["planRef"] == {"name": "shop"}
    assert (made.spec["network"], made.spec["cleanupAfter"]) == ("drills", "2h")
    assert [probe["name"] for probe in made.spec["probes"]] == ["page"]
    assert decided(found, late)[0] == [made.name], "an operator that was killed in between decides the same"
    status = decision.status
    assert status.next_drill == SATURDAY + WEEK
    after = plan(status.model_dump(mode="json", by_alias=True), network="drills", cleanupAfter="2h")
    assert decided(seen(after, drill(SATURDAY, "Running", None)), late)[0] == []


def test_many_that_were_missed_are_made_up_for_by_one() -> None:
    begun, _, status = decided(seen(plan(KNOWN)), SATURDAY + 3 * WEEK + timedelta(days=2))
    assert begun == ["shop-20250222-0300"]
    assert status.next_drill == SATURDAY + 4 * WEEK


def test_another_schedule_counts_anew() -> None:
    begun, _, status = decided(seen(plan(KNOWN, schedule="0 5 * * *")), SATURDAY + timedelta(minutes=1))
    assert begun == []
    assert status.next_drill == SATURDAY + timedelta(hours=2)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        pytest.param(seen(plan(KNOWN, suspend=True)), "Suspended", id="by hand"),
        pytest.param(seen(plan(KNOWN), runs=(run(),)), "RunUnderWay", id="a failover is under way"),
        pytest.param(
            seen(plan(KNOWN), drill(SATURDAY - WEEK, "Running", None)), "DrillUnderWay", id="the last one runs"
        ),
        pytest.param(
            seen(plan(KNOWN), drill(SATURDAY - WEEK, "Failed", False)), "DrillUnderWay", id="it is not cleaned up"
        ),
    ],
)
def test_a_drill_that_cannot_be_is_left_out_and_said(found: ObservedPlan, reason: str) -> None:
    begun, _, status = decided(found, SATURDAY)
    assert begun == []
    assert told(status)[0] == reason
    assert "2025-02-01 03:00" in told(status)[1]
    assert status.next_drill == SATURDAY + WEEK, "it is not made up for in the middle of the day"


def test_a_time_that_never_comes_is_said() -> None:
    begun, _, status = decided(seen(plan(schedule="0 0 30 2 *")), NOW)
    assert begun == []
    assert told(status)[0] == "BadSchedule"
    assert status.next_drill is None


def test_old_drills_go_by_the_limits_of_their_kind_once_nothing_is_left_of_them() -> None:
    drills = [drill(SATURDAY - n * WEEK) for n in range(3, 6)]
    drills += [drill(SATURDAY - n * WEEK, succeeded=False) for n in range(6, 8)]
    drills += [drill(SATURDAY - 9 * WEEK, "Failed", False)]
    _, gone, _ = decided(seen(plan(KNOWN, successfulDrillsHistoryLimit=2, failedDrillsHistoryLimit=0), *drills), NOW)
    assert sorted(gone) == sorted(one.metadata.name for one in (drills[2], drills[3], drills[4]))


def test_what_the_last_one_measured_is_kept_when_it_is_gone() -> None:
    last = drill(SATURDAY - WEEK, rpoSeconds=4.0, rtoSeconds=33.0, finishedAt=(SATURDAY - WEEK).isoformat())
    _, _, status = decided(seen(plan(KNOWN), last, drill(SATURDAY - 2 * WEEK, succeeded=False)), NOW)
    assert status.last_drill.name == "shop-20250125-0300"
    assert (status.last_drill.result, status.last_drill.rpo_seconds, status.last_drill.rto_seconds) == (
        "Succeeded",
        4.0,
        33.0,
    )
    kept = plan(status.model_dump(mode="json", by_alias=True))
    assert decided(seen(kept), NOW)[2].last_drill == status.last_drill
