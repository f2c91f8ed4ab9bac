"""A copy of the namespace's resources, kept current by watches, and kept as it was while the API is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from farshore_engine.contract.faults import Fault
from farshore_operator.api import Resource
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.resources import (
    PROCESS_SERVER,
    PROTECTED_VM,
    RECOVERY_VAULT,
    REPLICATION_POLICY,
    SITE,
    TASK,
)
from farshore_operator.kube.resources import Resource as ApiResource

WATCHED = (PROTECTED_VM, TASK, PROCESS_SERVER, RECOVERY_VAULT, REPLICATION_POLICY, SITE)
ResourceT = TypeVar("ResourceT", bound=Resource)
RETRY_FIRST, RETRY_LAST = 0.5, 10.0

log = structlog.get_logger(__name__)


class Mirror:
    """Watches one namespace, a thread for each kind.

    Args:
        changed: called after every change, in a watcher's thread; must return at once.
    """

    def __init__(self, client: Client, namespace: str, changed: Callable[[], None]) -> None:
        self._client = client
        self._namespace = namespace
        self._changed = changed
        self._cache = Cache()
        self._stop = threading.Event()
        self._listed = {resource.kind: threading.Event() for resource in WATCHED}
        self._threads = [
            threading.Thread(target=self._follow, args=(resource,), name=f"watch-{resource.plural}", daemon=True)
            for resource in WATCHED
        ]

    def start(self) -> None:
        """Start watching."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop watching; threads end by themselves when their streams do."""
        self._stop.set()

    def complete(self, timeout: float) -> bool:
        """Wait until every kind was listed once; False if that takes longer."""
        return all(event.wait(timeout) for event in self._listed.values())

    def find(self, model: type[ResourceT], name: str) -> ResourceT | None:
        """Return an object, None if it does not exist."""
        body = self._cache.get(model.definition.kind, self._namespace, name)
        return None if body is None else model.of(body)

    def all(self, model: type[ResourceT]) -> list[ResourceT]:
        """Return all objects of a kind, sorted by name."""
        return [model.of(body) for body in self._cache.all(model.definition.kind, self._namespace)]

    def learn(self, kind: str, body: Json) -> None:
        """Take in the answer to a write of our own."""
        if self._cache.put(kind, body):
            self._changed()

    def _follow(self, resource: ApiResource) -> None:
        pause = RETRY_FIRST
        while not self._stop.is_set():
            try:
                version = self._list(resource)
                pause = RETRY_FIRST
                while not self._stop.is_set():
                    version = self._watch(resource, version)
            except Fault as fault:
                log.warning("watching failed", kind=resource.kind, cause=fault.message, retry_seconds=pause)
            except Exception:  # a thread that ends would leave its kind as it is, for ever and unnoticed
                log.exception("watching failed", kind=resource.kind, retry_seconds=pause)
            self._stop.wait(pause)
            pause = min(RETRY_LAST, pause * 2)

    def _list(self, resource: ApiResource) -> str:
        items, version = self._client.list_with_version(resource, self._namespace)
        self._cache.replace(resource.kind, [self._namespace], items, int(version))
        self._listed[resource.kind].set()
        self._changed()
        return version

    def _watch(self, resource: ApiResource, version: str) -> str:
        for kind, body in self._client.watch(resource, self._namespace, version):
            version = str(body["metadata"]["resourceVersion"])
            if kind == "BOOKMARK":
                continue
            news = self._cache.drop(resource.kind, body) if kind == "DELETED" else self._cache.put(resource.kind, body)
            if news:
                self._changed()
            if self._stop.is_set():
                break
        return version
