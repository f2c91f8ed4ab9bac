"""The chart refuses values that make no sense, installs with the real Helm, and grants what is needed and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.cluster.api_objects import SAMPLES, Caller, Manifest
from tests.cluster.chart_world import BY_OPERATOR, CHART, SYSTEM, fresh, grant, install, operator, role, role_binding
from tests.cluster.people import can, settled_policy

from farshore_cli.dev.controlplane import ControlPlane
from farshore_operator.decide.actions import PolicyRule
from farshore_operator.decide.naming import appliance
from farshore_operator.decide.rbac import appliance_rules


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own with the chart installed."""
    with fresh(tmp_path_factory.mktemp("chart")) as running:
        install(running)
        running.kubectl("create", "namespace", "payments")
        yield running


def rendered(plane: ControlPlane, *options: str) -> list[Manifest]:
    text = plane.helm("template", "farshore", str(CHART), "-n", SYSTEM, *options).stdout
    return [one for one in yaml.safe_load_all(text) if one]


def only(objects: list[Manifest], kind: str) -> Manifest:
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def test_helm_finds_nothing_to_complain_about(plane: ControlPlane) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in plane.helm("lint", "--strict", str(CHART)).stdout


BAD_VALUES = {
    "a level that does not exist": (
        "operator.logLevel=loud",
        "at '/operator/logLevel': value must be one of 'debug'",
    ),
    "a value that nobody reads": ("operator.replicas=2", "additional properties 'replicas' not allowed"),
    "too many workers": ("operator.workers=1000", "at '/operator/workers': maximum: got 1,000, want 64"),
    "a privileged port": ("operator.healthPort=80", "at '/operator/healthPort': minimum: got 80, want 1,024"),
    "no image": ("image.repository=", "at '/image/repository': minLength: got 0, want 1"),
    "a namespace in capitals": ("namespaces={Payments}", "at '/namespaces/0': 'Payments' does not match pattern"),
    "looking at Azure without a rest": (
        "operator.azureInterval=0",
        "at '/operator/azureInterval': minimum: got 0, want 1",
    ),
    "an identity by its name": ("operator.workloadIdentity.clientId=farshore", "does not match pattern"),
    "a word instead of a switch": ("crds.install=maybe", "at '/crds/install': got string, want boolean"),
}


