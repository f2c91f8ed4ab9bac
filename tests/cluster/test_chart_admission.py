"""The chart's admission policies: who may write what, even where RBAC is wide open, and what the others are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.api_objects import Answer, Caller, Manifest
from tests.cluster.chart_world import (
    APPLIANCE,
    BY_OPERATOR,
    SYSTEM,
    beyond_rbac,
    fresh,
    install,
    key_holder,
    lease,
    named,
    operator,
    populate,
    process_server,
    status_of,
)

from farshore_cli.dev.controlplane import ControlPlane

SPACE = "payments"
REPORT: Manifest = {"processServer": "ps-stack", "epoch": 1, "state": "Replicating"}
MANAGER = {"fieldManager": "farshore-processserver"}
ASSIGNED = {"assignment": {"processServer": "ps-stack", "epoch": 1}}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own with the chart installed and a populated namespace."""
    with fresh(tmp_path_factory.mktemp("admission")) as running:
        install(running)
        populate(running, SPACE)
        running.kubectl("create", "namespace", "elsewhere")
        yield running


@pytest.fixture(scope="module")
def server(plane: ControlPlane) -> Caller:
    """Process server ps-stack, with nothing but admission in its way."""
    return beyond_rbac(plane, SPACE, "farshore-ps-ps-stack")


@pytest.fixture(scope="module")
def registrar(plane: ControlPlane) -> Caller:
    """The holder of a registration key of site stack, with nothing but admission in the way."""
    return beyond_rbac(plane, SPACE, "farshore-registrar-stack")


def machine(name: str, status: Manifest) -> tuple[str, Manifest]:
    return "status", status_of("ProtectedVM", name, status)


def appliance(name: str, status: Manifest) -> tuple[str, Manifest]:
    return "status", status_of("ProcessServer", name, status)


def renewed(name: str, **metadata: Any) -> tuple[str, Manifest]:
    one = lease(name)
    one["metadata"] = {"name": name, **metadata}
    return "", {**one, "spec": {"holderIdentity": name, "leaseDurationSeconds": 20}}


ALLOWED_TO_SERVERS: dict[str, tuple[str, Manifest]] = {
    "report on its machine": machine("web-01", {"replication": REPORT}),
    "report on its machine again": machine("web-01", {"replication": {**REPORT, "state": "Paused"}}),
    "report on its task": ("status", status_of("Task", "task-stack", {"phase": "Running", "percent": 5})),
    "report on itself": appliance("ps-stack", {"appliance": APPLIANCE}),
    "renew its Lease": renewed("ps-stack"),
}


@pytest.mark.parametrize(("subresource", "body"), ALLOWED_TO_SERVERS.values(), ids=ALLOWED_TO_SERVERS.keys())
def test_a_process_server_may(server: Caller, subresource: str, body: Manifest) -> None:
    assert server.apply(SPACE, body, subresource, **MANAGER, force="true").message == ""


