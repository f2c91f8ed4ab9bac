"""Kubernetes Events: transitions that a person reads in `kubectl describe`. The same event again only counts up."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from farshore_engine.contract.faults import Fault
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.faults import AlreadyExists, NotFound
from farshore_operator.kube.resources import EVENT
from farshore_operator.report.happening import Happening

CONTROLLER = "farshore.dev/operator"
REMEMBERED = 4096
QUIET = timedelta(minutes=1)
"""The same event is not written again within this time."""

log = structlog.get_logger(__name__)


@dataclass
class _Told:
    name: str
    last: datetime
    count: int


class Recorder:
    """Writes events about objects. A failure to write one is logged and otherwise ignored: events are not state."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._lock = threading.Lock()
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def tell(self, about: Json, happening: Happening, now: datetime) -> None:
        """Record a happening about an object."""
        key = _key(about, happening)
        with self._lock:
            told = self._told.get(key)
            if told is not None and now - told.last < QUIET:
                told.count += 1
                return
            if told is None:
                told = self._told[key] = _Told(f"{about['metadata']['name']}.{key}", now, 1)
                while len(self._told) > REMEMBERED:
                    self._told.popitem(last=False)
            else:
                told.last, told.count = now, told.count + 1
        try:
            self._write(about, happening, told, now)
        except Fault as fault:
            log.warning("an event could not be written", event_reason=happening.reason, cause=str(fault))

    def _write(self, about: Json, happening: Happening, told: _Told, now: datetime) -> None:
        namespace = about["metadata"].get("namespace", "default")
        if told.count == 1:
            try:
                self._client.create(EVENT, namespace, self._body(about, happening, told, now))
                return
            except AlreadyExists:
                told.count += 1  # told by the operator before its restart
        series = {"count": told.count, "lastObservedTime": _micro(now)}
        try:
            self._client.merge(EVENT, namespace, told.name, {"series": series})
        except NotFound:  # it has expired: write it anew
            self._client.create(EVENT, namespace, self._body(about, happening, told, now))

    def _body(self, about: Json, happening: Happening, told: _Told, now: datetime) -> Json:
        meta = about["metadata"]
        return {
            "metadata": {"name": told.name, "namespace": meta.get("namespace", "default")},
            "eventTime": _micro(now),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": happening.action,
            "reason": happening.reason,
            "type": happening.type.value,
            "note": happening.note[:1024],
            "regarding": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": meta.get("namespace", ""),
                "name": meta["name"],
                "uid": meta.get("uid", ""),
            },
        }


def _key(about: Json, happening: Happening) -> str:
    text = "\0".join((about["metadata"].get("uid", ""), happening.type, happening.reason, happening.note))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _micro(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
