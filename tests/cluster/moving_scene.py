"""A protected machine between two sites, for tests of hooks and of the commands that move machines.

Both share one control plane with one operator: a namespace for each test keeps them apart.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.operator_process import Installation, condition, samples
from tests.cluster.people import person
from tests.cluster.played_appliance import PlayedAppliance
from tests.cluster.waiting import eventually

from farshore_operator.api import FailoverPlan, FailoverRun, ProtectedVM
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.protectedvm import ProtectionPhase
from farshore_operator.kube.resources import FAILOVER_PLAN

GROUND = ("Secret", "RecoveryVault", "Site", "ReplicationPolicy")
VM, PLAN = "web-01", "shop"
KUSTOMIZATIONS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "kustomizations.kustomize.toolkit.fluxcd.io"},
    "spec": {
        "group": "kustomize.toolkit.fluxcd.io",
        "names": {"kind": "Kustomization", "listKind": "KustomizationList", "plural": "kustomizations"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


@pytest.fixture(scope="session")
def moving_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("moving")) as up:
        up.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(KUSTOMIZATIONS))
        up.plane.kubectl("wait", "--for=condition=Established", "--timeout=120s", "crd", "--all")
        yield up


class Scene:
    """A protected machine between two sites."""

    def __init__(self, world: Installation, namespace: str, shore: PlayedAppliance) -> None:
        self.world, self.namespace, self.shore = world, namespace, shore

    def plan(self, before: Sequence[Any] = (), after: Sequence[Any] = (), **more: Any) -> None:
        """Apply the plan with its machines at the source, and wait until that was seen."""
        plan = samples("FailoverPlan")[0]
        group = {"name": "web", "members": [{"name": VM}], "before": list(before), "after": list(after)}
        plan["spec"] |= {"groups": [group], "mode": "unplanned", **more}
        self.world.apply(self.namespace, plan)
        self.world.wait(FailoverPlan, self.namespace, PLAN, lambda plan: plan.status.edit is not None)

    def fail_over(self) -> None:
        self.world.admin.merge(FAILOVER_PLAN, self.namespace, PLAN, {"spec": {"activeSite": "recovery"}})

    def run(self) -> FailoverRun:
        """Return the failover, as soon as there is one."""

        def found() -> list[FailoverRun]:
            runs = self.world.all(FailoverRun, self.namespace)
            return [run for run in runs if run.spec.kind is RunKind.FAILOVER]

        eventually(lambda: bool(found()), "no run began")
        return found()[0]

    def wait_run(self, name: str, until: Any) -> FailoverRun:
        return self.world.wait(FailoverRun, self.namespace, name, until)


def registrars(world: Installation, namespace: str) -> set[str]:
    """Return the sites whose registrar the operator has made."""
    listed = world.plane.kubectl("-n", namespace, "get", "rolebindings", "-o", "name").stdout.split()
    return {name.partition("farshore-registrar-")[2] for name in listed}


@pytest.fixture
def scene(moving_world: Installation, tmp_path: Path) -> Iterator[Scene]:
    world = moving_world
    namespace = world.namespace(f"moving-{secrets.token_hex(3)}")
    world.apply(namespace, *samples(*GROUND))
    with ExitStack() as stack:
        eventually(lambda: registrars(world, namespace) >= {"stack", "shore"}, "no registrars")
        stack.enter_context(PlayedAppliance(world, namespace, "stack", "ps-stack", tmp_path))
        shore = stack.enter_context(PlayedAppliance(world, namespace, "shore", "ps-shore", tmp_path))
        world.apply(namespace, *samples("ProtectedVM"))
        world.wait(
            ProtectedVM,
            namespace,
            VM,
            lambda vm: vm.status.phase is ProtectionPhase.PROTECTED and condition(vm, "FailoverReady") == "True",
        )
        yield Scene(world, namespace, shore)
        world.check_invariants(namespace)


def approve(scene: Scene, run: str, user: str, *groups: str, answer: str = "Approve") -> None:
    who = person(scene.world.plane, scene.namespace, user, "farshore-approver", *groups)
    spec = {"run": run, "hook": "go", "answer": answer, "user": user, "groups": [*groups], "comment": "still light"}
    head = {"apiVersion": "farshore.dev/v1alpha1", "kind": "Approval", "metadata": {"name": f"by-{user}"}}
    assert who.create(scene.namespace, {**head, "spec": spec}).message == ""