REFUSED_TO_SERVERS: dict[str, tuple[tuple[str, Manifest], str]] = {
    "report on a machine of another": (
        machine("db-01", {"replication": REPORT}),
        "ProtectedVM db-01 is assigned to process server ps-other, not to ps-stack: only the assigned one "
        "reports on it",
    ),
    "report on a machine that nobody has": (
        machine("new-01", {"replication": REPORT}),
        "ProtectedVM new-01 is assigned to no process server, not to ps-stack",
    ),
    "declare its machine failed over": (
        machine("web-01", {"replication": REPORT, "phase": "FailedOver"}),
        "a process server writes only status.replication of ProtectedVM web-01; the rest of the status belongs to the "
        "operator",
    ),
    "assign itself": (
        machine("db-01", ASSIGNED),
        "ProtectedVM db-01 is assigned to process server ps-other, not to ps-stack",
    ),
    "raise its own epoch": (
        machine("web-01", {"assignment": {"processServer": "ps-stack", "epoch": 9}}),
        "a process server writes only status.replication of ProtectedVM web-01",
    ),
    "add a condition": (
        machine(
            "web-01",
            {
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "Me", "lastTransitionTime": "2025-01-31T08:00:00Z"}
                ]
            },
        ),
        "a process server writes only status.replication of ProtectedVM web-01",
    ),
    "keep the operator's value alive by owning it too": (
        machine("web-01", {"replication": REPORT, "nextStep": "Nothing"}),
        "a process server owns only status.replication of ProtectedVM web-01: apply no other field, not even with the "
        "value that it has",
    ),
    "report on a task of another": (
        ("status", status_of("Task", "task-other", {"phase": "Succeeded"})),
        "Task task-other is for process server ps-other, not for ps-stack",
    ),
    "report on another process server": (
        appliance("ps-other", {"appliance": APPLIANCE}),
        "process server ps-stack reports on itself, not on ProcessServer ps-other",
    ),
    "register itself": (
        appliance("ps-stack", {"registration": {"phase": "Registered", "sealedToken": "mine"}}),
        "a process server writes only status.appliance of ProcessServer ps-stack",
    ),
    "renew the Lease of another": (
        renewed("ps-other"),
        "process server ps-stack renews its own Lease, not Lease ps-other",
    ),
    "put a finalizer on its Lease": (
        renewed("ps-stack", finalizers=["x.y/z"]),
        "process server ps-stack renews its Lease and leaves labels, annotations, owners and finalizers alone",
    ),
    "relabel its machine": (
        ("", {**status_of("ProtectedVM", "web-01", {}), "metadata": {"name": "web-01", "labels": {"app": "mine"}}}),
        "process server ps-stack may report in the status of its machines, its tasks and itself, and renew its Lease: "
        "UPDATE of protectedvms is not for it",
    ),
    "pause its machine": (
        ("", {**status_of("ProtectedVM", "web-01", {}), "spec": {"paused": True}}),
        "UPDATE of protectedvms is not for it",
    ),
    "make a process server": (("", named("ProcessServer", "ps-mine")), "CREATE of processservers is not for it"),
    "start a drill": (("", named("TestFailover", "mine")), "CREATE of testfailovers is not for it"),
}


@pytest.mark.parametrize(("write", "sentence"), REFUSED_TO_SERVERS.values(), ids=REFUSED_TO_SERVERS.keys())
def test_a_process_server_may_not(server: Caller, write: tuple[str, Manifest], sentence: str) -> None:
    subresource, body = write
    answer = server.apply(SPACE, body, subresource, **MANAGER, force="true")
    assert not answer.allowed
    assert sentence in answer.message


def test_a_process_server_deletes_nothing(server: Caller) -> None:
    answer = server.delete(SPACE, named("ProtectedVM", "web-01"))
    assert "DELETE of protectedvms is not for it" in answer.message


def test_a_status_write_cannot_smuggle_metadata(plane: ControlPlane, server: Caller) -> None:
    smuggled = {"metadata": {"labels": {"app": "mine"}, "finalizers": ["x.y/z"]}, "status": {"replication": REPORT}}
    server.merge(SPACE, named("ProtectedVM", "web-01"), smuggled, "status")
    found = Caller.operator(plane).get(SPACE, named("ProtectedVM", "web-01")).body["metadata"]
    assert "finalizers" not in found
    assert found["labels"] == {"app": "shop"}


def test_a_process_server_removes_nothing_from_a_status(server: Caller) -> None:
    answer = server.merge(SPACE, named("ProtectedVM", "web-01"), {"status": {"nextStep": None}}, "status")
    assert "a process server writes only status.replication" in answer.message


def test_a_process_server_of_another_namespace_is_a_stranger(plane: ControlPlane) -> None:
    admin = Caller.operator(plane)
    stranger = Caller.account(plane, "elsewhere", "farshore-ps-ps-stack")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "stranger"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "farshore-ps-ps-stack", "namespace": "elsewhere"}],
    }
    assert admin.apply(SPACE, binding).message == ""
    subresource, body = machine("web-01", {"replication": REPORT})
    answer = stranger.apply(SPACE, body, subresource, **MANAGER, force="true")
    assert "process server ps-stack belongs to namespace elsewhere and writes nothing in payments" in answer.message


