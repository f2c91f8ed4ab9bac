"""What a run asks of members that Site Recovery moves, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api.failoverplan import Mode, ShutdownSource
from farshore_operator.api.failoverrun import FailoverRunSpec, Owner, RunKind, RunMember
from farshore_operator.api.probe import Probe
from farshore_operator.decide.runsteps import sequence, task_input
from farshore_operator.decide.servicesteps import refusals

DRIVER = "siterecovery-asr"


def member(engine: str | None = "siteRecovery") -> RunMember:
    return RunMember(
        protected_vm="web1", machine_id="dr.web1", vault="asr", source_site="stack", target_site="azure",
        process_server=DRIVER, epoch=1, target_name="web1-dr", engine=engine,
    )  # fmt: skip


def spec(kind: RunKind, **more: Any) -> FailoverRunSpec:
    owner = Owner(kind="FailoverPlan", name="shop", uid="u", generation=1)
    return FailoverRunSpec(
        kind=kind, owner=owner, inputs_hash="", recovery_point="Latest", members=(member(),), **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (RunKind.TEST_FAILOVER, [TaskKind.SELECT_POINT, TaskKind.TEST_FAILOVER, TaskKind.PROBE_MACHINE]),
        (RunKind.FAILOVER, [TaskKind.SELECT_POINT, TaskKind.FAILOVER, TaskKind.PROBE_MACHINE]),
        (RunKind.CHANGE_POINT, [TaskKind.SELECT_POINT, TaskKind.CHANGE_POINT, TaskKind.PROBE_MACHINE]),
        (RunKind.COMMIT, [TaskKind.COMMIT]),
        (RunKind.REPROTECT, []),
    ],
    ids=lambda value: str(value) if isinstance(value, RunKind) else "",
)
def test_a_member_of_site_recovery_is_moved_by_its_own_steps(kind: RunKind, steps: list[TaskKind]) -> None:
    assert [rule.kind for rule in sequence(spec(kind), member())] == steps


def test_a_native_member_of_the_same_run_keeps_its_steps() -> None:
    assert TaskKind.FENCE in [rule.kind for rule in sequence(spec(RunKind.FAILOVER), member(engine=None))]


@pytest.mark.parametrize("source", list(ShutdownSource))
def test_a_failover_is_told_whether_to_shut_down_and_what_latest_means(source: ShutdownSource) -> None:
    run = spec(RunKind.FAILOVER, shutdown_source=source)
    move = sequence(run, member())[1]
    given = task_input(run, "run", member(), move, point="p1")
    assert (given.shutdown, given.selector, given.point) == (source is not ShutdownSource.NEVER, "Latest", "p1")


@pytest.mark.parametrize(
    ("run", "lacks"),
    [
        (spec(RunKind.FAILOVER), []),
        (spec(RunKind.FAILOVER, mode=Mode.PLANNED), ["PlannedFailover"]),
        (spec(RunKind.FAILOVER, shutdown_source=ShutdownSource.REQUIRED), ["RequiredShutdown"]),
        (spec(RunKind.ABORT, undoes=RunKind.FAILOVER), ["Abort"]),
        (spec(RunKind.REPROTECT), ["Reprotect"]),
        (spec(RunKind.FAILBACK), ["Failback"]),
        (spec(RunKind.TEST_FAILOVER, probes=(Probe(name="page", tcp={"port": 80}),)), ["ChosenProbes"]),
    ],
    ids=["as it can", "planned", "required shutdown", "abort", "reprotect", "failback", "probes"],
)
def test_what_the_engine_lacks_is_refused_by_name_with_what_to_do(run: FailoverRunSpec, lacks: list[str]) -> None:
    found = refusals(run, member())
    assert [name for name, _ in found] == lacks
    assert all(": " in text for _, text in found)
    assert refusals(run, member(engine=None)) == ()
