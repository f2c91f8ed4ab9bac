"""The one writer of status: last, also after a failure, by server-side apply, and not at all when nothing changed."""

from __future__ import annotations

import threading
from datetime import datetime

from farshore_engine.contract.faults import Fault
from farshore_operator.api.resource import ResourceStatus
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.events import Recorder
from farshore_operator.kube.resources import Resource
from farshore_operator.report.conditions import KSTATUS, Seen, of_fault, settle
from farshore_operator.report.happening import Happening, transitions
from farshore_operator.report.metrics import Metrics


class StatusWriter:
    """Writes what the operator owns of an object's status, and tells transitions as events."""

    def __init__(self, client: Client, cache: Cache, recorder: Recorder, metrics: Metrics) -> None:
        self._client = client
        self._cache = cache
        self._recorder = recorder
        self._metrics = metrics
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str, str], tuple[str, Json]] = {}

    def write(
        self, resource: Resource, body: Json, before: ResourceStatus, after: ResourceStatus, foreign: frozenset[str]
    ) -> bool:
        """Make `after` the status of the object in `body`, except for the fields in `foreign`, which others own.

        Raises:
            Conflict: the object changed since it was read: decide anew.
            Fault: the API is away or refuses.
        """
        wanted = {field: value for field, value in after.dump().items() if field not in foreign}
        present = {field: value for field, value in (body.get("status") or {}).items() if field not in foreign}
        meta = body["metadata"]
        place = (resource.kind, meta["namespace"], meta["name"])
        if _plain(wanted) == _plain(present) or self._same_as_written(place, meta["resourceVersion"], wanted):
            return False
        target = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        answer = self._client.apply(resource, meta["namespace"], {"metadata": target, "status": wanted}, "status")
        self._cache.learn(resource.kind, answer)
        with self._lock:
            self._written[place] = (answer["metadata"]["resourceVersion"], wanted)
        self._metrics.status_writes.labels(resource.kind).inc()
        return True

    def tell(self, body: Json, happenings: tuple[Happening, ...], now: datetime) -> None:
        """Record events about an object."""
        for happening in happenings:
            self._recorder.tell(body, happening, now)

    def tell_transitions(self, body: Json, before: ResourceStatus, after: ResourceStatus, now: datetime) -> None:
        """Record what changed between two statuses."""
        self.tell(body, transitions(before, after), now)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Drop what is remembered of an object that is gone."""
        with self._lock:
            self._written.pop((kind, namespace, name), None)

    def _same_as_written(self, place: tuple[str, str, str], version: str, wanted: Json) -> bool:
        """Tell whether this very status was the last write: the API server may store it in another spelling."""
        with self._lock:
            return self._written.get(place) == (version, wanted)


def after_fault(status: ResourceStatus, fault: Fault, generation: int, now: datetime) -> ResourceStatus:
    """Return the status of an object whose reconciliation failed: the old one, with the fault as its health."""
    own = [
        Seen(one.type, {"True": True, "False": False}.get(one.status), one.reason, one.message)
        for one in status.conditions
        if one.type not in KSTATUS
    ]
    conditions = settle(status.conditions, of_fault(fault), own, generation, now)
    return status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _plain(value: object) -> object:
    """Return JSON without empty members, which the API server may or may not keep."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in (None, [], {})}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
