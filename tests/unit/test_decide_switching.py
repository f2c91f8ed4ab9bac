"""The move from one experience of Site Recovery to the other, as a ProtectedVM tells it, and who serves the machine."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide_world import NOW, observed, report, vault, vm, with_spec

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.replication import Check, CheckResult, ReplicationReport
from farshore_engine.contract.siterecovery import SWITCH
from farshore_operator.api import RecoveryVault
from farshore_operator.api.protectedvm import Assignment
from farshore_operator.api.resource import Reference
from farshore_operator.decide import switching
from farshore_operator.decide.assignment import place
from farshore_operator.decide.protectedvm import decide
from farshore_operator.observe.protectedvm import driven

NEW = "asr-new"


def _goal(engine: str = "siteRecovery") -> RecoveryVault:
    found = vault(engine)
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"name": NEW})})


def _report(*checks: Check, server: str = f"siterecovery-{NEW}") -> ReplicationReport:
    return report(process_server=server, checks=checks)


def _check(result: CheckResult) -> Check:
    return Check(name=SWITCH, result=result, message="said", remedy="do")


CASES: dict[str, tuple[ReplicationReport | None, Any, Any, tuple[bool | None, str]]] = {
    "not looked at yet": (None, "siteRecovery", _goal(), (False, "Waiting")),
    "the old driver's word": (_report(server="siterecovery-vault"), "siteRecovery", _goal(), (False, "Waiting")),
    "under way": (_report(_check(CheckResult.PASSED)), "siteRecovery", _goal(), (False, "UnderWay")),
    "waiting": (_report(_check(CheckResult.WARNING)), "siteRecovery", _goal(), (False, "Waiting")),
    "refused": (_report(_check(CheckResult.ERROR)), "siteRecovery", _goal(), (False, "Refused")),
    "moved": (_report(), "siteRecovery", _goal(), (True, "Moved")),
    "no such vault": (_report(), "siteRecovery", None, (False, "RecoveryVaultNotFound")),
    "to a native vault": (_report(), "siteRecovery", _goal("native"), (False, "NotSupported")),
    "of a native vault": (_report(), "native", _goal(), (False, "NotSupported")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_condition_says_how_far_the_move_is(case: str) -> None:
    said, engine, goal, (holds, reason) = CASES[case]
    machine = with_spec(vm(replication=said), switch_to=Reference(name=NEW))
    (seen,) = switching.seen(machine, vault(engine), goal)
    assert (seen.type, seen.holds, seen.reason) == ("Switched", holds, reason)
    assert seen.message


def test_a_machine_that_does_not_move_has_no_such_condition() -> None:
    assert switching.seen(vm(), vault("siteRecovery"), None) == ()


def test_a_refused_move_leaves_the_replication_healthy() -> None:
    machine = with_spec(vm(replication=_report(_check(CheckResult.ERROR))), switch_to=Reference(name=NEW))
    status = decide(observed(machine, vault=vault("siteRecovery"), switch_vault=_goal(), login=None), NOW).status
    assert status is not None
    told = {one.type: (one.status.value, one.reason) for one in status.conditions}
    assert told["Switched"] == ("False", "Refused") and told["ReplicationHealthy"][0] == "True"


@pytest.mark.parametrize(
    ("engine", "goal", "server", "epoch"),
    [
        ("siteRecovery", _goal(), f"siterecovery-{NEW}", 2),
        ("siteRecovery", None, "siterecovery-vault", 1),
        ("siteRecovery", _goal("native"), "siterecovery-vault", 1),
    ],
    ids=["the new vault's driver, in a new epoch", "while there is no such vault", "while it is another engine's"],
)
def test_who_serves_a_machine_that_is_to_move(engine: str, goal: Any, server: str, epoch: int) -> None:
    machine = vm(assignment=Assignment(process_server="siterecovery-vault", epoch=1))
    machine = with_spec(machine, switch_to=Reference(name=NEW))
    servers = driven(machine, switching.serving(vault(engine), goal))
    placed = place(observed(machine, vault=vault(engine), servers=servers, login=None), Desired.REPLICATE, NOW)
    assert placed.assignment is not None
    assert (placed.assignment.process_server, placed.assignment.epoch) == (server, epoch)


def test_a_machine_of_our_own_engine_is_served_as_before() -> None:
    machine = with_spec(vm(), switch_to=Reference(name=NEW))
    assert driven(machine, switching.serving(vault(), _goal())) == ()
