"""Manifests for tests of the resources: the samples, changed in one place each, and a way to apply them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import client, config
from tests.cluster.waiting import eventually

from farshore_cli.dev.controlplane import ControlPlane
from farshore_operator.api import KINDS

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "crds"
SAMPLES = ROOT / "manifests" / "samples"

Manifest = dict[str, Any]
REMOVED = object()
"""As a value in `changed`: the field is taken out."""

_RUN: Manifest = {
    "apiVersion": "farshore.dev/v1alpha1",
    "kind": "FailoverRun",
    "metadata": {"name": "web-01-drill-run"},
    "spec": {
        "kind": "TestFailover",
        "owner": {"kind": "TestFailover", "name": "web-01-drill", "uid": "1", "generation": 1},
        "inputsHash": "00",
        "recoveryPoint": "Latest",
        "members": [
            {
                "protectedVM": "web-01",
                "machineId": "payments.web-01",
                "vault": "vault",
                "sourceSite": "stack",
                "targetSite": "shore",
                "processServer": "ps-shore",
                "epoch": 1,
                "targetName": "web-01",
            }
        ],
    },
}
_TASK: Manifest = {
    "apiVersion": "farshore.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"name": "web-01-drill-run-web-01-hydrate"},
    "spec": {"kind": "Hydrate", "processServer": "ps-shore", "protectedVM": "web-01", "input": {"machineId": "x.y"}},
}
_APPROVAL: Manifest = {
    "apiVersion": "farshore.dev/v1alpha1",
    "kind": "Approval",
    "metadata": {"name": "web-01-drill-run-check-1"},
    "spec": {"run": "web-01-drill-run", "hook": "check", "answer": "Approve", "user": "ann"},
}


def samples() -> list[Manifest]:
    """Return the objects of manifests/samples."""
    return [one for file in sorted(SAMPLES.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text()) if one]


def example(kind: str) -> Manifest:
    """Return a good manifest of a kind: the first sample, or one of ours for the kinds that users do not write."""
    found = next((one for one in (*samples(), _RUN, _TASK, _APPROVAL) if one["kind"] == kind), None)
    assert found is not None, f"there is no example of {kind}"
    return copy.deepcopy(found)


def changed(manifest: Manifest, changes: Mapping[str, Any]) -> Manifest:
    """Return a copy with other values at some dotted paths, such as `spec.source.port`."""
    result = copy.deepcopy(manifest)
    for path, value in changes.items():
        *above, last = path.split(".")
        place = result
        for name in above:
            place = place.setdefault(name, {})
        if value is REMOVED:
            place.pop(last, None)
        else:
            place[last] = value
    return result


@dataclass(frozen=True)
class Answer:
    """What the API server said: HTTP status and either the object or the message that kubectl would print."""

    status: int
    body: Manifest

    @property
    def allowed(self) -> bool:
        """Whether it was carried out."""
        return self.status < 300

    @property
    def message(self) -> str:
        """The sentence of a refusal; empty if there is none."""
        return "" if self.allowed else str(self.body.get("message", self.body))


def install_kinds(plane: ControlPlane) -> None:
    """Let the control plane have our kinds, whether or not a chart has brought them already."""
    if "protectedvms.farshore.dev" not in plane.kubectl("get", "crd", "-o", "name").stdout:
        plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    await_kinds(plane)


def await_kinds(plane: ControlPlane) -> None:
    """Wait until the control plane serves our kinds and says so, which follows some moments later.

    kubectl remembers for hours which kinds and short names there were, except when it is asked for them.
    """
    plane.kubectl("wait", "--for=condition=Established", "--timeout=120s", "crd", "--all")
    asked = ("api-resources", "--api-group=farshore.dev", "-o", "name")
    eventually(lambda: len(plane.kubectl(*asked).stdout.split()) == len(KINDS), "our kinds are not known")


class Caller:
    """Speaks to the API server as an administrator, or as somebody whom the administrator impersonates.

    kubectl prints the same messages, at a tenth of the speed.
    """

    def __init__(self, plane: ControlPlane, user: str = "", groups: Sequence[str] = ()) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(plane.kubeconfig), client_configuration=settings)
        self._host = settings.host
        self._pool = urllib3.PoolManager(
            ca_certs=settings.ssl_ca_cert, cert_file=settings.cert_file, key_file=settings.key_file
        )
        self._headers = urllib3.HTTPHeaderDict()
        if user:
            self._headers.add("Impersonate-User", user)
            for group in groups:
                self._headers.add("Impersonate-Group", group)

    @classmethod
    def account(cls, plane: ControlPlane, namespace: str, name: str) -> Caller:
        """Speak as a ServiceAccount."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return cls(plane, f"system:serviceaccount:{namespace}:{name}", groups)

    @classmethod
    def operator(cls, plane: ControlPlane) -> Caller:
        """Speak as somebody who may write what only the operator writes, whether or not a chart is installed."""
        return cls(plane, "test", ("system:masters", "farshore:break-glass"))

    def create(self, namespace: str, manifest: Manifest, **query: str) -> Answer:
        """Create an object."""
        return self.send("POST", path(namespace, manifest), manifest, **query)

    def apply(self, namespace: str, manifest: Manifest, subresource: str = "", **query: str) -> Answer:
        """Apply an object or its status by server-side apply."""
        where = "/".join(part for part in (path(namespace, manifest, named=True), subresource) if part)
        return self.send("PATCH", where, manifest, "application/apply-patch+yaml", **{"fieldManager": "test", **query})

    def merge(self, namespace: str, manifest: Manifest, changes: Manifest, subresource: str = "") -> Answer:
        """Merge changes into an object or its status."""
        where = "/".join(part for part in (path(namespace, manifest, named=True), subresource) if part)
        return self.send("PATCH", where, changes, "application/merge-patch+json")

    def get(self, namespace: str, manifest: Manifest) -> Answer:
        """Read an object."""
        return self.send("GET", path(namespace, manifest, named=True))

    def delete(self, namespace: str, manifest: Manifest) -> Answer:
        """Delete an object."""
        return self.send("DELETE", path(namespace, manifest, named=True))

    def send(
        self, method: str, where: str, body: Manifest | None = None, content: str = "application/json", **query: str
    ) -> Answer:
        """Send a request."""
        headers = urllib3.HTTPHeaderDict(self._headers)
        headers.add("Content-Type", content)
        if method != "GET":
            query = {"fieldValidation": "Strict", **query}
        url = f"{self._host}{where}?{urlencode(query)}"
        data = None if body is None else json.dumps(body)
        answer = self._pool.request(method, url, body=data, headers=headers, retries=False, timeout=60.0)
        return Answer(answer.status, answer.json())


def path(namespace: str, manifest: Manifest, *, named: bool = False) -> str:
    """Return the URL path of an object, or of where it is created."""
    group, kind = manifest["apiVersion"], manifest["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    return f"{root}/namespaces/{namespace}/{plural}" + (f"/{manifest['metadata']['name']}" if named else "")
