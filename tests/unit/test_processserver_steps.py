"""What the process server does next for a machine, how a disk is brought up to date, when a point is due: as tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretBytes
from tests.machine.memory_controlplane import assignment

from farshore_engine.contract.assignment import (
    Desired,
    DirectoryAccess,
    InstallMode,
    MachineAssignment,
    Policy,
    Source,
    VaultAccess,
)
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.replication import State
from farshore_engine.processserver.schedule import Asked, due
from farshore_engine.processserver.steps import Failure, LocalState, Step, next_step
from farshore_engine.processserver.syncmode import Held, plan_sync
from farshore_engine.wire.messages import Baseline, Consistency, DiskInfo, SyncMode

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def wanted(desired: Desired = Desired.REPLICATE, install: InstallMode = InstallMode.PUSH) -> MachineAssignment:
    vault = VaultAccess(name="v", storage=DirectoryAccess(path=Path("/v")), key=SecretBytes(b"k" * 32))
    source = Source(address="10.0.0.1", install=install)
    return assignment("vm", vault, Policy(), desired=desired, source=source)


def failed(step: Step, fault: WaitFault | StopFault, seconds: float = 60) -> Failure:
    return Failure(step, fault, NOW + timedelta(seconds=seconds))


AWAY = NOW - timedelta(seconds=30)
LONG_AWAY = NOW - timedelta(minutes=11)


@pytest.mark.parametrize(
    ("assignment", "local", "step", "state"),
    [
        pytest.param(wanted(), LocalState(away_since=AWAY), Step.OPEN, State.PREFLIGHT, id="the vault comes first"),
        pytest.param(
            wanted(),
            LocalState(opened=True, away_since=AWAY),
            Step.PREFLIGHT,
            State.PREFLIGHT,
            id="then the checks",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, preflighted=True, away_since=AWAY),
            Step.NONE,
            State.PREFLIGHT,
            id="then the certificate is waited for",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, preflighted=True, certified=True, away_since=AWAY),
            Step.INSTALL,
            State.INSTALLING,
            id="then the agent is pushed",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, certified=True, installed=True, away_since=AWAY),
            Step.NONE,
            State.WAITING_FOR_AGENT,
            id="an installed agent is waited for",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, certified=True, installed=True, away_since=LONG_AWAY),
            Step.PREFLIGHT,
            State.PREFLIGHT,
            id="an agent that stays away is looked for",
        ),
        pytest.param(
            wanted(install=InstallMode.MANUAL),
            LocalState(opened=True, certified=True, away_since=AWAY),
            Step.NONE,
            State.WAITING_FOR_AGENT,
            id="a manual install is waited for",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, certified=True, installed=True, mode=SyncMode.FULL),
            Step.NONE,
            State.INITIAL,
            id="the first copy",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, certified=True, installed=True, mode=SyncMode.RESYNC),
            Step.NONE,
            State.RESYNC,
            id="a resync",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, certified=True, installed=True, mode=SyncMode.FULL, synced=True),
            Step.NONE,
            State.REPLICATING,
            id="in sync",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, certified=True, synced=True),
            Step.PREFLIGHT,
            State.REPLICATING,
            id="a new certificate is brought without a stop",
        ),
        pytest.param(
            wanted(Desired.PAUSE),
            LocalState(opened=True, certified=True, installed=True, synced=True),
            Step.NONE,
            State.PAUSED,
            id="paused",
        ),
        pytest.param(wanted(Desired.STOP), LocalState(opened=True), Step.CLOSE, State.STOPPED, id="stop closes"),
        pytest.param(wanted(Desired.STOP), LocalState(), Step.NONE, State.STOPPED, id="stopped touches nothing"),
        pytest.param(
            wanted(Desired.UNINSTALL), LocalState(), Step.UNINSTALL, State.STOPPED, id="uninstall when closed"
        ),
        pytest.param(
            wanted(Desired.UNINSTALL), LocalState(uninstalled=True), Step.NONE, State.UNINSTALLED, id="uninstalled"
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, away_since=AWAY, failure=failed(Step.PREFLIGHT, StopFault("no login"))),
            Step.NONE,
            State.BLOCKED,
            id="what needs a person blocks",
        ),
        pytest.param(
            wanted(),
            LocalState(opened=True, away_since=AWAY, failure=failed(Step.PREFLIGHT, StopFault("no login"), -1)),
            Step.PREFLIGHT,
            State.PREFLIGHT,
            id="and is tried again later",
        ),
        pytest.param(
            wanted(),
            LocalState(away_since=AWAY, failure=failed(Step.OPEN, WaitFault("the vault is away"))),
            Step.NONE,
            State.PREFLIGHT,
            id="what time heals only waits",
        ),
    ],
)
def test_the_next_step(assignment: MachineAssignment, local: LocalState, step: Step, state: State) -> None:
    decision = next_step(assignment, local, NOW)
    assert (decision.step, decision.state) == (step, state)


def test_pauses_double_and_end_at_a_bound() -> None:
    failure = None
    pauses = []
    for _ in range(8):
        failure = Failure.after(failure, Step.INSTALL, WaitFault("busy"), NOW)
        pauses.append((failure.retry_at - NOW).total_seconds())
    assert pauses == [5, 10, 20, 40, 80, 120, 120, 120]


DISKS = (DiskInfo("a", "sda", 1 << 30), DiskInfo("b", "sdb", 1 << 30))
HELD = Held(spool="S", session="s1", durable=10, head="p-1", disks=frozenset({"a", "b"}))


@pytest.mark.parametrize(
    ("baseline", "held", "modes", "keep", "after"),
    [
        pytest.param(Baseline("s1", "S", 8, "p-1"), HELD, "delta delta", True, 10, id="same session and spool"),
        pytest.param(
            Baseline("s1", "S", 11, ""), HELD, "resync resync", False, 0, id="the spool has less than it said"
        ),
        pytest.param(Baseline("s1", "T", 8, "p-1"), HELD, "delta delta", False, 0, id="spool lost, newest point known"),
        pytest.param(Baseline("s1", "T", 8, "p-0"), HELD, "resync resync", False, 0, id="spool lost, older point"),
        pytest.param(Baseline("s2", "S", 0, ""), HELD, "resync resync", False, 0, id="agent restarted"),
        pytest.param(
            Baseline("s1", "S", 8, "p-1"),
            replace(HELD, session="s2"),
            "resync resync",
            False,
            0,
            id="a clone with the same certificate has sent something since the newest point",
        ),
        pytest.param(
            Baseline("s1", "T", 8, "p-1"),
            replace(HELD, session=""),
            "delta delta",
            False,
            0,
            id="another process server that knows the newest point",
        ),
        pytest.param(
            Baseline("s1", "S", 3, ""),
            Held("S", "s1", 5, "", frozenset({"a"})),
            "delta full",
            True,
            5,
            id="first copy cut off after the first disk",
        ),
        pytest.param(
            Baseline("s2", "", 0, ""), Held("S", "", 0, "", frozenset()), "full full", False, 0, id="nothing is held"
        ),
        pytest.param(
            Baseline("s2", "", 0, ""), Held("S", "", 0, "", frozenset({"a"})), "resync full", False, 0, id="a new disk"
        ),
        pytest.param(
            Baseline("", "S", 0, ""),
            Held("S", "", 0, "", frozenset({"a"})),
            "resync full",
            False,
            0,
            id="no session yet",
        ),
    ],
)
def test_how_disks_are_brought_up_to_date(baseline: Baseline, held: Held, modes: str, keep: bool, after: int) -> None:
    plan = plan_sync(DISKS, baseline, held)
    assert " ".join(d.mode.value for d in plan.disks) == modes
    assert (plan.keep_pending, plan.resume_after) == (keep, after)
    assert bool(plan.resync_reason) == ("resync" in modes)


MINUTE = timedelta(minutes=1)
EVERY_5 = Policy(crash_consistent_interval=5 * MINUTE)
WITH_APP = Policy(crash_consistent_interval=5 * MINUTE, app_consistent_interval=60 * MINUTE)


@pytest.mark.parametrize(
    ("policy", "asked", "kind"),
    [
        pytest.param(EVERY_5, Asked(), Consistency.CRASH, id="the first at once"),
        pytest.param(EVERY_5, Asked(NOW - 4 * MINUTE), None, id="not yet"),
        pytest.param(EVERY_5, Asked(NOW - 5 * MINUTE), Consistency.CRASH, id="on time"),
        pytest.param(WITH_APP, Asked(), Consistency.APP, id="the first with applications"),
        pytest.param(WITH_APP, Asked(NOW - MINUTE, NOW - 61 * MINUTE), Consistency.APP, id="application point due"),
        pytest.param(WITH_APP, Asked(NOW - 6 * MINUTE, NOW - 6 * MINUTE), Consistency.CRASH, id="crash point between"),
        pytest.param(EVERY_5, Asked(NOW + 60 * MINUTE), Consistency.CRASH, id="the clock was set back"),
    ],
)
def test_when_a_point_is_due(policy: Policy, asked: Asked, kind: Consistency | None) -> None:
    assert due(policy, asked, NOW) is kind
