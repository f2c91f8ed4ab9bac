"""From the probes of a manifest to what a process server asks, and what it is given for that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide_world import meta, run
from tests.unit.test_appliance_resolve import SECRETS, objects, resolve
from tests.unit.test_decide_failover import DONE, decided, seen_run
from tests.unit.test_decide_failover import task as task_named

from farshore_engine.contract.tasks import ProbeKind, ProbeResult, TaskPhase, TaskResult
from farshore_operator.api import FailoverPlan
from farshore_operator.api.failoverrun import RunGroup, RunPhase
from farshore_operator.api.probe import Probe
from farshore_operator.decide.probes import asked_of, login_secrets, logs_in, questions, time_for
from farshore_operator.decide.runspec import drill_groups_of, groups_of


def probe(name: str = "p", **asked: Any) -> Probe:
    return Probe.model_validate({"name": name, **asked})


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        pytest.param({"tcp": {"port": 25}}, ProbeKind.TCP, {"port": 25}, id="tcp"),
        pytest.param({"http": {}}, ProbeKind.HTTP, {"port": 80, "path": "/", "status": 200, "tls": False}, id="http"),
        pytest.param(
            {"http": {"port": 443, "path": "/up", "status": 204, "tls": True}},
            ProbeKind.HTTP,
            {"port": 443, "path": "/up", "status": 204, "tls": True},
            id="https",
        ),
        pytest.param({"ssh": {}}, ProbeKind.SSH, {"port": 22, "command": ()}, id="greeting"),
        pytest.param({"ssh": {"command": ["true"]}}, ProbeKind.SSH, {"port": 22, "command": ("true",)}, id="command"),
        pytest.param(
            {"sql": {"engine": "mysql", "query": "SELECT 1", "credentialsSecretRef": {"name": "db"}}},
            ProbeKind.SQL,
            {"port": 3306, "engine": "mysql", "query": "SELECT 1", "credentials_secret": "db", "database": ""},
            id="mysql",
        ),
        pytest.param(
            {"sql": {"engine": "postgresql", "query": "SELECT 1", "database": "shop"}},
            ProbeKind.SQL,
            {"port": 5432, "engine": "postgresql", "database": "shop", "credentials_secret": ""},
            id="postgresql",
        ),
    ],
)
def test_what_a_manifest_asks(given: dict[str, Any], kind: ProbeKind, expected: dict[str, Any]) -> None:
    (asked,) = questions([probe(**given, timeout="90s")])
    assert (asked.kind, asked.timeout_seconds) == (kind, 90)
    assert {name: getattr(asked, name) for name in expected} == expected


def test_a_machine_is_asked_what_the_run_and_its_group_ask() -> None:
    spec = run().spec
    member = spec.members[0].model_copy(update={"group": "web"})
    groups = tuple(
        RunGroup(name=name, probes=(probe(f"of-{name}", tcp={"port": 1}, timeout="20m"),)) for name in ("web", "db")
    )
    spec = spec.model_copy(update={"probes": (probe("of-all", ssh={}),), "groups": groups})
    asked = asked_of(spec, member)
    assert [one.name for one in asked] == ["of-all", "of-web"]
    assert time_for(asked, timedelta(minutes=15)) == timedelta(minutes=25), "the slowest, and some time beside"


def test_a_drill_asks_what_the_groups_ask_and_runs_no_hook() -> None:
    group = {
        "name": "web",
        "members": [{"name": "web-01"}],
        "probes": [{"name": "page", "http": {}}],
        "after": [{"name": "dns", "http": {"url": "https://dns.example/switch"}}],
    }
    plan = FailoverPlan.of({"metadata": meta("plan"), "spec": {"groups": [group]}})
    (real,), (drilled,) = groups_of(plan), drill_groups_of(plan)
    assert real.after
    assert not drilled.after
    assert [one.name for one in drilled.probes] == ["page"]


def task(*probes: dict[str, Any]) -> dict[str, Any]:
    asked = [
        one.model_dump(by_alias=True, mode="json") for one in questions(Probe.model_validate(given) for given in probes)
    ]
    spec = {
        "kind": "ProbeMachine",
        "processServer": "ps-1",
        "protectedVM": "web-01",
        "input": {"machineName": "web-01", "probes": asked},
    }
    return {"kind": "Task", "metadata": {"name": "run-web-01-probe"}, "spec": spec}


SQL = {"name": "q", "sql": {"engine": "mysql", "query": "SELECT 1", "credentialsSecretRef": {"name": "db"}}}
GREETING = {"name": "g", "ssh": {}}
COMMAND = {"name": "c", "ssh": {"command": ["true"]}}


@pytest.mark.parametrize(
    ("probes", "ssh", "databases"),
    [
        pytest.param([GREETING], False, set(), id="a greeting needs no login"),
        pytest.param([COMMAND], True, set(), id="a command needs the machine's"),
        pytest.param([GREETING, SQL], False, {"db"}, id="a query needs the Secret that it names"),
    ],
)
def test_a_process_server_gets_the_logins_that_its_probes_need(
    probes: list[dict[str, Any]], ssh: bool, databases: set[str]
) -> None:
    secrets = {**SECRETS, "db": {"username": b"probe\n", "password": b"pass-word\n"}}
    (found,) = resolve([*objects(), task(*probes)], secrets).tasks
    assert (found.source is not None) == ssh == logs_in(found.input.probes)
    assert set(found.database_logins) == databases == login_secrets(found.input.probes)
    for login in found.database_logins.values():
        assert (login.username, login.password.get_secret_value()) == ("probe", "pass-word")
    assert "pass-word" not in repr(found)


def test_a_probe_whose_secret_is_missing_is_told_by_name() -> None:
    (trouble,) = resolve([*objects(), task(SQL)]).troubled
    assert "a probe's sql.credentialsSecretRef names Secret db, which does not exist" in trouble.fault.message


@pytest.mark.parametrize("known", [True, False], ids=["its login is there", "its login is gone"])
def test_a_recovered_machine_gets_the_login_of_its_source_if_that_is_there(known: bool) -> None:
    starting = task()
    starting["spec"]["kind"] = "StartMachine"
    secrets = SECRETS if known else {name: values for name, values in SECRETS.items() if name != "web-ssh"}
    found = resolve([*objects(), starting], secrets)
    assert not found.troubled, "a Secret that is gone is not in the way of a failover"
    assert (found.tasks[0].source is not None) == known


@pytest.mark.parametrize("kind", ["Failover", "TestFailover"])
def test_a_probe_that_failed_fails_the_run_and_its_status_keeps_every_answer(kind: str) -> None:
    answers = (
        ProbeResult(name="page", passed=False, answer="/ answered 503, not 200"),
        ProbeResult(name="login", passed=True, answer="SSH-2.0", seconds=3.5),
    )
    said = "1 of 2 probes of web-01 failed: page: / answered 503, not 200"
    failed = task_named("a-run-web-01-probe", TaskPhase.FAILED, message=said, result=TaskResult(probes=answers))
    steps, asked, status = decided(seen_run(run(kind), *DONE[:-1], failed))
    assert steps["Probe"] == "Failed"
    assert asked == []
    assert status.phase is RunPhase.FAILED
    assert status.members[0].probes == answers
    assert said in status.condition("Succeeded").message