@pytest.mark.parametrize(("setting", "complaint"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_values_that_make_no_sense_are_refused(plane: ControlPlane, setting: str, complaint: str) -> None:
    answer = plane.helm("template", "farshore", str(CHART), "--set", setting, check=False)
    assert answer.returncode != 0
    assert complaint in answer.stderr


def test_the_deployment_runs_the_command_line_as_an_unprivileged_user(plane: ControlPlane) -> None:
    pod = only(rendered(plane), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["farshore"]
    assert container["args"] == [
        "operator",
        "--health-port=8080",
        "--log-level=info",
        "--log-format=json",
        "--workers=8",
        "--azure-interval=15",
    ]
    assert pod["serviceAccountName"] == "farshore-operator"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


def test_the_operator_gets_an_identity_and_a_proxy_towards_azure(plane: ControlPlane) -> None:
    client = "5ab5c4d1-0000-4000-8000-0000000050b5"
    options = (
        "--set", f"operator.workloadIdentity.clientId={client}", "--set-json", "operator.azureInterval=2.5",
        "--set", "operator.env.HTTPS_PROXY=http://proxy:3128", "--set", "operator.podLabels.team=dr",
        "--set", "operator.serviceAccount.annotations.note=ours",
    )  # fmt: skip
    objects = rendered(plane, *options)
    template = only(objects, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert (labels["azure.workload.identity/use"], labels["team"]) == ("true", "dr")
    (container,) = template["spec"]["containers"]
    assert container["args"][-1] == "--azure-interval=2.5"
    assert container["env"] == [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]
    account = next(one for one in objects if one["kind"] == "ServiceAccount")["metadata"]
    assert account["annotations"] == {"azure.workload.identity/client-id": client, "note": "ours"}
    plain = rendered(plane)
    assert "annotations" not in next(one for one in plain if one["kind"] == "ServiceAccount")["metadata"]
    assert "azure.workload.identity" not in yaml.safe_dump_all(plain)


def test_chosen_namespaces_need_no_rights_in_others(plane: ControlPlane) -> None:
    objects = rendered(plane, "--set", "namespaces={payments,shop}")
    cluster_roles = [one["metadata"]["name"] for one in objects if one["kind"] == "ClusterRole"]
    assert "farshore-operator" not in cluster_roles, "those that are there are for people, and bound to nobody"
    assert "ClusterRoleBinding" not in [one["kind"] for one in objects]
    roles = [one["metadata"]["namespace"] for one in objects if one["kind"] == "Role"]
    assert roles == ["payments", "shop"]
    args = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[-2:] == ["--namespace=payments", "--namespace=shop"]


def test_revisions_are_read_where_git_is_when_the_operator_has_chosen_namespaces(plane: ControlPlane) -> None:
    objects = rendered(plane, "--set", "namespaces={payments}", "--set", "gitOps.namespaces={flux-system}")
    (found,) = [one for one in objects if one["kind"] == "Role" and one["metadata"]["namespace"] == "flux-system"]
    assert {verb for rule in found["rules"] for verb in rule["verbs"]} == {"get"}
    assert "secrets" not in str(found["rules"])


def test_a_release_for_other_namespaces_may_write_runs_there(plane: ControlPlane) -> None:
    """Its operator was not this release's, so every run and task that it made was refused in the whole cluster."""
    objects = rendered(plane, "--set", "namespaces={payments,shop}")
    bindings = {
        one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "ValidatingAdmissionPolicyBinding"
    }
    for policy in ("farshore-runs", "farshore-plans", "farshore-approvals"):
        selector = bindings.pop(policy)["matchResources"]["namespaceSelector"]["matchExpressions"]
        (only_there,) = [(one["key"], one["values"]) for one in selector]
        assert only_there == ("kubernetes.io/metadata.name", ["payments", "shop"])
    assert not [name for name, spec in bindings.items() if "matchResources" in spec], "the others hold everywhere"


@pytest.mark.parametrize(
    ("setting", "kind"),
    [("crds.install=false", "CustomResourceDefinition"), ("admission.enabled=false", "ValidatingAdmissionPolicy")],
    ids=["kinds left to somebody else", "policies left to somebody else"],
)
def test_a_part_can_be_left_out(plane: ControlPlane, setting: str, kind: str) -> None:
    assert kind in [one["kind"] for one in rendered(plane)]
    assert kind not in [one["kind"] for one in rendered(plane, "--set", setting)]


def test_the_policies_are_free_of_mistakes_that_the_api_server_finds(plane: ControlPlane) -> None:
    names = [one["metadata"]["name"] for one in rendered(plane) if one["kind"] == "ValidatingAdmissionPolicy"]
    assert len(names) == 6
    for name in names:
        policy = settled_policy(plane, name)
        assert policy["status"].get("typeChecking", {}) == {}, f"{name} warns"


MAY: dict[str, tuple[str, str, str, str]] = {
    # what it is for: verb, group, resource, name
    "watch machines": ("watch", "farshore.dev", "protectedvms", ""),
    "hold a machine with a finalizer": ("patch", "farshore.dev", "protectedvms", ""),
    "write a machine's status": ("patch", "farshore.dev", "protectedvms/status", ""),
    "start a run": ("create", "farshore.dev", "failoverruns", ""),
    "prune a run": ("delete", "farshore.dev", "failoverruns", ""),
    "give a task": ("create", "farshore.dev", "tasks", ""),
    "look a login up": ("get", "", "secrets", "web-ssh"),
    "make the CA": ("create", "", "secrets", ""),
    "make an account": ("create", "", "serviceaccounts", ""),
    "ask for a process server's token": ("create", "", "serviceaccounts/token", ""),
    "make a Role": ("patch", "rbac.authorization.k8s.io", "roles", ""),
    "bind a Role": ("patch", "rbac.authorization.k8s.io", "rolebindings", ""),
    "see heartbeats": ("list", "coordination.k8s.io", "leases", ""),
    "run a hook's Job": ("create", "batch", "jobs", ""),
    "follow a hook's Job": ("get", "batch", "jobs", "a-job"),
    "see who approves": ("watch", "farshore.dev", "approvals", ""),
    "read which revision Flux applied": ("get", "kustomize.toolkit.fluxcd.io", "kustomizations", ""),
    "read which revision Argo CD applied": ("get", "argoproj.io", "applications", ""),
    "tell what happened": ("create", "events.k8s.io", "events", ""),
}
MAY_NOT: dict[str, tuple[str, str, str, str]] = {
    "list Secrets": ("list", "", "secrets", ""),
    "watch Secrets": ("watch", "", "secrets", ""),
    "change a Secret": ("patch", "", "secrets", ""),
    "delete a Secret": ("delete", "", "secrets", ""),
    "approve": ("create", "farshore.dev", "approvals", ""),
    "protect a machine": ("create", "farshore.dev", "protectedvms", ""),
    "delete a machine": ("delete", "farshore.dev", "protectedvms", ""),
    "delete a vault": ("delete", "farshore.dev", "recoveryvaults", ""),
    "delete a process server": ("delete", "farshore.dev", "processservers", ""),
    "delete a plan": ("delete", "farshore.dev", "failoverplans", ""),
    "grant what it has not": ("escalate", "rbac.authorization.k8s.io", "roles", ""),
    "bind what it has not": ("bind", "rbac.authorization.k8s.io", "clusterroles", "cluster-admin"),
    "make a ClusterRole": ("create", "rbac.authorization.k8s.io", "clusterroles", ""),
    "impersonate": ("impersonate", "", "users", ""),
    "run pods": ("create", "", "pods", ""),
    "list jobs of others": ("list", "batch", "jobs", ""),
    "change a job": ("patch", "batch", "jobs", ""),
    "read config maps": ("get", "", "configmaps", ""),
    "read nodes": ("get", "", "nodes", ""),
    "change the kinds": ("patch", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    "lift its own limits": ("delete", "admissionregistration.k8s.io", "validatingadmissionpolicybindings", ""),
    "do anything": ("*", "*", "*", ""),
}


def may(caller: Caller, verb: str, group: str, resource: str, name: str) -> bool:
    return can(caller, "payments", verb, resource, group, name)


@pytest.mark.parametrize("request_", MAY.values(), ids=MAY.keys())
def test_the_operator_may(plane: ControlPlane, request_: tuple[str, str, str, str]) -> None:
    assert may(operator(plane), *request_)


@pytest.mark.parametrize("request_", MAY_NOT.values(), ids=MAY_NOT.keys())
def test_the_operator_may_not(plane: ControlPlane, request_: tuple[str, str, str, str]) -> None:
    assert not may(operator(plane), *request_)


def test_the_token_of_the_deployment_is_that_operator(plane: ControlPlane) -> None:
    token = plane.kubectl("-n", SYSTEM, "create", "token", "farshore-operator").stdout.strip()
    told = plane.kubectl("--token", token, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", check=False)
    assert told.returncode == 0, told.stderr


def test_the_operator_can_grant_what_it_decides_to(plane: ControlPlane) -> None:
    grant(plane, "payments", appliance("ps-stack"), appliance_rules("ps-stack", ["web-ssh", "vault-key"]))
    holder = Caller.account(plane, "payments", appliance("ps-stack"))
    assert may(holder, "get", "", "secrets", "web-ssh")
    assert not may(holder, "get", "", "secrets", "farshore-ca")
    assert not may(holder, "list", "", "secrets", "")


ESCALATIONS: dict[str, PolicyRule] = {
    "all Secrets": PolicyRule(("",), ("secrets",), ("list",)),
    "pods": PolicyRule(("",), ("pods",), ("create",)),
    "everything": PolicyRule(("*",), ("*",), ("*",)),
}


@pytest.mark.parametrize("rule", ESCALATIONS.values(), ids=ESCALATIONS.keys())
def test_the_operator_cannot_grant_what_it_has_not(plane: ControlPlane, rule: PolicyRule) -> None:
    answer = operator(plane).apply("payments", role(appliance("greedy"), [rule]), **BY_OPERATOR)
    assert "attempting to grant RBAC permissions not currently held" in answer.message


def token_of(account: str) -> tuple[str, str, dict[str, Any]]:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return "POST", f"/api/v1/namespaces/payments/serviceaccounts/{account}/token", body


def job(**pod: Any) -> dict[str, Any]:
    """Return a Job as a taken over operator would make it: of no run if nothing is said of its pod."""
    owner = {"apiVersion": "farshore.dev/v1alpha1", "kind": "FailoverRun", "name": "a-run", "uid": "1"}
    meta = {"name": "mine", "labels": {"farshore.dev/hook": "true"}} | ({"ownerReferences": [owner]} if pod else {})
    containers = [{"name": "mine", "image": "mine"}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers, **pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template}}


CONFINED: dict[str, tuple[tuple[str, str, Any], str]] = {
    "token of another account": (
        token_of("default"),
        "the operator asks for tokens of process servers only, not of ServiceAccount default",
    ),
    "Role of another name": (
        ("PATCH", "/apis/rbac.authorization.k8s.io/v1/namespaces/payments/roles/mine", role("mine", [])),
        "the operator makes accounts and Roles for process servers and registrars: roles mine is none of them",
    ),
    "Role bound to another account": (
        (
            "PATCH",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/payments/rolebindings/farshore-ps-ps-stack",
            role_binding("payments", "farshore-ps-ps-stack", account="default"),
        ),
        "the operator binds a Role to the account of the same name only, which RoleBinding farshore-ps-ps-stack "
        "does not",
    ),
    "Secret that is not the CA": (
        (
            "POST",
            "/api/v1/namespaces/payments/secrets",
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stolen"}},
        ),
        "the operator makes Secret farshore-ca only, not stolen",
    ),
    "Job that is no hook": (
        ("POST", "/apis/batch/v1/namespaces/payments/jobs", job()),
        "the operator makes Jobs of hooks only, which belong to a FailoverRun; mine does not",
    ),
    "Job that reads a Secret": (
        (
            "POST",
            "/apis/batch/v1/namespaces/payments/jobs",
            job(volumes=[{"name": "s", "secret": {"secretName": "s"}}]),
        ),
        "a Job of a hook has no volumes, no Secrets in its environment, no share in its node and no account of "
        "Farshore; mine has",
    ),
    "Job that acts as a process server": (
        ("POST", "/apis/batch/v1/namespaces/payments/jobs", job(serviceAccountName="farshore-ps-ps-stack")),
        "no account of Farshore; mine has",
    ),
    "Lease of somebody else": (
        (
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/payments/leases",
            {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"}, "spec": {}},
        ),
        "the operator makes Leases of process servers only; leader is none",
    ),
}


@pytest.mark.parametrize(("request_", "sentence"), CONFINED.values(), ids=CONFINED.keys())
def test_the_operator_is_held_to_its_purpose(
    plane: ControlPlane, request_: tuple[str, str, Any], sentence: str
) -> None:
    method, where, body = request_
    content = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
    query = BY_OPERATOR if method == "PATCH" else {}
    answer = operator(plane).send(method, where, body, content, **query)
    assert not answer.allowed
    assert sentence in answer.message


def test_the_operator_changes_no_spec(plane: ControlPlane) -> None:
    plane.kubectl("-n", "payments", "apply", "-f", str(SAMPLES))
    machine = {"apiVersion": "farshore.dev/v1alpha1", "kind": "ProtectedVM", "metadata": {"name": "web-01"}}
    held = {**machine, "metadata": {"name": "web-01", "finalizers": ["farshore.dev/protection"]}}
    assert operator(plane).apply("payments", held, **BY_OPERATOR).message == ""
    paused = operator(plane).apply("payments", {**held, "spec": {"paused": True}}, **BY_OPERATOR, force="true")
    assert "the operator never changes what a person declared: the spec of ProtectedVM web-01" in paused.message
    assert operator(plane).apply("payments", machine, **BY_OPERATOR).message == "", "it lets go of its finalizer"


def test_a_release_can_be_removed_and_installed_again_without_losing_a_machine(plane: ControlPlane) -> None:
    plane.kubectl("-n", "payments", "apply", "-f", str(SAMPLES))
    plane.helm("upgrade", "farshore", str(CHART), "-n", SYSTEM, "--set", "operator.workers=4")
    plane.helm("uninstall", "farshore", "-n", SYSTEM)
    assert "web-01" in plane.kubectl("-n", "payments", "get", "pvm", "-o", "name").stdout
    assert plane.kubectl("get", "validatingadmissionpolicies", "-o", "name").stdout == ""
    install(plane)
    assert "web-01" in plane.kubectl("-n", "payments", "get", "pvm", "-o", "name").stdout
