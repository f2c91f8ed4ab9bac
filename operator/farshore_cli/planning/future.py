"""The cluster as it would be with the manifests applied. What may not be asked is taken as good, and that is said."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from pydantic import ValidationError

from farshore_cli.planning.cluster import Cluster, Declined, NoDryRun
from farshore_cli.planning.manifests import Json, Manifest, Tree
from farshore_operator.api import KINDS
from farshore_operator.api.generate import crd
from farshore_operator.decide.origin import ARGO_CD, FLUX_HELM, FLUX_KUSTOMIZE
from farshore_operator.decide.references import SecretUse
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.leases import Heartbeat, Heartbeats
from farshore_operator.observe.secrets import Secrets
from farshore_operator.observe.world import World
from farshore_operator.settings import Timing

MANAGER = "farshore-plan"
GIT_MANAGERS = (FLUX_KUSTOMIZE, FLUX_HELM, *ARGO_CD)
MODELS = {kind.definition.kind: kind for kind in KINDS}
BY_GIT = "is changed in Git"
"""What the chart's policy for approval by Git says: whoever reads this is not who applies the change."""


@dataclass(frozen=True)
class Change:
    """One manifest: the object before and after, how that is known, and why it would be refused (empty if not)."""

    manifest: Manifest
    before: Json | None
    after: Json
    checked: str
    refused: str = ""

    @property
    def differs(self) -> bool:
        """Whether the object would be made or changed."""
        return self.before is None or bool(self.fields)

    @property
    def fields(self) -> list[tuple[str, str, str]]:
        """Return (path, before, after) of what would differ in the spec."""
        before = _flat(self.before.get("spec"), "spec") if self.before is not None else {}
        after = _flat(self.after.get("spec"), "spec")
        paths = [*before, *(path for path in after if path not in before)]
        return [
            (path, before.get(path, ""), after.get(path, "")) for path in paths if before.get(path) != after.get(path)
        ]


def changes(tree: Tree, cluster: Cluster, live: dict[tuple[str, str, str], Json]) -> list[Change]:
    """Return what each manifest would do, by a dry run, or by its schema where that may not be asked."""
    return [_change(one, cluster, live.get((one.kind, one.namespace, one.name))) for one in tree.manifests]


def _change(manifest: Manifest, cluster: Cluster, before: Json | None) -> Change:
    try:
        after = cluster.dry_run(manifest, _manager(before))
        return Change(manifest, before, _placed(after, manifest), "dry run")
    except NoDryRun as fault:
        why = f"schema only: {fault.message}"
    except Declined as fault:
        if BY_GIT not in fault.message:
            return Change(manifest, before, _merged(manifest, before), "dry run", fault.message)
        why = "schema only: this change is for Git's own account, which approval by Git lets through"
    return Change(manifest, before, _merged(manifest, before), why, _schema_fault(manifest))


def _manager(before: Json | None) -> str:
    """Return the field manager that applies from Git, so that a field which the tree has lost is seen to go."""
    entries = before["metadata"].get("managedFields") or () if before is not None else ()
    return next((entry["manager"] for entry in entries if entry.get("manager") in GIT_MANAGERS), MANAGER)


def _placed(body: Json, manifest: Manifest) -> Json:
    return {"apiVersion": manifest.body["apiVersion"], "kind": manifest.kind, **body}


def _merged(manifest: Manifest, before: Json | None) -> Json:
    """Return the object as it would be if the tree said all of its spec."""
    body = copy.deepcopy(manifest.body)
    meta, old = body["metadata"], (before or {}).get("metadata") or {}
    model = MODELS[manifest.kind]
    try:
        spec = model.model_fields["spec"].annotation
        body["spec"] = cast(Any, spec).model_validate(body.get("spec") or {}).dump()
    except ValidationError:
        pass  # `_schema_fault` says what is wrong with it
    same = before is not None and before.get("spec") == body.get("spec")
    merged = {
        **old,
        "name": manifest.name,
        "namespace": manifest.namespace,
        "uid": old.get("uid") or f"new-{manifest.name}",
        "generation": int(old.get("generation") or 0) + (0 if same else 1),
        "resourceVersion": old.get("resourceVersion") or "1",
        "labels": {**(old.get("labels") or {}), **(meta.get("labels") or {})},
        "annotations": {**(old.get("annotations") or {}), **(meta.get("annotations") or {})},
    }
    return {**body, "metadata": merged, "status": (before or {}).get("status") or {}}


def _schema_fault(manifest: Manifest) -> str:
    """Say what the kind's schema does not allow, empty if nothing; its rules are known to the API server only."""
    kind = MODELS[manifest.kind]
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    unknown = _unknown(schema, manifest.body.get("spec") or {}, "spec")
    if unknown:
        return f"{manifest.kind} {manifest.name} has fields that do not exist: {', '.join(unknown)}"
    try:
        kind.of(manifest.body)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{manifest.kind} {manifest.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return ""


def _unknown(schema: Json, value: Any, path: str) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _unknown(schema.get("items") or {}, item, f"{path}[]")]
    fields = schema.get("properties")
    if not isinstance(value, dict) or fields is None:
        return []
    return [
        name
        for key, item in value.items()
        for name in (_unknown(fields[key], item, f"{path}.{key}") if key in fields else [f"{path}.{key}"])
    ]


def _flat(value: Any, path: str) -> dict[str, str]:
    """Return the leaves of a spec by their path; items of a list by their name where they have one."""
    if isinstance(value, dict) and value:
        return {key: text for name, item in value.items() for key, text in _flat(item, f"{path}.{name}").items()}
    if isinstance(value, list) and value:
        named = [item.get("name") if isinstance(item, dict) else None for item in value]
        marks = [str(name) if name else str(number) for number, name in enumerate(named)]
        return {
            key: text
            for mark, item in zip(marks, value, strict=True)
            for key, text in _flat(item, f"{path}[{mark}]").items()
        }
    return {path: "" if value is None else str(value)}


class FutureWorld(World):
    """A world that nobody runs in: connections as the operator told them, Secrets as far as they may be known."""

    def __init__(self, objects: Iterable[Json], tree: Tree, cluster: Cluster, now: Callable[[], datetime]) -> None:
        cache = Cache()
        for body in objects:
            cache.put(body["kind"], body)
        super().__init__(cache, cast(Secrets, None), _Told(cache), Timing(), now)
        self._tree = tree
        self._cluster = cluster
        self.unknown_secrets: set[str] = set()

    def secret(
        self, namespace: str, field: str, name: str, keys: tuple[str, ...] = (), *, encryption_key: bool = False
    ) -> SecretUse:
        """Take a Secret as good that is declared, exists, or may not be read."""
        there = (namespace, name) in self._tree.secrets or self._cluster.has_secret(namespace, name)
        if there is None:
            self.unknown_secrets.add(f"{namespace}/{name}")
        found = frozenset(keys) if there is None or there else None
        return SecretUse(field, name, keys, found)


class _Told(Heartbeats):
    """Heartbeats as the operator told them in the status of each process server."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(Timing().lease_lost)
        self._cache = cache

    def of(self, namespace: str, name: str) -> Heartbeat | None:
        """Return none: a Lease may not be read."""
        return None

    def connected(self, namespace: str, name: str, now: datetime) -> bool:
        """Tell whether the operator says that it is ready."""
        body = self._cache.get("ProcessServer", namespace, name) or {}
        conditions = (body.get("status") or {}).get("conditions") or ()
        return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
