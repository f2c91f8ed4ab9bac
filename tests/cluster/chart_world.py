"""A control plane with the chart installed, and a namespace in which process servers, machines and tasks exist."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster.api_objects import ROOT, Caller, Manifest, await_kinds, changed, example
from tests.cluster.people import can
from tests.cluster.waiting import eventually

from farshore_cli.dev.controlplane import ControlPlane
from farshore_operator.decide.actions import PolicyRule
from farshore_operator.decide.naming import appliance, registrar
from farshore_operator.decide.rbac import appliance_rules, registrar_rules

CHART = ROOT / "charts" / "farshore"
SYSTEM = "farshore-system"
RBAC = "rbac.authorization.k8s.io/v1"


def install(plane: ControlPlane, *options: str) -> None:
    """Install the chart with Helm, as a user does, and return when its kinds are known and its policies in force."""
    plane.helm("install", "farshore", str(CHART), "-n", SYSTEM, "--create-namespace", *options)
    await_kinds(plane)
    await_policies(plane)


def await_policies(plane: ControlPlane) -> None:
    """Wait until the API server enforces a policy that is written now, and with it all that were written before.

    It takes policies up in the order in which they were written, about once a second.
    """
    marker = f"marker-{secrets.token_hex(4)}"
    admin, place = Caller(plane), "/apis/admissionregistration.k8s.io/v1/validatingadmission"
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": marker}}
    maps = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    rule = {"expression": f"object.metadata.name != '{marker}'", "message": "the marker is in force"}
    policy = {"matchConstraints": {"resourceRules": [maps]}, "validations": [rule]}
    binding = {"policyName": marker, "validationActions": ["Deny"]}
    tried = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": marker}}
    for kind, plural, spec in (("", "policies", policy), ("Binding", "policybindings", binding)):
        made = admin.send("POST", place + plural, {**head, "kind": f"ValidatingAdmissionPolicy{kind}", "spec": spec})
        assert made.message == ""
    eventually(
        lambda: "the marker is in force" in admin.create("default", tried, dryRun="All").message,
        "no policy is in force",
    )
    for plural in ("policybindings", "policies"):
        assert admin.send("DELETE", f"{place}{plural}/{marker}").allowed


def operator(plane: ControlPlane) -> Caller:
    """Speak as the ServiceAccount of the chart's Deployment."""
    return Caller.account(plane, SYSTEM, "farshore-operator")


def named(kind: str, name: str, **changes: Any) -> Manifest:
    """Return the good example of a kind under another name; changes are written with `__` for dots."""
    paths = {path.replace("__", "."): value for path, value in changes.items()}
    return changed(example(kind), {"metadata.name": name, **paths})


