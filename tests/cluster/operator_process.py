"""A control plane of its own with the chart installed, and the operator as the chart's Deployment describes it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from kubernetes import config
from tests.cluster.api_objects import ROOT
from tests.cluster.chart_world import SYSTEM, install
from tests.cluster.waiting import PATIENCE, eventually

from farshore_cli.dev.controlplane import ControlPlane
from farshore_cli.dev.processes import Process, tail
from farshore_cli.dev.workload import workload, write_kubeconfig
from farshore_engine.contract.faults import WaitFault
from farshore_operator.api import KINDS
from farshore_operator.api.resource import Resource
from farshore_operator.kube.client import Client
from farshore_operator.kube.connection import authority_of
from farshore_operator.kube.resources import BY_KIND, WATCHED
from farshore_operator.report.invariants import violations

ResourceT = TypeVar("ResourceT", bound=Resource)
Manifest = dict[str, Any]


class Installation:
    """The product as a user installs it. As a context manager it is up inside and gone afterwards, also on failure.

    Attributes:
        admin: a client with all rights, as the person who applies manifests.
        authority: the CA (PEM) of the API server.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plane = ControlPlane(directory / "control-plane", progress=print)
        self._operator: Process | None = None

    def __enter__(self) -> Self:
        self.plane.start()
        try:
            install(self.plane)
            api = config.new_client_from_config(str(self.plane.kubeconfig))
            self.admin = Client(api, "test-admin")
            self.authority = authority_of(api)
            self.start_operator()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything."""
        if self._operator is not None:
            self._operator.kill()  # asked to, it takes six seconds to end, and keeps nothing that would be lost
        self.plane.stop()

    def start_operator(self) -> None:
        """Start the operator with the Deployment's arguments (but a free health port) and its ServiceAccount."""
        replace = {"--health-port=8080": "--health-port=0"}
        self._operator = workload(self.plane, SYSTEM, "farshore-operator", self.directory, replace=replace).start()

    def kill_operator(self) -> None:
        """End the operator as kill -9 does."""
        assert self._operator is not None
        self._operator.kill()

    def operator_log(self, lines: int = 40) -> str:
        """Return the end of the operator's log."""
        return tail(self.directory / "farshore-operator.log", lines)

    def namespace(self, name: str) -> str:
        """Make a namespace."""
        self.plane.kubectl("create", "namespace", name)
        return name

    def apply(self, namespace: str, *manifests: Manifest) -> None:
        """Apply manifests as kubectl does."""
        self.plane.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def farshore(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line as administrator."""
        environment = {**os.environ, **self.plane.environment()}
        command = [sys.executable, "-m", "farshore_cli.main", *words]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert not check or ran.returncode == 0, ran.stderr
        return ran

    def find(self, model: type[ResourceT], namespace: str, name: str) -> ResourceT | None:
        """Read an object and check the invariants of its status."""
        body = self.admin.get(BY_KIND[model.definition.kind], namespace, name)
        if body is None:
            return None
        found = model.of(body)
        status = getattr(found, "status", None)
        if hasattr(status, "conditions"):
            assert violations(found, status, datetime.now(UTC)) == [], f"{model.__name__} {name}: {status}"
        return found

    def get(self, model: type[ResourceT], namespace: str, name: str) -> ResourceT:
        """Read an object that must exist."""
        found = self.find(model, namespace, name)
        assert found is not None, f"there is no {model.__name__} {namespace}/{name}"
        return found

    def all(self, model: type[ResourceT], namespace: str) -> list[ResourceT]:
        """Read all objects of a kind."""
        return [model.of(body) for body in self.admin.list_all(BY_KIND[model.definition.kind], namespace)]

    def wait(
        self,
        model: type[ResourceT],
        namespace: str,
        name: str,
        until: Callable[[ResourceT], bool],
        within: float = PATIENCE,
    ) -> ResourceT:
        """Wait until an object is as wanted, checking the invariants each time it is looked at."""
        seen: ResourceT | None = None
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            with suppress(WaitFault):  # the API server did not answer in time
                seen = self.find(model, namespace, name)
                if seen is not None and until(seen):
                    return seen
            time.sleep(0.2)
        status = getattr(seen, "status", None)
        told = status.dump() if status is not None else None
        raise AssertionError(f"{model.__name__} {name} did not get there in {within} s: {told}\n{self.operator_log(8)}")

    def wait_gone(self, model: type[Resource], namespace: str, name: str, within: float = PATIENCE) -> None:
        """Wait until an object is gone."""
        eventually(lambda: self.find(model, namespace, name) is None, f"{model.__name__} {name} is still there", within)

    def check_invariants(self, namespace: str) -> None:
        """Check the status of every object."""
        models = {model.definition.kind: model for model in KINDS}
        for resource in WATCHED:
            for body in self.admin.list_all(resource, namespace):
                found = models[resource.kind].of(body)
                status = getattr(found, "status", None)
                if hasattr(status, "conditions"):
                    assert violations(found, status, datetime.now(UTC)) == []

    def client_as(self, namespace: str, account: str) -> Client:
        """Speak as a ServiceAccount."""
        path = self.directory / f"{namespace}-{account}.kubeconfig"
        write_kubeconfig(self.plane, namespace, account, path)
        return Client(config.new_client_from_config(str(path)), "farshore-processserver")

    def events(self, namespace: str) -> list[tuple[str, str, str]]:
        """Return (object, reason, note) of the events of a namespace."""
        text = self.plane.kubectl("-n", namespace, "get", "events.events.k8s.io", "-o", "yaml").stdout
        return [
            (f"{item['regarding']['kind']}/{item['regarding']['name']}", item["reason"], item.get("note", ""))
            for item in yaml.safe_load(text)["items"]
        ]


def samples(*kinds: str) -> list[Manifest]:
    """Return the sample manifests of some kinds."""
    found: list[Manifest] = []
    for file in sorted((ROOT / "manifests" / "samples").glob("*.yaml")):
        found += [one for one in yaml.safe_load_all(file.read_text()) if one and one["kind"] in kinds]
    return found


def condition(resource: Any, type_: str) -> str:
    """Return a condition's status, empty if it is not there."""
    found = resource.status.condition(type_)
    return found.status.value if found else ""


def message(resource: Any, type_: str = "Ready") -> str:
    """Return a condition's message."""
    found = resource.status.condition(type_)
    return found.message if found else ""


def reason(resource: Any, type_: str = "Ready") -> str:
    """Return a condition's reason."""
    found = resource.status.condition(type_)
    return found.reason if found else ""
