"""`farshore status` says at a glance what is protected, how far behind, what is wrong and what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from farshore_cli.status import Level, MachineRow, headline, machine_row, server_row, span
from farshore_engine.contract.replication import Churn
from farshore_operator.api.processserver import ProcessServer
from farshore_operator.api.protectedvm import ProtectedVM
from farshore_operator.api.replicationpolicy import ReplicationPolicy

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def condition(kind: str, status: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind, "status": status, "reason": "Test", "message": message,
        "lastTransitionTime": "2026-03-01T11:00:00Z",
    }  # fmt: skip


def machine(*, point: str | None, conditions: list[dict[str, Any]], **status: Any) -> ProtectedVM:
    replication: dict[str, Any] = {"processServer": "ps-1", "epoch": 1, "state": "Replicating", "pointCount": 7}
    if point:
        replication["lastPoint"] = {"name": "p", "slot": 3, "time": point, "consistency": "crash"}
    ref = {"name": "site"}
    spec = {
        "source": {"siteRef": ref, "address": "10.0.0.4"},
        "policyRef": {"name": "standard"},
        "vaultRef": {"name": "vault"},
        "target": {"siteRef": {"name": "shore"}},
    }
    return ProtectedVM.of(
        {
            "kind": "ProtectedVM",
            "metadata": {"name": "web-01", "namespace": "shop"},
            "spec": spec,
            "status": {"conditions": conditions, "replication": replication, **status},
        }
    )


POLICY = ReplicationPolicy.of(
    {
        "kind": "ReplicationPolicy",
        "metadata": {"name": "standard", "namespace": "shop"},
        "spec": {"rpoThreshold": "15m"},
    }
)


@pytest.mark.parametrize(
    ("point", "conditions", "extra", "expected"),
    [
        pytest.param(
            "2026-03-01T11:58:00Z", [condition("Ready", "True"), condition("FailoverReady", "True")],
            {"phase": "Protected"}, (Level.GOOD, timedelta(minutes=2), False, "yes", ""), id="healthy",
        ),
        pytest.param(
            "2026-03-01T11:00:00Z", [condition("Ready", "True"), condition("FailoverReady", "True")],
            {"phase": "Protected"}, (Level.BAD, timedelta(hours=1), True, "yes", ""), id="behind its RPO threshold",
        ),
        pytest.param(
            None, [condition("Ready", "False", "Secret web-ssh is missing"), condition("Stalled", "True")],
            {"phase": "Pending"}, (Level.BAD, None, False, "no", "Secret web-ssh is missing"), id="reference missing",
        ),
        pytest.param(
            None, [condition("Ready", "False", "the first copy runs")],
            {"phase": "InitialReplication", "nextStep": "Wait"}, (Level.BUSY, None, False, "no", "Wait"), id="copying",
        ),
        pytest.param(None, [], {}, (Level.BUSY, None, False, "no", ""), id="just created"),
        pytest.param(
            "2026-03-01T11:58:00Z",
            [condition("Ready", "True"), condition("ConsistencyGroup", "False", "demo.db holds up shop")],
            {"phase": "Protected"}, (Level.GOOD, timedelta(minutes=2), False, "no", "demo.db holds up shop"),
            id="its group is held up",
        ),
    ],
)  # fmt: skip
def test_a_machine_s_row(
    point: str | None, conditions: list[dict[str, Any]], extra: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    row = machine_row(machine(point=point, conditions=conditions, **extra), [POLICY], NOW)
    assert (row.level, row.behind, row.late, row.ready, row.todo) == expected


@pytest.mark.parametrize(
    ("churn", "expected"),
    [
        pytest.param(None, "", id="not known yet"),
        pytest.param({"writtenRate": 3 << 20, "sentRate": 9 << 20}, "3.0 MiB/s", id="it fits"),
        pytest.param(
            {"writtenRate": 50 << 20, "sentRate": 10 << 20, "outrunsLink": True},
            "50.0 MiB/s, 10.0 sent",
            id="it outruns the link",
        ),
    ],
)
def test_churn_is_shown(churn: dict[str, Any] | None, expected: str) -> None:
    vm = machine(point=None, conditions=[])
    assert vm.status.replication is not None
    report = vm.status.replication.model_copy(update={"churn": Churn.model_validate(churn) if churn else None})
    shown = vm.model_copy(update={"status": vm.status.model_copy(update={"replication": report})})
    assert machine_row(shown, [POLICY], NOW).churn == expected


def test_a_policy_of_another_namespace_sets_no_threshold() -> None:
    foreign = POLICY.model_copy(update={"metadata": POLICY.metadata.model_copy(update={"namespace": "other"})})
    row = machine_row(machine(point="2026-03-01T01:00:00Z", conditions=[]), [foreign], NOW)
    assert not row.late


def test_a_lost_process_server_says_since_when_and_what_to_do() -> None:
    server = ProcessServer.of(
        {
            "kind": "ProcessServer",
            "metadata": {"name": "ps-1", "namespace": "shop"},
            "spec": {"siteRef": {"name": "stack"}},
            "status": {
                "conditions": [condition("Ready", "False", "not heard of for 4 min; start it again")],
                "appliance": {
                    "version": "1", "address": "10.0.0.1", "dataPort": 9443, "lastContact": "2026-03-01T11:56:00Z",
                    "clockSkewSeconds": 0.1, "spool": {"usedBytes": 25, "sizeBytes": 100}, "machines": 3,
                },
            },
        }
    )  # fmt: skip
    row = server_row(server, NOW)
    assert (row.level, row.contact, row.spool_percent, row.machines) == (Level.BAD, timedelta(minutes=4), 25, 3)
    assert row.todo == "not heard of for 4 min; start it again"


def row(name: str, level: Level) -> MachineRow:
    return MachineRow("shop", name, "Protected", level, None, False, 0, "", "no", "")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([], "No machine is protected yet: apply a ProtectedVM.", id="nothing yet"),
        pytest.param([row("a", Level.GOOD)], "1 of 1 machines are as declared.", id="all well"),
        pytest.param(
            [row("a", Level.GOOD), row("b", Level.BUSY), row("c", Level.BAD)],
            "1 of 3 machines are as declared, 1 on the way; look at c.", id="one of each",
        ),
    ],
)  # fmt: skip
def test_the_headline(rows: list[MachineRow], expected: str) -> None:
    assert headline(rows) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), (timedelta(seconds=7), "7 s"), (timedelta(minutes=4, seconds=9), "4 min"),
        (timedelta(hours=3, minutes=10), "3 h 10 min"), (timedelta(days=2, hours=3), "2 d 3 h"),
    ],
)  # fmt: skip
def test_spans_are_said_as_people_do(value: timedelta | None, expected: str) -> None:
    assert span(value) == expected
