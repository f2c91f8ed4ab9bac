"""Decisions on a machine: who serves it, what it is asked, what is told, when it may go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide_world import (
    NOW,
    SHORE,
    STACK,
    observed,
    point,
    report,
    run,
    site,
    vault,
    vm,
    with_meta,
    with_spec,
)

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.replication import Churn, State
from farshore_operator.api.protectedvm import DeletionPolicy, ProtectionPhase, Verdict
from farshore_operator.api.resource import Reference
from farshore_operator.decide import machineruns, readiness
from farshore_operator.decide.actions import CreateOwned, SetFinalizer
from farshore_operator.decide.assignment import place
from farshore_operator.decide.protectedvm import decide
from farshore_operator.decide.uninstall import farewell
from farshore_operator.report.invariants import violations

FENCED = ({"name": "Fence", "member": "web-01", "phase": "Succeeded"},)
LOST = replace(STACK, connected=False, heartbeat=NOW - timedelta(minutes=3))
AWAY = replace(STACK, connected=False, heartbeat=NOW - timedelta(minutes=1))
SECOND = replace(STACK, name="ps-two", load=0)


@pytest.mark.parametrize(
    ("machine", "servers", "expected"),
    [
        pytest.param(vm(assignment=None), (STACK, SECOND, SHORE), ("ps-two", 2), id="least-loaded-of-the-source-site"),
        pytest.param(vm(), (STACK, SECOND), ("ps-stack", 1), id="kept-while-it-is-there"),
        pytest.param(vm(), (AWAY, SECOND), ("ps-stack", 1), id="kept-while-it-is-away-for-a-moment"),
        pytest.param(vm(), (LOST, SECOND), ("ps-two", 2), id="given-to-another-in-a-new-epoch-when-it-is-lost"),
        pytest.param(vm(), (LOST,), ("ps-stack", 1), id="kept-when-nobody-else-is-there"),
        pytest.param(vm(), (replace(STACK, deleting=True), SECOND), ("ps-two", 2), id="given-away-when-it-is-deleted"),
        pytest.param(vm(replication=report(vault_epoch=7)), (STACK,), ("ps-stack", 8), id="epoch-passes-the-chain's"),
        pytest.param(
            vm(replication=report(epoch=0, vault_epoch=7)), (STACK,), ("ps-stack", 1), id="old-report-raises-nothing"
        ),
        pytest.param(
            with_spec(vm(), process_server_ref=Reference(name="ps-two")),
            (STACK, SECOND),
            ("ps-two", 2),
            id="the-one-that-the-manifest-names",
        ),
    ],
)
def test_assignment(machine: Any, servers: Any, expected: tuple[str, int]) -> None:
    made = place(observed(machine, servers=servers), Desired.REPLICATE, NOW).assignment
    assert made is not None
    assert (made.process_server, made.epoch) == expected


def test_a_stopped_machine_is_never_given_away() -> None:
    kept = place(observed(servers=(LOST, SECOND)), Desired.STOP, NOW).assignment
    assert kept is not None and kept.process_server == "ps-stack"


@pytest.mark.parametrize(
    ("machine", "runs", "expected"),
    [
        pytest.param(vm(), (), Desired.REPLICATE, id="at-rest"),
        pytest.param(with_spec(vm(), paused=True), (), Desired.PAUSE, id="paused"),
        pytest.param(vm(), (run(),), Desired.REPLICATE, id="failover-before-the-fence"),
        pytest.param(vm(), (run(steps=FENCED),), Desired.STOP, id="failover-after-the-fence"),
        pytest.param(vm(), (run(phase="Failed", steps=FENCED),), Desired.REPLICATE, id="failed-after-the-fence"),
        pytest.param(vm(), (run(phase="Succeeded", steps=FENCED),), Desired.STOP, id="failed-over"),
        pytest.param(vm(), (run("TestFailover", steps=FENCED),), Desired.REPLICATE, id="a-drill"),
        pytest.param(with_meta(vm(), deletion_timestamp=NOW), (), Desired.UNINSTALL, id="deleted"),
    ],
)
def test_desired(machine: Any, runs: Any, expected: Desired) -> None:
    assert machineruns.desired(observed(machine, runs=runs)) is expected


def test_a_failover_is_remembered_without_its_record() -> None:
    moved = observed(runs=(run(phase="Succeeded"),))
    status = decide(moved, NOW).status
    assert status is not None and status.recovered is not None
    later = observed(vm(recovered=status.recovered), runs=())
    assert machineruns.desired(later) is Desired.STOP
    assert decide(later, NOW).status.phase is ProtectionPhase.FAILED_OVER


@pytest.mark.parametrize(
    ("state", "last", "expected"),
    [
        pytest.param(State.PREFLIGHT, None, ProtectionPhase.INSTALLING_AGENT, id="preflight"),
        pytest.param(State.WAITING_FOR_AGENT, None, ProtectionPhase.INSTALLING_AGENT, id="never-dialled"),
        pytest.param(State.WAITING_FOR_AGENT, point(), ProtectionPhase.PROTECTED, id="away-but-points-exist"),
        pytest.param(State.INITIAL, None, ProtectionPhase.INITIAL_REPLICATION, id="first-copy"),
        pytest.param(State.REPLICATING, None, ProtectionPhase.INITIAL_REPLICATION, id="no-point-yet"),
        pytest.param(State.REPLICATING, point(), ProtectionPhase.PROTECTED, id="points-are-taken"),
        pytest.param(State.RESYNC, point(), ProtectionPhase.RESYNC_REQUIRED, id="resync"),
        pytest.param(State.BLOCKED, point(), ProtectionPhase.FAILED, id="blocked"),
    ],
)
def test_phase_is_what_was_observed(state: State, last: Any, expected: ProtectionPhase) -> None:
    machine = vm(replication=report(state, last_point=last, message="m", remedy="do it"))
    status = decide(observed(machine), NOW).status
    assert status is not None and status.phase is expected
    assert violations(machine, status, NOW) == []


def test_the_report_of_a_former_server_says_nothing_of_today() -> None:
    machine = vm(replication=report(process_server="ps-gone"))
    assert decide(observed(machine), NOW).status.phase is ProtectionPhase.PENDING


@pytest.mark.parametrize(
    ("changes", "health", "reason"),
    [
        pytest.param({"vault": vault("siteRecovery"), "login": None}, "Ready", "Protected", id="no-login-needed"),
        pytest.param({"policy": None}, "Reconciling", "ReplicationPolicyNotFound", id="no-policy"),
        pytest.param({"login": None}, "Reconciling", "NoLogin", id="no-login"),
        pytest.param({"servers": (AWAY, SHORE)}, "Reconciling", "ProcessServerNotConnected", id="server-away"),
        pytest.param({}, "Ready", "Protected", id="all-is-well"),
    ],
)
def test_health(changes: dict[str, Any], health: str, reason: str) -> None:
    status = decide(observed(**changes), NOW).status
    found = status.condition(health)
    assert found is not None and found.status == "True" and found.reason == reason


@pytest.mark.parametrize(
    ("changes", "reason", "hard"),
    [
        pytest.param({"vm": vm(replication=None)}, "NoRecoveryPoint", True, id="no-point"),
        pytest.param({"servers": (STACK,)}, "NoRecoveryProcessServer", True, id="no-recovery-server"),
        pytest.param(
            {"servers": (STACK, replace(SHORE, connected=False))},
            "RecoveryProcessServerNotConnected",
            True,
            id="recovery-server-away",
        ),
        pytest.param(
            {"servers": (STACK, replace(SHORE, can_run_machines=False))}, "CannotRunMachines", True, id="cannot-run"
        ),
        pytest.param({"target_site": site("shore", "azureStackHub")}, "ProviderNotSupported", True, id="hub"),
        pytest.param(
            {"vm": vm(replication=report(last_point=point(timedelta(hours=1))))}, "PointsTooOld", False, id="old-points"
        ),
        pytest.param({"runs": (run(phase="Succeeded"),)}, "AlreadyFailedOver", True, id="moved"),
    ],
)
def test_readiness_names_the_first_blocker(changes: dict[str, Any], reason: str, hard: bool) -> None:
    seen = observed(**changes)
    found = readiness.blockers(seen, NOW)
    assert (found[0].reason, found[0].hard) == (reason, hard)
    assert readiness.failover_ready(seen, found, NOW).verdict is Verdict.NOT_READY


def test_losing_the_source_does_not_make_a_failover_impossible() -> None:
    """In a disaster the points grow old and the source's server is away: that is when a failover is wanted."""
    old = vm(replication=report(last_point=point(timedelta(hours=5))))
    assert not [b for b in readiness.blockers(observed(old, servers=(LOST, SHORE)), NOW) if b.hard]


