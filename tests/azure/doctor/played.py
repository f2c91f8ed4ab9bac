"""The objects of a namespace as `farshore doctor` reads them, without a cluster."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from farshore_cli.doctoring.cluster import Namespace
from farshore_engine.contract.replication import Check, CheckResult

NAMESPACE = "shop"


@dataclass
class PlayedCluster:
    """Objects by kind."""

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, kind: str, name: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
        meta = {"name": name, "namespace": NAMESPACE, "generation": 1, "uid": f"uid-{name}", **more.pop("metadata", {})}
        body = {"apiVersion": "farshore.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec, **more}
        self.objects.setdefault(kind, []).append(body)
        return body

    def secret(self, name: str, **values: str | bytes) -> None:
        data = {
            key: base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()
            for key, value in values.items()
        }
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "data": data}
        self.objects.setdefault("Secret", []).append(body)

    def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any] | None:
        return next((one for one in self.list_all(resource, namespace) if one["metadata"]["name"] == name), None)

    def list_all(self, resource: Any, namespace: str | None) -> list[dict[str, Any]]:
        return self.objects.get(resource.kind, [])

    def create(self, resource: Any, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        self.objects.setdefault(resource.kind, []).append(body)
        return body

    def merge(self, resource: Any, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Annotations only, as a merge patch sets them."""
        found = self.get(resource, namespace, name)
        assert found is not None and set(body) == {"metadata"} and set(body["metadata"]) == {"annotations"}
        kept = {**found["metadata"].get("annotations", {}), **body["metadata"]["annotations"]}
        found["metadata"]["annotations"] = {key: value for key, value in kept.items() if value is not None}
        return found

    @property
    def where(self) -> Namespace:
        return Namespace(self, NAMESPACE)


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    """The checks by name; no two have the same one."""
    found = {one.name: one for one in checks}
    assert len(found) == len(checks), [one.name for one in checks]
    return found


def named(checks: tuple[Check, ...], result: CheckResult) -> set[str]:
    return {one.name for one in checks if one.result is result}


def errors(checks: tuple[Check, ...]) -> set[str]:
    """The names of what is in the way; each says what to do."""
    wrong = {one.name for one in checks if one.result is CheckResult.ERROR}
    assert all(one.remedy for one in checks if one.result is CheckResult.ERROR), checks
    return wrong
