"""The chart's roles for people: what each may and may not do, asked of RBAC and tried on the real API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.api_objects import Caller, Manifest, changed
from tests.cluster.chart_world import fresh, install, named
from tests.cluster.people import can, person, settled
from tests.cluster.waiting import eventually

from farshore_cli.dev.controlplane import ControlPlane

SPACE = "payments"
PLAN = named("FailoverPlan", "shop")
WRITES = ("create", "update", "patch", "delete")
READS = ("get", "list", "watch")
KINDS = (
    *("approvals", "failoverplans", "failoverruns", "processservers", "protectedvms"),
    *("recoveryvaults", "replicationpolicies", "sites", "tasks", "testfailovers"),
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own with the chart, and a namespace with a plan and a machine."""
    with fresh(tmp_path_factory.mktemp("roles")) as running:
        install(running)
        running.kubectl("create", "namespace", SPACE)
        admin = Caller.operator(running)
        for one in (PLAN, named("ProtectedVM", "web-01"), named("RecoveryVault", "vault")):
            assert admin.create(SPACE, one).message == ""
        forger = Caller(running, "mallory", ("system:masters",))
        settled(lambda: forger.create(SPACE, approval("probe", user="somebody-else")), "an Approval is given by")
        yield running


@pytest.fixture(scope="module")
def team(plane: ControlPlane) -> dict[str, Caller]:
    """One person for each role, and one for each of the cluster's roles that have ours aggregated into them."""
    ours = ("reader", "approver", "failover-operator", "contributor", "vault-owner")
    found = {role: person(plane, SPACE, f"{role}@example.com", f"farshore-{role}") for role in ours}
    return found | {role: person(plane, SPACE, f"{role}@example.com", role) for role in ("view", "edit", "admin")}


def approval(name: str, *, user: str, groups: tuple[str, ...] = (), answer: str = "Approve") -> Manifest:
    spec = {"run": "a-run", "hook": "check", "answer": answer, "user": user, "groups": [*groups]}
    head = {"apiVersion": "farshore.dev/v1alpha1", "kind": "Approval"}
    return {**head, "metadata": {"name": name}, "spec": spec}


MAY: dict[str, dict[str, tuple[str, ...]]] = {
    "reader": {},
    "approver": {"approvals": ("create",)},
    "failover-operator": {
        "approvals": ("create",),
        "failoverplans": ("update", "patch"),
        "testfailovers": WRITES,
    },
    "contributor": {
        "approvals": ("create",),
        "failoverplans": (*WRITES, "define"),
        "testfailovers": WRITES,
        "protectedvms": WRITES,
        "processservers": WRITES,
        "replicationpolicies": WRITES,
        "sites": WRITES,
        "recoveryvaults": ("update", "patch"),
    },
    "vault-owner": {"recoveryvaults": WRITES},
}
MAY["view"] = MAY["reader"]
MAY["edit"] = MAY["contributor"]
MAY["admin"] = MAY["contributor"] | MAY["vault-owner"]


def _verbs(who: Caller, kind: str) -> set[str]:
    return {verb for verb in (*READS, *WRITES, "define") if can(who, SPACE, verb, kind)}


@pytest.mark.parametrize("role", MAY.keys())
def test_a_role_allows_what_it_says_and_no_more(team: dict[str, Caller], role: str) -> None:
    for kind in KINDS:
        expected = {*READS, *MAY[role].get(kind, ())}
        # The cluster's own roles gather ours some moments after they were made.
        eventually(lambda kind=kind, expected=expected: _verbs(team[role], kind) >= expected, f"{role}: {kind}")  # type: ignore[misc]
        assert _verbs(team[role], kind) == expected, kind
    for kind in ("failoverplans/status", "failoverruns/status", "tasks/status", "protectedvms/status"):
        assert not can(team[role], SPACE, "patch", kind), kind
    if role not in ("edit", "admin"):
        assert not can(team[role], SPACE, "get", "secrets", "")
    assert not can(team[role], "default", "get", "protectedvms"), "a role counts in its namespace only"


def test_kubectl_says_the_same(plane: ControlPlane, team: dict[str, Caller]) -> None:
    assert team
    for user, verb, expected in (("reader", "patch", "no"), ("failover-operator", "patch", "yes")):
        asked = ("auth", "can-i", verb, "failoverplans", "-n", SPACE, "--as", f"{user}@example.com")
        assert plane.kubectl(*asked, check=False).stdout.strip() == expected


MOVES: dict[str, Manifest] = {
    "fail over": {"activeSite": "recovery"},
    "to a point of its choice": {"recoveryPoint": "LatestProcessed"},
    "as a planned move": {"mode": "planned", "shutdownSource": "Required"},
    "commit": {"commit": "shop-1-2-failover"},
    "abort": {"abort": "shop-1-3-failover"},
    "change the point": {"changeRecoveryPoint": {"run": "shop-1-2-failover", "point": "LatestProcessed"}},
    "reprotect": {"reprotect": "shop-1-2-failover"},
    "take an abort back": {"abort": None},
}