def test_operator_and_process_server_write_the_same_machine_in_turn(plane: ControlPlane, server: Caller) -> None:
    """The operator's writes in between leave traces in managedFields; the next report must still be accepted."""
    for epoch, state in ((1, "InitialReplication"), (2, "Replicating"), (3, "Paused")):
        status = {"phase": "Protected", "assignment": {"processServer": "ps-stack", "epoch": epoch}}
        body = status_of("ProtectedVM", "web-01", {**status, "nextStep": "Nothing"})
        assert operator(plane).apply(SPACE, body, "status", **BY_OPERATOR).message == ""
        subresource, report = machine("web-01", {"replication": {**REPORT, "epoch": epoch, "state": state}})
        assert server.apply(SPACE, report, subresource, **MANAGER, force="true").message == ""


def test_the_role_of_a_process_server_is_enough_for_its_work(plane: ControlPlane) -> None:
    """With the rights that the operator really gives, not the wide ones: its work goes through, the rest ends at
    RBAC."""
    real = process_server(plane, SPACE, "ps-other", "web-ssh")
    report = {**REPORT, "processServer": "ps-other"}
    for subresource, body in (
        machine("db-01", {"replication": report}),
        ("status", status_of("Task", "task-other", {"phase": "Running"})),
        appliance("ps-other", {"appliance": APPLIANCE}),
        renewed("ps-other"),
    ):
        assert real.apply(SPACE, body, subresource, **MANAGER, force="true").message == ""
    for subresource, body in (appliance("ps-stack", {"appliance": APPLIANCE}), renewed("ps-stack")):
        answer: Answer = real.apply(SPACE, body, subresource, **MANAGER, force="true")
        assert answer.status == 403
        assert "cannot patch resource" in answer.message


PENDING = {**APPLIANCE, "publicKey": "new", "certificateRequest": "new"}
ALLOWED_TO_KEYS: dict[str, tuple[str, Manifest]] = {
    "create a process server of the site": ("", named("ProcessServer", "ps-made")),
    "ask for its registration": appliance("ps-new", {"appliance": PENDING}),
    "ask again with another key before it is registered": appliance("ps-new", {"appliance": APPLIANCE}),
    "report the same request after it was registered": appliance(
        "ps-stack", {"appliance": {**APPLIANCE, "machines": 1}}
    ),
}


@pytest.mark.parametrize(("subresource", "body"), ALLOWED_TO_KEYS.values(), ids=ALLOWED_TO_KEYS.keys())
def test_a_registration_key_may(registrar: Caller, subresource: str, body: Manifest) -> None:
    assert registrar.apply(SPACE, body, subresource, **MANAGER, force="true").message == ""


REFUSED_TO_KEYS: dict[str, tuple[tuple[str, Manifest], str]] = {
    "create a process server of another site": (
        ("", named("ProcessServer", "ps-foreign", spec__siteRef={"name": "shore"})),
        "this registration key is for site stack, but ProcessServer ps-foreign belongs to site shore: ask for a key of "
        "that site with farshore site registration-key shore",
    ),
    "register a process server of another site": (
        appliance("ps-shore", {"appliance": PENDING}),
        "this registration key is for site stack, but ProcessServer ps-shore belongs to site shore",
    ),
    "take over a registered process server": (
        appliance("ps-stack", {"appliance": PENDING}),
        "ProcessServer ps-stack is registered already, with another key: choose another --name, or delete it to "
        "register "
        "the appliance anew",
    ),
    "have another certificate signed for the known key": (
        appliance("ps-stack", {"appliance": {**APPLIANCE, "certificateRequest": "mine"}}),
        "ProcessServer ps-stack is registered already, with another key",
    ),
    "write the registration itself": (
        appliance("ps-new", {"registration": {"phase": "Registered"}}),
        "a registration writes only status.appliance; the rest of the status belongs to the operator",
    ),
    "create one with a finalizer": (
        ("", {**named("ProcessServer", "ps-stuck"), "metadata": {"name": "ps-stuck", "finalizers": ["x.y/z"]}}),
        "a process server is registered without finalizers and owners",
    ),
    "change the data port of an existing one": (
        ("", named("ProcessServer", "ps-new", spec__dataPort=9999)),
        "a registration key of site stack is good for registering a process server there, and for nothing else: "
        "not for "
        "UPDATE of processservers in namespace payments",
    ),
    "report on a machine": (machine("web-01", {"replication": REPORT}), "and for nothing else"),
    "protect a machine": (("", named("ProtectedVM", "mine")), "not for CREATE of protectedvms in namespace payments"),
}


