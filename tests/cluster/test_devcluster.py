"""The development control plane behaves as a cluster does, so that a test which passes on it says something.

Each test here stands for something that Farshore relies on: admission, garbage collection, bound tokens, Helm.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from farshore_cli.dev.controlplane import ControlPlane
from farshore_cli.dev.programs import APISERVER, CONTROLLER_MANAGER, ETCD, PROGRAMS
from farshore_engine.contract.faults import StopFault


def eventually(holds: Callable[[], bool], within: float = 150.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not so after {within:.0f} s"
        time.sleep(0.1)


def exists(plane: ControlPlane, *what: str) -> bool:
    return bool(plane.kubectl("get", *what, "--ignore-not-found", "-o", "name").stdout)


def apply(plane: ControlPlane, *objects: dict[str, Any]) -> str:
    """Apply objects and give what kubectl said, refusals included."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    ran = plane.kubectl("apply", "-f", "-", stdin=listed, check=False)
    return ran.stdout + ran.stderr


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


@contextlib.contextmanager
def api(plane: ControlPlane, token: str | None = None) -> Iterator[client.ApiClient]:
    """A Python client as administrator, or as the holder of a token; the server verified by the kubeconfig's CA."""
    settings = client.Configuration()
    config.load_kube_config(str(plane.kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
    if token is not None:
        settings.cert_file = settings.key_file = None
        settings.api_key = {"authorization": f"Bearer {token}"}
    assert settings.verify_ssl
    assert settings.ssl_ca_cert
    with client.ApiClient(settings) as made:
        yield made


def status_as(plane: ControlPlane, token: str, namespace: str) -> int:
    """HTTP status that the holder of a token gets for listing the namespace's config maps."""
    with api(plane, token) as made:
        try:
            client.CoreV1Api(made).list_namespaced_config_map(namespace)
        except client.ApiException as refusal:
            return int(refusal.status)
        return 200


def test_kubectl_and_the_python_client_see_the_version(control_plane: ControlPlane) -> None:
    seen = json.loads(control_plane.kubectl("version", "-o", "json").stdout)["serverVersion"]
    assert (seen["gitVersion"], seen["major"], seen["minor"]) == ("v1.34.4", "1", "34")
    with api(control_plane) as made:
        assert client.VersionApi(made).get_code().git_version == "v1.34.4"


def test_a_service_account_may_do_only_what_its_role_says(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = control_plane.kubectl("create", "token", "nobody", "-n", namespace).stdout.strip()
    assert status_as(control_plane, token, namespace) == 403

    control_plane.kubectl("create", "role", "reader", "-n", namespace, "--verb=list", "--resource=configmaps")
    control_plane.kubectl(
        "create", "rolebinding", "reader", "-n", namespace, "--role=reader", f"--serviceaccount={namespace}:nobody"
    )
    eventually(lambda: status_as(control_plane, token, namespace) == 200)
    assert status_as(control_plane, token, "kube-system") == 403
    assert status_as(control_plane, "not-a-token", namespace) == 401


def test_aggregated_cluster_roles_are_filled(control_plane: ControlPlane) -> None:
    role = f"extends-view-{secrets.token_hex(4)}"
    rule = {"apiGroups": ["farshore.test"], "resources": [role], "verbs": ["get"]}
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    apply(
        control_plane,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role, "labels": labels},
            "rules": [rule],
        },
    )
    try:
        eventually(lambda: role in control_plane.kubectl("get", "clusterrole", "view", "-o", "json").stdout)
    finally:
        control_plane.kubectl("delete", "clusterrole", role)


def test_a_dependent_is_deleted_after_its_owner(control_plane: ControlPlane, namespace: str) -> None:
    apply(control_plane, config_map(namespace, "owner"))
    uid = control_plane.kubectl("get", "configmap", "owner", "-n", namespace, "-o", "jsonpath={.metadata.uid}").stdout
    dependent = config_map(namespace, "dependent")
    dependent["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]
    apply(control_plane, dependent)

    control_plane.kubectl("delete", "configmap", "owner", "-n", namespace)
    eventually(lambda: not exists(control_plane, "configmap", "dependent", "-n", namespace))


def test_a_deleted_namespace_goes_away_with_all_in_it(control_plane: ControlPlane) -> None:
    name = f"test-{secrets.token_hex(4)}"
    control_plane.kubectl("create", "namespace", name)
    apply(control_plane, config_map(name, "inhabitant"))
    control_plane.kubectl("delete", "namespace", name, "--timeout=150s")
    assert not exists(control_plane, "namespace", name)


def test_a_cel_rule_of_a_crd_refuses_with_its_sentence(control_plane: ControlPlane, namespace: str) -> None:
    plural = f"boats{secrets.token_hex(4)}"
    rule = {"rule": "self.crew <= self.seats", "message": "the crew must fit into the boat"}
    numbers = {"crew": {"type": "integer"}, "seats": {"type": "integer"}}
    spec = {"type": "object", "properties": numbers, "x-kubernetes-validations": [rule]}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    crd = f"{plural}.farshore.test"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": crd},
        "spec": {
            "group": "farshore.test",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural, "kind": plural.capitalize()},
            "versions": [version],
        },
    }

    def boat(name: str, crew: int) -> dict[str, Any]:
        kind = {"apiVersion": "farshore.test/v1", "kind": plural.capitalize()}
        return {**kind, "metadata": {"name": name, "namespace": namespace}, "spec": {"crew": crew, "seats": 2}}

    apply(control_plane, definition)
    try:
        control_plane.kubectl("wait", "--for=condition=Established", "crd", crd, "--timeout=120s")
        # What kubectl discovers follows some moments after the kind is established.
        eventually(lambda: "the crew must fit into the boat" in apply(control_plane, boat("full", 3)))
        assert "created" in apply(control_plane, boat("good", 2))
    finally:
        control_plane.kubectl("delete", "crd", crd)


