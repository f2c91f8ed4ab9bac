"""Which Git revision Flux or Argo CD applied to an object, where the operator may read that; it holds up no run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from farshore_engine.contract.faults import Fault
from farshore_operator.decide.origin import Applied, Applier
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.resources import APPLICATION, HELM_RELEASE, KUSTOMIZATION, Resource

FRESH = timedelta(seconds=3)
"""How long an answer is good; a plan is looked at several times while its run begins."""
KINDS = {resource.kind: resource for resource in (KUSTOMIZATION, HELM_RELEASE, APPLICATION)}
REVISION_LENGTH = 253


class Revisions:
    """Looks revisions up, and remembers the answer for some seconds. Thread-safe."""

    def __init__(self, client: Client, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[Applier, tuple[datetime, Applied | None]] = {}

    def of(self, applier: Applier) -> Applied | None:
        """Return what an applier applied, None if it is not there, cannot be read, or does not say."""
        now = self._now()
        with self._lock:
            known = self._known.get(applier)
        if known is not None and now - known[0] < FRESH:
            return known[1]
        found = self._look(applier)
        with self._lock:
            self._known = {one: entry for one, entry in self._known.items() if now - entry[0] < FRESH}
            self._known[applier] = (now, found)
        return found

    def _look(self, applier: Applier) -> Applied | None:
        for namespace in applier.namespaces:
            body = self._read(KINDS[applier.kind], namespace, applier.name)
            revision = revision_of(body) if body is not None else ""
            if revision:
                return Applied(f"{applier.kind} {namespace}/{applier.name}"[:REVISION_LENGTH], revision)
        return None

    def _read(self, resource: Resource, namespace: str, name: str) -> Json | None:
        try:
            return self._client.get(resource, namespace, name)
        except Fault:  # the right is not granted, or the API is away: the record then lacks the revision
            return None


def revision_of(body: Json) -> str:
    """Return the revision that is being applied or was applied last.

    Flux writes `lastAttemptedRevision` before it applies, and `lastAppliedRevision` when what it applied is healthy.
    Argo CD begins a sync with `operationState.syncResult.revision`.
    """
    status: Any = body.get("status") or {}
    if body.get("kind") == APPLICATION.kind:
        state = status.get("operationState") or {}
        result, sync = state.get("syncResult") or {}, status.get("sync") or {}
        several = result.get("revisions") or sync.get("revisions") or []
        found = result.get("revision") or sync.get("revision") or ",".join(map(str, several))
    else:
        found = status.get("lastAttemptedRevision") or status.get("lastAppliedRevision") or ""
    return str(found)[:REVISION_LENGTH]
