"""Whether a failover would work is known all the time: each thing in the way is named, with what to do about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide_world import NOW, SHORE, STACK, observed, point, report, run, vm

from farshore_engine.contract.replication import Obstacle, RecoveryReport
from farshore_operator.api import FailoverRun
from farshore_operator.decide import readiness
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.runchecks import prerequisites
from farshore_operator.decide.runjournal import Journal, ObservedRun

MACHINE = "shop.web-01"


def seen(**recovery: Any) -> ObservedVM:
    return observed(servers=(STACK, replace(SHORE, recovery=RecoveryReport(**recovery))))


def obstacle(machine: str = MACHINE, hard: bool = True) -> Obstacle:
    return Obstacle(machine_id=machine, reason="NotReadable", message="the key does not open it", hard=hard)


def drill(verdict: str, age: timedelta, reason: str = "Succeeded") -> FailoverRun:
    at = (NOW - age).isoformat()
    told = {"type": "Succeeded", "status": verdict, "reason": reason, "message": "", "lastTransitionTime": at}
    return run("TestFailover", "CleanedUp", name=f"drill-{age.days}", conditions=[told], finishedAt=at)


def reasons(found: ObservedVM) -> list[tuple[str, bool]]:
    return [(blocker.reason, blocker.hard) for blocker in readiness.blockers(found, NOW)]


WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(seen(), [], id="all is well"),
        pytest.param(observed(), [], id="a process server that does not report what it has"),
        pytest.param(seen(obstacles=(obstacle(),)), [("NotReadable", True)], id="the key does not open it there"),
        pytest.param(seen(obstacles=(obstacle(hard=False),)), [("NotReadable", False)], id="the store is away for now"),
        pytest.param(seen(obstacles=(obstacle("shop.db-01"),)), [], id="that is of another machine"),
        pytest.param(seen(machines=("web-01",)), [("NameTaken", True)], id="its name is taken"),
        pytest.param(seen(machines=("web-01-drill-abcde",)), [], id="a drill of it runs"),
        pytest.param(replace(seen(), runs=(drill("False", WEEK),)), [("LastDrillFailed", False)], id="it failed"),
        pytest.param(replace(seen(), runs=(drill("False", 2 * WEEK), drill("True", WEEK))), [], id="but not since"),
        pytest.param(
            replace(seen(), runs=(drill("True", 2 * WEEK), drill("False", WEEK, "CalledOff"))), [], id="called off"
        ),
        pytest.param(
            replace(seen(), runs=(drill("True", 2 * WEEK),), drill_max_age=WEEK),
            [("DrillTooOld", False)],
            id="old",
        ),
        pytest.param(replace(seen(), drill_max_age=WEEK), [("DrillTooOld", False)], id="never"),
        pytest.param(replace(seen(), runs=(drill("True", WEEK),), drill_max_age=2 * WEEK), [], id="lately"),
        pytest.param(
            replace(
                seen(obstacles=(obstacle(),), machines=("web-01",)),
                vm=vm(replication=report(last_point=point(timedelta(hours=5)))),
            ),
            [("PointsTooOld", False), ("NotReadable", True), ("NameTaken", True)],
            id="several things, all named",
        ),
    ],
)
def test_what_is_in_the_way(found: ObservedVM, expected: list[tuple[str, bool]]) -> None:
    assert reasons(found) == expected
    ready = readiness.failover_ready(found, readiness.blockers(found, NOW), NOW)
    assert (ready.verdict.value == "Ready") == (not expected)
    assert [(one.reason, one.hard) for one in ready.blockers] == expected, "the status names them all"
    assert all(one.message for one in ready.blockers)


@pytest.mark.parametrize("kind", ["Failover", "TestFailover"])
def test_the_prerequisites_of_a_run_show_the_same(kind: str) -> None:
    found = replace(seen(obstacles=(obstacle(hard=False),), machines=("web-01",)), drill_max_age=WEEK)
    begun = run(kind)
    journal = Journal(
        ObservedRun(run=begun, tasks={}, machines={"web-01": found}, connected=frozenset(), clean_up=False), NOW
    )
    shown = {check.name: check.result.value for check in prerequisites(journal)}
    known = {f"web-01.{one.reason}": "Error" if one.hard else "Warning" for one in readiness.blockers(found, NOW)}
    if kind == "TestFailover":
        known.pop("web-01.NameTaken")  # a drilled machine has a name of its own
    assert shown == known
