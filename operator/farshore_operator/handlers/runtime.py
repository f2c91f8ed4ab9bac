"""The operator at work: news enter the cache and the queue, workers reconcile, heartbeats are polled.

Nothing is kept that is not in API objects: a killed operator starts here again and goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import structlog

from farshore_engine.contract.faults import Fault
from farshore_operator.act.effects import Effects
from farshore_operator.act.perform import Performer
from farshore_operator.engines.siterecovery.driver import Driver
from farshore_operator.handlers.fanout import dependents, relevant
from farshore_operator.handlers.kinds import KINDS
from farshore_operator.handlers.queue import Key, WorkQueue
from farshore_operator.handlers.reconcile import Reconciler, Result
from farshore_operator.handlers.siterecovery import drive
from farshore_operator.handlers.vitals import Vitals
from farshore_operator.kube import siterecovery
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.events import Recorder
from farshore_operator.kube.leases import Heartbeats
from farshore_operator.kube.resources import PROCESS_SERVER, WATCHED, Resource
from farshore_operator.observe.revisions import Revisions
from farshore_operator.observe.secrets import Secrets
from farshore_operator.observe.world import World
from farshore_operator.report.metrics import Metrics
from farshore_operator.report.writer import StatusWriter
from farshore_operator.settings import Settings

log = structlog.get_logger(__name__)

LIST_AGAIN = 5.0
"""Seconds after which a listing that failed is tried again."""


class Runtime:
    """Runs the reconcilers. `told` is called for every event of the watches, in the event loop."""

    def __init__(self, settings: Settings, client: Client, instance: str, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._client = client
        self._loop = loop
        self.metrics = Metrics()
        self._cache = Cache(self._wrote)
        self._heartbeats = Heartbeats(settings.timing.lease_lost)
        secrets, revisions = Secrets(client, _now), Revisions(client, _now)
        self._world = World(self._cache, secrets, self._heartbeats, settings.timing, _now, revisions, client)
        self._performer = Performer(Effects(client, self._cache, _now, settings.timing))
        writer = StatusWriter(client, self._cache, Recorder(client, instance), self.metrics)
        self._reconciler = Reconciler(self._world, self._performer, writer)
        wishes = siterecovery.Wishes(self._cache, client.under(siterecovery.MANAGER), settings.namespaces)
        self._driver = Driver(wishes, _now)
        self._vitals = Vitals(self.metrics, self._world)
        self._queue = WorkQueue(time.monotonic)
        self._failures: dict[Key, int] = {}
        self._pool = ThreadPoolExecutor(settings.workers + 3, "reconcile")
        self._tasks: list[asyncio.Task[None]] = []
        self._listed = asyncio.Event()
        self._polled = asyncio.Event()
        self._pulse = time.monotonic()

    async def start(self) -> None:
        """Begin to work, and return when everything was listed once.

        Until then there is nothing to watch: kopf looks only once which kinds the API has.
        """
        loops: dict[str, Coroutine[Any, Any, None]] = {
            "resync": self._resync_forever(),
            "heartbeats": self._poll_heartbeats(),
            "pulse": self._beat(),
            "site recovery": drive(self._driver, self._listed, self._in_thread, self._settings.timing.site_recovery),
        }
        loops |= {f"worker {number}": self._work() for number in range(self._settings.workers)}
        self._tasks = [asyncio.create_task(_told(name, loop), name=name) for name, loop in loops.items()]
        await self._listed.wait()

    async def stop(self) -> None:
        """Stop the workers; what they were doing ends, or is repeated by the next operator."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def told(self, resource: Resource, deleted: bool, body: Json) -> None:
        """Take in news from a watch."""
        meta = body["metadata"]
        before = self._cache.get(resource.kind, meta["namespace"], meta["name"])
        news = self._cache.drop(resource.kind, body) if deleted else self._cache.put(resource.kind, body)
        if news:
            self._changed(resource.kind, before, body, deleted)

    def _wrote(self, kind: str, before: Json | None, body: Json) -> None:
        """Take in what a worker wrote: a decision may rest on it, its own included."""
        self._loop.call_soon_threadsafe(self._changed, kind, before, body, False)

    def live(self) -> str:
        """Say what is wrong if the event loop does not turn any more, or a part of the operator has ended."""
        ended = [task.get_name() for task in self._tasks if task.done()]
        if ended:
            return f"{', '.join(ended)} ended; the log says why"
        silent = time.monotonic() - self._pulse
        return f"the event loop has not turned for {silent:.0f} s" if silent > 60 else ""

    def ready(self) -> str:
        """Say what is missing until everything was listed once."""
        return "" if self._listed.is_set() else "the first listing is under way"

    def _changed(self, kind: str, before: Json | None, body: Json, deleted: bool) -> None:
        meta = body["metadata"]
        if kind in KINDS:
            self._queue.add(Key(kind, meta["namespace"], meta["name"]))
        if deleted or relevant(before) != relevant(body):
            for one in (body, before):
                if one is not None:
                    self._wake(dependents(self._cache, one, kind))

    def _wake(self, keys: set[Key]) -> None:
        for key in keys:
            if key.kind in KINDS:
                self._queue.add(key)

    async def _work(self) -> None:
        # A decision that knows a plan and not yet its runs, or no heartbeat yet, would be a wrong one.
        await self._listed.wait()
        await self._polled.wait()
        while True:
            key, waited = await self._queue.take()
            self.metrics.queue_wait.observe(waited)
            self.metrics.queue_length.set(len(self._queue))
            try:
                await self._reconcile(key)
            finally:
                self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        started = time.monotonic()
        failures = self._failures.get(key, 0)
        try:
            result = await self._in_thread(self._reconciler.reconcile, key, failures)
            self._vitals.show(key)
        except Exception:
            # One object that cannot be read must not end a worker: all of them would end, one after the other.
            log.exception("reconciliation broke", object=str(key))
            result = Result(Fault("the operator met a defect; its log says more", reason="InternalError"))
        self.metrics.duration.labels(key.kind).observe(time.monotonic() - started)
        self._settle(key, result)

    def _settle(self, key: Key, result: Result) -> None:
        fault = result.fault
        outcome = "failed" if fault else "gone" if result.gone else "done"
        self.metrics.reconciles.labels(key.kind, outcome).inc()
        if fault is None:
            self._failures.pop(key, None)
            self._queue.forgive(key)
            if result.again_in is not None:
                self._queue.add_after(key, result.again_in.total_seconds())
            return
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._queue.retry(key, getattr(fault, "retry_after", None))
        quiet = fault.reason == "Conflict"
        (log.debug if quiet else log.warning)(
            "reconciliation failed",
            object=str(key),
            reason=fault.reason,
            cause=str(fault),
            retry_seconds=round(delay, 1),
        )

    async def _resync_forever(self) -> None:
        while True:
            try:
                for resource in WATCHED:
                    await self._resync(resource)
                self._performer.granted.forget()
                self._listed.set()
                pause = self._settings.timing.resync.total_seconds()
            except Fault as fault:
                log.warning("listing failed", cause=str(fault))
                pause = LIST_AGAIN
            await asyncio.sleep(pause)

    async def _resync(self, resource: Resource) -> None:
        for namespace in self._settings.namespaces or (None,):
            items, version = await self._in_thread(self._client.list_with_version, resource, namespace)
            scope = None if namespace is None else [namespace]
            lost = self._cache.replace(resource.kind, scope, items, int(version))
            for body in lost:
                self._changed(resource.kind, body, body, deleted=True)
            for body in items:
                if resource.kind in KINDS:
                    self._queue.add(Key(resource.kind, body["metadata"]["namespace"], body["metadata"]["name"]))

    async def _poll_heartbeats(self) -> None:
        while True:
            try:
                changed = await self._in_thread(self._heartbeats.poll, self._client, self._settings.namespaces, _now())
                self._polled.set()
            except Fault as fault:
                log.warning("heartbeats could not be read", cause=str(fault))
                changed = []
            for namespace, name in changed:
                self._queue.add(Key(PROCESS_SERVER.kind, namespace, name))
                server = self._cache.get(PROCESS_SERVER.kind, namespace, name)
                if server is not None:
                    self._wake(dependents(self._cache, server, PROCESS_SERVER.kind))
            await asyncio.sleep(self._settings.timing.lease_poll.total_seconds())

    async def _beat(self) -> None:
        while True:
            self._pulse = time.monotonic()
            await asyncio.sleep(1.0)

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)


async def _told(name: str, loop: Coroutine[Any, Any, None]) -> None:
    """Run one of the loops; one that ends by a defect is told in the log, and shows in `/livez`."""
    try:
        await loop
    except Exception:
        log.exception("a part of the operator ended", part=name)
        raise


def _now() -> datetime:
    return datetime.now(UTC)
