"""Typed access to what is known of the cluster. Objects are parsed once for each version of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from farshore_operator.api.resource import Resource
from farshore_operator.decide.origin import Applied, Applier
from farshore_operator.decide.references import SecretUse
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.leases import Heartbeats
from farshore_operator.kube.resources import JOB
from farshore_operator.observe.revisions import Revisions
from farshore_operator.observe.secrets import Secrets
from farshore_operator.settings import Timing

ResourceT = TypeVar("ResourceT", bound=Resource)


class World:
    """The cluster as observers see it. Thread-safe, read-only."""

    def __init__(
        self,
        cache: Cache,
        secrets: Secrets,
        heartbeats: Heartbeats,
        timing: Timing,
        now: Callable[[], datetime],
        revisions: Revisions | None = None,
        client: Client | None = None,
    ) -> None:
        self.cache = cache
        self.secrets = secrets
        self.heartbeats = heartbeats
        self.timing = timing
        self.now = now
        self._revisions = revisions
        self._client = client
        self._lock = threading.Lock()
        self._parsed: dict[tuple[str, str, str], tuple[str, Resource]] = {}

    def find(self, model: type[ResourceT], namespace: str, name: str) -> ResourceT | None:
        """Return an object, None if it does not exist."""
        body = self.cache.get(model.definition.kind, namespace, name)
        return None if body is None else self.parse(model, body)

    def all(
        self, model: type[ResourceT], namespace: str, test: Callable[[Json], bool] = lambda _: True
    ) -> list[ResourceT]:
        """Return the objects of a namespace whose JSON passes `test`, sorted by name."""
        return [self.parse(model, body) for body in self.cache.all(model.definition.kind, namespace) if test(body)]

    def count(self, model: type[Resource], namespace: str, test: Callable[[Json], bool]) -> int:
        """Count the objects of a namespace whose JSON passes `test`, without parsing them."""
        return sum(1 for body in self.cache.all(model.definition.kind, namespace) if test(body))

    def parse(self, model: type[ResourceT], body: Json) -> ResourceT:
        """Return the model of an object."""
        meta = body["metadata"]
        place = (model.definition.kind, meta.get("namespace", ""), meta["name"])
        version = f"{meta.get('uid')}/{meta.get('resourceVersion')}"
        with self._lock:
            known = self._parsed.get(place)
        if known is not None and known[0] == version and isinstance(known[1], model):
            return known[1]
        parsed = model.of(body)
        with self._lock:
            self._parsed[place] = (version, parsed)
        return parsed

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Drop what was parsed of an object that is gone."""
        with self._lock:
            self._parsed.pop((kind, namespace, name), None)

    def secret(
        self, namespace: str, field: str, name: str, keys: tuple[str, ...] = (), *, encryption_key: bool = False
    ) -> SecretUse:
        """Look a referred Secret up.

        Raises:
            Fault: the API is away or refuses.
        """
        found = self.secrets.keys(namespace, name)
        if found is None:
            return SecretUse(field, name, keys)
        bad = frozenset(key for key in keys if encryption_key and key not in found.encryption_keys)
        empty = frozenset(key for key, length in found.lengths.items() if length == 0)
        return SecretUse(field, name, keys, frozenset(found.lengths), empty, bad, "32 bytes, raw or in base64")

    def revision(self, applier: Applier) -> Applied | None:
        """Return what Flux or Argo CD applied, None where that cannot be read."""
        return self._revisions.of(applier) if self._revisions is not None else None

    def job(self, namespace: str, name: str) -> Json | None:
        """Read a Job, None if it does not exist.

        Raises:
            Fault: the API is away or refuses.
        """
        return self._client.get(JOB, namespace, name) if self._client is not None else None


def spec_ref(body: Json, field: str, *more: str) -> str:
    """Return the name in a reference such as `spec.policyRef.name` or (`target`, `siteRef`), empty if absent."""
    node = body.get("spec", {})
    for part in (field, *more):
        node = node.get(part) or {}
    return str(node.get("name", "")) if isinstance(node, dict) else ""
