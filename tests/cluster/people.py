"""People for tests of rights: a user with one of the chart's roles in a namespace, and what RBAC answers them."""

from __future__ import annotations

import time
from collections.abc import Callable

import yaml
from tests.cluster.api_objects import Answer, Caller, Manifest
from tests.cluster.waiting import PATIENCE, eventually

from farshore_cli.dev.controlplane import ControlPlane

RBAC = "rbac.authorization.k8s.io"
EVERYBODY = "system:authenticated"


def person(plane: ControlPlane, namespace: str, user: str, role: str, *groups: str) -> Caller:
    """Let a user have a ClusterRole in a namespace, as an administrator grants it, and speak as them."""
    binding: Manifest = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{user.replace('@', '-')}-{role}"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
    }
    assert Caller.operator(plane).apply(namespace, binding).message == ""
    who = Caller(plane, user, (*groups, EVERYBODY))
    eventually(lambda: can(who, namespace, "get", "failoverplans"), f"{role} is not in force for {user}")
    return who


def can(who: Caller, namespace: str, verb: str, resource: str, group: str = "farshore.dev", name: str = "") -> bool:
    """Ask what `kubectl auth can-i` asks, as them; `resource` may name a subresource, as in "pods/log"."""
    attributes = {"namespace": namespace, "verb": verb, "group": group, "name": name}
    attributes |= dict(zip(("resource", "subresource"), resource.split("/"), strict=False))
    review: Manifest = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = who.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert answer.allowed, answer.message
    return bool(answer.body["status"]["allowed"])


def settled(ask: Callable[[], Answer], sentence: str, within: float = PATIENCE) -> None:
    """Wait until a policy is in force: the API server learns of one some moments after it was written."""
    deadline = time.monotonic() + within
    while sentence not in (message := ask().message):
        assert time.monotonic() < deadline, f"the policy is not in force: {message}"
        time.sleep(0.2)


def settled_policy(plane: ControlPlane, name: str) -> Manifest:
    """Return a policy once the controller has checked its types."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found: Manifest = yaml.safe_load(plane.kubectl("get", "validatingadmissionpolicy", name, "-o", "yaml").stdout)
        if found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]:
            return found
        assert time.monotonic() < deadline, f"{name} was not checked in {PATIENCE:.0f} s"
        time.sleep(0.2)