@pytest.mark.parametrize("spec", MOVES.values(), ids=MOVES.keys())
def test_a_failover_operator_moves_machines(team: dict[str, Caller], spec: Manifest) -> None:
    assert team["failover-operator"].merge(SPACE, PLAN, {"spec": spec}).message == ""


JOB = {"name": "mine", "job": {"image": "example.com/miner"}}
REDEFINES: dict[str, Manifest] = {
    "adds a hook that runs an image": {
        "groups": [{"name": "web", "members": [{"name": "web-01"}], "before": [JOB]}],
    },
    "takes a machine out": {"groups": [{"name": "web", "members": [{"name": "other"}]}]},
    "moves them into another network": {"network": "production"},
    "drills each minute": {"drill": {"schedule": "* * * * *"}},
    "hides it behind a failover": {"activeSite": "source", "network": "production"},
}


@pytest.mark.parametrize("spec", REDEFINES.values(), ids=REDEFINES.keys())
def test_a_failover_operator_does_not_redefine_a_plan(team: dict[str, Caller], spec: Manifest) -> None:
    answer = team["failover-operator"].merge(SPACE, PLAN, {"spec": spec})
    assert "a failover operator moves the machines of FailoverPlan shop (activeSite, mode, " in answer.message
    assert "changes nothing else of it: ask a contributor" in answer.message


def test_a_failover_operator_drills_and_changes_no_protection(team: dict[str, Caller]) -> None:
    olga = team["failover-operator"]
    drill = named("TestFailover", "drill")
    assert olga.create(SPACE, drill).message == ""
    assert olga.delete(SPACE, drill).allowed
    paused = olga.merge(SPACE, named("ProtectedVM", "web-01"), {"spec": {"paused": True}})
    assert paused.status == 403 and "cannot patch resource" in paused.message
    assert olga.delete(SPACE, PLAN).status == 403


def test_a_contributor_protects_defines_and_moves_but_makes_no_vault(team: dict[str, Caller]) -> None:
    carl = team["contributor"]
    assert carl.merge(SPACE, PLAN, {"spec": {"network": "dmz"}}).message == ""
    assert carl.create(SPACE, named("FailoverPlan", "another")).message == ""
    assert carl.create(SPACE, named("ProtectedVM", "db-01")).message == ""
    assert carl.merge(SPACE, named("RecoveryVault", "vault"), {"metadata": {"labels": {"a": "b"}}}).message == ""
    assert carl.create(SPACE, named("RecoveryVault", "second")).status == 403
    assert carl.delete(SPACE, named("RecoveryVault", "vault")).status == 403
    assert team["vault-owner"].create(SPACE, named("RecoveryVault", "second")).message == ""
    assert team["vault-owner"].delete(SPACE, named("RecoveryVault", "second")).allowed


def test_a_reader_reads_and_writes_nothing(team: dict[str, Caller]) -> None:
    rita = team["reader"]
    assert rita.get(SPACE, PLAN).allowed
    for answer in (
        rita.create(SPACE, named("TestFailover", "mine")),
        rita.merge(SPACE, PLAN, {"spec": {"activeSite": "recovery"}}),
        rita.create(SPACE, approval("mine", user="reader@example.com")),
    ):
        assert answer.status == 403


def test_nobody_but_the_operator_writes_runs_whatever_the_role(team: dict[str, Caller]) -> None:
    for role in MAY:
        assert team[role].create(SPACE, named("FailoverRun", "forged")).status in (403, 422), role


class TestApprovals:
    """A person approves as himself."""

    def test_under_his_own_name_and_groups(self, plane: ControlPlane, team: dict[str, Caller]) -> None:
        assert team["approver"].create(SPACE, approval("own", user="approver@example.com")).message == ""
        ann = person(plane, SPACE, "ann", "farshore-approver", "dba", "oncall")
        assert ann.create(SPACE, approval("as-dba", user="ann", groups=("dba",))).message == ""

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            pytest.param({"user": "boss"}, "you are approver@example.com, not boss", id="as-another"),
            pytest.param(
                {"user": "approver@example.com", "groups": ("dba",)},
                "approver@example.com is not in dba",
                id="in-a-group-that-is-not-his",
            ),
        ],
    )
    def test_not_otherwise(self, team: dict[str, Caller], fields: dict[str, Any], sentence: str) -> None:
        assert sentence in team["approver"].create(SPACE, approval("forged", **fields)).message

    def test_not_even_an_administrator_approves_as_another(self, plane: ControlPlane) -> None:
        admin = Caller(plane, "root", ("system:masters",))
        assert "you are root, not ann" in admin.create(SPACE, approval("forged", user="ann")).message

    def test_what_was_said_stays_said(self, plane: ControlPlane, team: dict[str, Caller]) -> None:
        said = approval("said", user="approver@example.com")
        assert team["approver"].create(SPACE, said).message == ""
        admin = Caller(plane, "root", ("system:masters",))
        other = changed(said, {"spec.answer": "Reject"})
        assert "an Approval is a record and cannot be changed" in admin.merge(SPACE, said, other).message
        assert "goes with its run" in admin.delete(SPACE, said).message
        assert Caller.operator(plane).delete(SPACE, said).allowed, "an emergency"
