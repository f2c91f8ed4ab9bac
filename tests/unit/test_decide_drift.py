"""What a plan tells of machines that came or went after its run began, and of a run that a hook wants undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide_world import NOW, observed, run, vm, with_meta
from tests.unit.test_decide_failover import plan, seen, started

from farshore_operator.api import FailoverRun
from farshore_operator.decide import failoverplan
from farshore_operator.decide.drift import told
from farshore_operator.decide.planview import ObservedPlan
from farshore_operator.decide.runspec import Chosen


def at(names: tuple[str, ...], *runs: FailoverRun, unplanned: tuple[str, ...] = ()) -> ObservedPlan:
    """Return a plan that means these machines; its runs have web-01 alone."""
    base = with_meta(vm(), uid="u")
    machines = tuple(Chosen(observed(with_meta(base, name=name), runs=runs), "g") for name in names)
    return ObservedPlan(plan("recovery", 2, seen("recovery")), machines, (), runs, unplanned=frozenset(unplanned))


@pytest.mark.parametrize(
    ("found", "drift"),
    [
        pytest.param(at(("web-01",), run()), None, id="as-frozen"),
        pytest.param(at(("web-01", "web-02"), run()), {"joined": ["web-02"]}, id="a-late-joiner"),
        pytest.param(at(("web-02",), run()), {"joined": ["web-02"], "left": ["web-01"]}, id="one-that-left"),
        pytest.param(at(("web-01", "web-02")), None, id="nothing-is-frozen-yet"),
        pytest.param(at(("web-01",), run("TestFailover")), None, id="a-drill-freezes-nothing-of-the-plan"),
        pytest.param(at(("web-01",), unplanned=("lonely",)), {"unplanned": ["lonely"]}, id="in-no-plan"),
    ],
)
def test_drift(found: ObservedPlan, drift: dict[str, Any] | None) -> None:
    status = failoverplan.decide(found, NOW).status
    assert status is not None
    shown = status.drift.dump() if status.drift else None
    assert (shown and {key: names for key, names in shown.items() if names}) == drift
    assert bool(told(status.drift)) is bool(drift and drift.keys() & {"joined", "left"})


def failed(on_failure: str, *, stopped: bool) -> FailoverRun:
    """Return a failover whose hook after the group failed, when its source was switched off or not."""
    steps = [{"name": "ShutdownSource", "member": "web-01", "phase": "Succeeded" if stopped else "Skipped"}]
    steps += [{"name": "g/after/smoke", "member": "", "phase": "Failed", "message": "no"}]
    base = run(phase="Failed", name="plan-uid-p-2-failover", steps=steps)
    hook = {"name": "smoke", "http": {"url": "https://x"}, "onFailure": on_failure}
    body = base.dump()
    body["spec"] |= {"groups": [{"name": "g", "after": [hook]}]}
    return FailoverRun.of({**body, "metadata": base.metadata.model_dump(by_alias=True)})


STARTED = seen("recovery", reason="StartsFailover", generation=2)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(failed("RollBack", stopped=True), ["plan-uid-p-2-abort"], id="undone-by-an-abort"),
        pytest.param(failed("RollBack", stopped=False), [], id="nothing-was-stopped-so-it-cleans-up-itself"),
        pytest.param(failed("Stop", stopped=True), [], id="stop-waits-for-a-person"),
    ],
)
def test_a_run_that_a_hook_wants_undone(found: FailoverRun, expected: list[str]) -> None:
    rested = at(("web-01",), found)
    assert started(replace(rested, plan=plan("recovery", 2, STARTED))) == expected
    aborted = run("Abort", "Running", "plan-uid-p-2-abort", previous=found.metadata.name)
    assert started(replace(at(("web-01",), found, aborted), plan=plan("recovery", 2, STARTED))) == []


def test_a_plan_whose_run_waits_for_people_is_ready_and_says_for_whom() -> None:
    asked = {
        "name": "g/before/go",
        "member": "",
        "phase": "Running",
        "message": "it waits",
        "remedy": "farshore approve",
    }
    base = run(steps=[asked])
    body = base.dump()
    body["spec"] |= {"groups": [{"name": "g", "before": [{"name": "go", "approval": {"message": "?"}}]}]}
    waits = FailoverRun.of({**body, "metadata": base.metadata.model_dump(by_alias=True)})
    status = failoverplan.decide(at(("web-01",), waits), NOW).status
    assert status is not None
    ready = status.condition("Ready")
    assert ready is not None and (ready.status, ready.reason) == ("True", "AwaitingApproval")
    assert status.next_step == "farshore approve"