def lease(name: str) -> Manifest:
    """Return the Lease that the operator makes for a process server."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "labels": {"farshore.dev/process-server": name}},
        "spec": {"leaseDurationSeconds": 20},
    }


def role(name: str, rules: Iterable[PolicyRule]) -> Manifest:
    """Return a Role with rules as the operator decides them."""
    listed = []
    for rule in rules:
        one: Manifest = {"apiGroups": [*rule.groups], "resources": [*rule.resources], "verbs": [*rule.verbs]}
        listed.append(one | ({"resourceNames": [*rule.names]} if rule.names else {}))
    return {"apiVersion": RBAC, "kind": "Role", "metadata": {"name": name}, "rules": listed}


def role_binding(namespace: str, name: str, *, account: str = "", cluster_role: str = "") -> Manifest:
    """Return a RoleBinding of the Role, or of a ClusterRole, to the account of the same name."""
    kind = "ClusterRole" if cluster_role else "Role"
    return {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": cluster_role or name},
        "subjects": [{"kind": "ServiceAccount", "name": account or name, "namespace": namespace}],
    }


def populate(plane: ControlPlane, namespace: str) -> None:
    """Make what an operator would have made: machines, tasks, leases, two process servers, one not yet registered."""
    admin, system = Caller.operator(plane), operator(plane)
    plane.kubectl("create", "namespace", namespace)
    made: list[Manifest] = [
        named("ProtectedVM", "web-01"),
        named("ProtectedVM", "db-01"),
        named("ProtectedVM", "new-01"),
        named("ProcessServer", "ps-stack"),
        named("ProcessServer", "ps-other"),
        named("ProcessServer", "ps-new"),
        named("ProcessServer", "ps-shore", spec__siteRef={"name": "shore"}),
        named("Task", "task-stack", spec__processServer="ps-stack"),
        named("Task", "task-other", spec__processServer="ps-other"),
        named("FailoverRun", "a-run"),
        named("TestFailover", "a-drill"),
        lease("ps-stack"),
        lease("ps-other"),
    ]
    for one in made:
        assert admin.create(namespace, one).message == ""
    for machine, server in (("web-01", "ps-stack"), ("db-01", "ps-other")):
        status = {"phase": "Protected", "assignment": {"processServer": server, "epoch": 1}, "nextStep": "Nothing"}
        assert system.apply(namespace, status_of("ProtectedVM", machine, status), "status", **BY_OPERATOR).message == ""
    for server in ("ps-stack", "ps-other"):
        status = {"registration": {"phase": "Registered", "publicKey": "key"}, "assignedMachines": 1}
        assert (
            system.apply(namespace, status_of("ProcessServer", server, status), "status", **BY_OPERATOR).message == ""
        )
        applied = admin.apply(
            namespace, status_of("ProcessServer", server, {"appliance": APPLIANCE}), "status", fieldManager="appliance"
        )
        assert applied.message == ""


BY_OPERATOR = {"fieldManager": "farshore-operator"}
APPLIANCE: Manifest = {
    "version": "0.1.0",
    "address": "10.0.0.2",
    "dataPort": 9443,
    "lastContact": "2025-01-31T08:00:00Z",
    "clockSkewSeconds": 0.0,
    "spool": {"usedBytes": 0, "sizeBytes": 1},
    "publicKey": "key",
    "certificateRequest": "request",
}


def status_of(kind: str, name: str, status: Manifest) -> Manifest:
    """Return an object that consists of its status, for server-side apply."""
    head = {key: example(kind)[key] for key in ("apiVersion", "kind")}
    return {**head, "metadata": {"name": name}, "status": status}


def grant(plane: ControlPlane, namespace: str, name: str, rules: tuple[PolicyRule, ...]) -> None:
    """Let the operator make an account with a Role of these rules: it must be allowed to, without escalating."""
    system = operator(plane)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    for one in (account, role(name, rules), role_binding(namespace, name)):
        assert system.apply(namespace, one, **BY_OPERATOR).message == ""
    who = Caller.account(plane, namespace, name)
    eventually(lambda: can(who, namespace, "get", "processservers"), f"the rights of {name} are not in force")


def process_server(plane: ControlPlane, namespace: str, server: str, *secrets: str) -> Caller:
    """Speak as a process server with the rights that the operator gives to one."""
    grant(plane, namespace, appliance(server), appliance_rules(server, secrets))
    return Caller.account(plane, namespace, appliance(server))


def key_holder(plane: ControlPlane, namespace: str, site: str) -> Caller:
    """Speak as whoever holds a registration key of a site."""
    grant(plane, namespace, registrar(site), registrar_rules())
    return Caller.account(plane, namespace, registrar(site))


def beyond_rbac(plane: ControlPlane, namespace: str, account: str) -> Caller:
    """Speak as an account that RBAC allows everything in the namespace, so that only admission stands in its way."""
    admin = Caller.operator(plane)
    binding = role_binding(namespace, f"all-{account}", account=account, cluster_role="cluster-admin")
    assert admin.apply(namespace, binding).message == ""
    who = Caller.account(plane, namespace, account)
    eventually(lambda: can(who, namespace, "delete", "protectedvms"), f"the rights of {account} are not in force")
    return who


def fresh(directory: Path) -> ControlPlane:
    """Return a control plane of its own: the chart's policies hold for a whole cluster."""
    return ControlPlane(directory, progress=print)