@pytest.mark.parametrize("outruns", [False, True], ids=["churn that fits", "churn that outruns the link"])
def test_churn_is_told_with_figures_when_points_are_given_up_for_it(outruns: bool) -> None:
    churn = Churn(written_rate=50 << 20, sent_rate=10 << 20, outruns_link=outruns)
    decision = decide(observed(vm(replication=report(churn=churn))), NOW)
    told = decision.status.condition("ChurnFitsLink")
    assert told is not None
    assert told.status == ("False" if outruns else "True")
    if outruns:
        assert "50 MiB/s written, 10 MiB/s sent" in told.message
        assert decision.status.next_step == told.message


def test_rpo_is_evaluated_when_the_threshold_is_crossed() -> None:
    decision = decide(observed(), NOW)
    assert decision.again_in == timedelta(minutes=14, seconds=1)
    late = decide(observed(), NOW + decision.again_in).status.condition("RPOMet")
    assert late is not None and late.status == "False" and late.reason == "ThresholdExceeded"


@pytest.mark.parametrize(
    ("machine", "changes", "waited", "go", "left"),
    [
        pytest.param(vm(), {}, timedelta(0), False, "", id="agent-is-being-removed"),
        pytest.param(vm(replication=report(State.UNINSTALLED)), {}, timedelta(0), True, "", id="removed"),
        pytest.param(vm(assignment=None), {}, timedelta(0), True, "", id="never-assigned"),
        pytest.param(vm(), {"servers": ()}, timedelta(0), True, "ps-stack is gone", id="server-gone"),
        pytest.param(vm(), {}, timedelta(minutes=10), True, "may still run on 10.0.0.4", id="bound-is-over"),
        pytest.param(
            with_meta(vm(), annotations={"farshore.dev/force-delete": ""}),
            {},
            timedelta(0),
            True,
            "deletion was forced",
            id="forced",
        ),
        pytest.param(
            vm(replication=report(State.UNINSTALLED)),
            {"runs": (run("TestFailover", "Succeeded"),)},
            timedelta(hours=1),
            False,
            "",
            id="a-drill-holds-a-machine",
        ),
    ],
)
def test_deletion(machine: Any, changes: dict[str, Any], waited: timedelta, go: bool, left: str) -> None:
    deleted = with_meta(machine, deletion_timestamp=NOW - waited)
    parting = farewell(observed(deleted, **changes), NOW)
    assert parting.let_go is go
    assert left in parting.left_behind if left else parting.left_behind == ""
    released = [a for a in decide(observed(deleted, **changes), NOW).actions if isinstance(a, SetFinalizer)]
    assert bool(released) is go