def test_a_validating_admission_policy_refuses(control_plane: ControlPlane, namespace: str) -> None:
    policy = f"no-red-{secrets.token_hex(4)}"
    group = "admissionregistration.k8s.io/v1"
    matched = {
        "resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    }
    validation = {"expression": "!has(object.data) || !('red' in object.data)", "message": "red is not allowed here"}
    apply(
        control_plane,
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": policy},
            "spec": {"matchConstraints": matched, "validations": [validation]},
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": policy},
            "spec": {"policyName": policy, "validationActions": ["Deny"]},
        },
    )
    try:
        attempts = (config_map(namespace, f"try-{number}", red="1") for number in range(1000))
        eventually(lambda: "red is not allowed here" in apply(control_plane, next(attempts)))
        assert "created" in apply(control_plane, config_map(namespace, "fine", blue="1"))
    finally:
        control_plane.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", policy)


def test_a_token_bound_to_a_secret_dies_with_it(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "appliance", "-n", namespace)
    control_plane.kubectl("create", "secret", "generic", "key", "-n", namespace)
    bound = ("--bound-object-kind=Secret", "--bound-object-name=key", "--duration=2h")
    token = control_plane.kubectl("create", "token", "appliance", "-n", namespace, *bound).stdout.strip()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["kubernetes.io"]["secret"]["name"] == "key"
    assert status_as(control_plane, token, namespace) == 403  # known, without rights

    control_plane.kubectl("delete", "secret", "key", "-n", namespace)
    eventually(lambda: status_as(control_plane, token, namespace) == 401)


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: tiny\nversion: 0.1.0\nkubeVersion: '>=1.34.0-0'\n",
    "values.yaml": "greeting: hello\n",
    "templates/greeting.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n"
        "  greeting: {{ .Values.greeting }}\n  server: {{ .Capabilities.KubeVersion.Version }}\n"
    ),
}


def test_helm_installs_upgrades_and_removes_a_chart(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    for name, text in CHART.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def data() -> dict[str, str]:
        shown = control_plane.kubectl("get", "configmap", "tiny", "-n", namespace, "-o", "json").stdout
        values: dict[str, str] = json.loads(shown)["data"]
        return values

    control_plane.helm("install", "tiny", str(tmp_path), "-n", namespace, "--wait")
    assert data() == {"greeting": "hello", "server": "v1.34.4"}
    control_plane.helm("upgrade", "tiny", str(tmp_path), "-n", namespace, "--set", "greeting=again", "--wait")
    assert data()["greeting"] == "again"
    control_plane.helm("uninstall", "tiny", "-n", namespace, "--wait")
    assert not exists(control_plane, "configmap", "tiny", "-n", namespace)


def test_killed_programs_continue_on_their_data_while_another_control_plane_is_untouched(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    with ControlPlane(tmp_path / "other") as other:
        name = f"kept-{secrets.token_hex(4)}"
        apply(other, config_map("default", name))
        assert not exists(control_plane, "configmap", name, "-n", "default")
        before = control_plane.processes

        for program in (APISERVER, ETCD, CONTROLLER_MANAGER):
            other.kill(program)
            assert not other.alive
            other.restart(program)
            assert exists(other, "configmap", name, "-n", "default"), f"lost with {program}"
        assert other.alive

        for program in PROGRAMS:
            other.kill(program)
        assert other.kubectl("get", "ns", "--request-timeout=2s", check=False).returncode != 0
        other.start()
        assert exists(other, "configmap", name, "-n", "default")

        assert control_plane.processes == before
        assert control_plane.alive
        gone = other.processes
    assert not any(process.alive for process in gone.values())


def test_a_fresh_directory_is_an_empty_cluster(tmp_path: Path, control_plane: ControlPlane, namespace: str) -> None:
    with ControlPlane(tmp_path / "fresh") as fresh:
        assert not exists(fresh, "namespace", namespace)
        assert exists(control_plane, "namespace", namespace)
        stranger = control_plane.kubectl("--server", fresh.server, "get", "ns", check=False)
        assert "certificate signed by unknown authority" in stranger.stderr


def test_programs_end_with_the_run_that_started_them(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from farshore_cli.dev.controlplane import ControlPlane\n"
        "ControlPlane(Path(sys.argv[1])).start(); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        started = ControlPlane(tmp_path).processes
        assert [process.alive for process in started.values()] == [True] * len(PROGRAMS)
        run.kill()
    eventually(lambda: not any(process.alive for process in started.values()))


def test_a_port_that_is_taken_is_named_with_the_end_of_the_log(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(plane.server.rpartition(":")[2])))
        taken.listen()
        with pytest.raises(StopFault, match=r"kube-apiserver ended while starting(.|\n)*address already in use"), plane:
            pass
    assert plane.processes == {}