@pytest.mark.parametrize(("write", "sentence"), REFUSED_TO_KEYS.values(), ids=REFUSED_TO_KEYS.keys())
def test_a_registration_key_may_not(registrar: Caller, write: tuple[str, Manifest], sentence: str) -> None:
    subresource, body = write
    answer = registrar.apply(SPACE, body, subresource, **MANAGER, force="true")
    assert not answer.allowed
    assert sentence in answer.message


def test_the_role_of_a_registrar_is_enough_to_register(plane: ControlPlane) -> None:
    real = key_holder(plane, SPACE, "shore")
    made = named("ProcessServer", "ps-by-key", spec__siteRef={"name": "shore"})
    assert real.create(SPACE, made).message == ""
    subresource, body = appliance("ps-by-key", {"appliance": PENDING})
    assert real.apply(SPACE, body, subresource, **MANAGER).message == ""
    assert real.get(SPACE, made).allowed
    assert real.get(SPACE, named("ProtectedVM", "web-01")).status == 403
    assert real.delete(SPACE, made).status == 403


RUNS = ("FailoverRun", "Task")


@pytest.mark.parametrize("kind", RUNS)
def test_an_administrator_writes_no_run_and_is_told_what_to_do_instead(plane: ControlPlane, kind: str) -> None:
    answer = Caller(plane).create(SPACE, named(kind, "by-hand"))
    assert not answer.allowed
    assert (
        f"a {kind} is written by the operator only: to fail over, set spec.activeSite of a FailoverPlan; for a drill, "
        "create a TestFailover" in answer.message
    )


def test_an_administrator_removes_no_record(plane: ControlPlane) -> None:
    answer = Caller(plane).delete(SPACE, named("FailoverRun", "a-run"))
    assert (
        "a FailoverRun is removed by the operator only, because it is the record of what was done: to clean up a "
        "drill, "
        "delete its TestFailover; in an emergency act as group farshore:break-glass" in answer.message
    )


@pytest.mark.parametrize("kind", RUNS)
def test_the_operator_writes_and_prunes(plane: ControlPlane, kind: str) -> None:
    assert operator(plane).create(SPACE, named(kind, "by-operator")).message == ""
    assert operator(plane).delete(SPACE, named(kind, "by-operator")).message == ""


def test_the_same_account_of_another_namespace_is_not_the_operator(plane: ControlPlane) -> None:
    impostor = beyond_rbac(plane, SPACE, "farshore-operator")
    assert SYSTEM != SPACE
    assert "is written by the operator only" in impostor.create(SPACE, named("FailoverRun", "forged")).message


def test_in_an_emergency_a_group_may(plane: ControlPlane) -> None:
    someone = Caller(plane, "jane", ("system:masters", "farshore:break-glass"))
    assert someone.create(SPACE, named("FailoverRun", "rescued")).message == ""
    assert someone.delete(SPACE, named("FailoverRun", "rescued")).message == ""


def test_a_deleted_owner_and_a_deleted_namespace_take_their_runs_along(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", "short-lived")
    admin = Caller.operator(plane)
    drill = admin.create("short-lived", named("TestFailover", "drill")).body
    owner = {
        "apiVersion": drill["apiVersion"],
        "kind": "TestFailover",
        "name": "drill",
        "uid": drill["metadata"]["uid"],
    }
    run = named("FailoverRun", "owned")
    run["metadata"]["ownerReferences"] = [owner]
    assert operator(plane).create("short-lived", run).message == ""
    assert operator(plane).create("short-lived", named("Task", "left")).message == ""
    assert admin.delete("short-lived", named("TestFailover", "drill")).allowed
    plane.kubectl("-n", "short-lived", "wait", "--for=delete", "failoverrun/owned", "--timeout=150s")
    plane.kubectl("delete", "namespace", "short-lived", "--timeout=150s")