DRILLED = run("TestFailover", "Succeeded")


@pytest.mark.parametrize(
    ("policy", "engine", "runs", "go", "kept"),
    [
        ("Retain", "siteRecovery", (), True, True),
        ("Disable", "siteRecovery", (), False, False),
        ("Retain", "siteRecovery", (DRILLED,), False, False),
        ("Retain", "native", (), False, False),
    ],
    ids=["retained", "disabled, which is waited for", "a drill is cleaned up before", "our engine keeps its points"],
)
def test_a_protection_may_outlive_its_object(policy: str, engine: str, runs: Any, go: bool, kept: bool) -> None:
    leaving = with_spec(with_meta(vm(), deletion_timestamp=NOW), deletion_policy=DeletionPolicy(policy))
    seen = observed(leaving, vault=vault(engine), runs=runs)
    parting = farewell(seen, NOW)
    assert (parting.let_go, bool(parting.kept)) == (go, kept)
    told = [one.reason for one in decide(seen, NOW).happenings]
    assert told == (["ProtectionRetained"] if kept else [])


def test_the_same_doctor_request_asks_once() -> None:
    asked = observed(with_meta(vm(), annotations={"farshore.dev/doctor-requested": "1"}))
    names = {a.name for _ in range(2) for a in decide(asked, NOW).actions if isinstance(a, CreateOwned)}
    assert len(names) == 1
