"""Who is woken by what, that one object that cannot be read stops nothing but itself, and what is told of that."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

import kopf
import pytest
import urllib3

from farshore_operator.act.finalizers import FINALIZER
from farshore_operator.decide.naming import FORCE_DELETE_ANNOTATION
from farshore_operator.handlers.fanout import dependents
from farshore_operator.handlers.health import HealthServer
from farshore_operator.handlers.queue import Key
from farshore_operator.handlers.runtime import Runtime
from farshore_operator.kube import watch
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Answer, Client
from farshore_operator.kube.connection import with_token
from farshore_operator.kube.faults import NotFound
from farshore_operator.kube.resources import PROTECTED_VM, WATCHED, Resource
from farshore_operator.report.metrics import Metrics
from farshore_operator.settings import Settings


def obj(kind: str, name: str, **parts: Any) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "resourceVersion": "7", "generation": 1}
    return {"apiVersion": "farshore.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": {}, **parts}


def test_a_plan_that_is_set_back_wakes_its_failed_run() -> None:
    """The clean-up of a failed failover waited for the next resync: nothing else told the run of the edit."""
    cache = Cache()
    owner = {"kind": "FailoverPlan", "name": "plan", "uid": "uid-plan"}
    cache.put("FailoverRun", obj("FailoverRun", "mine", spec={"owner": owner}, status={"phase": "Failed"}))
    cache.put("FailoverRun", obj("FailoverRun", "other", spec={"owner": {**owner, "uid": "another"}}))
    assert dependents(cache, obj("FailoverPlan", "plan"), "FailoverPlan") == {Key("FailoverRun", "shop", "mine")}


def runtime() -> Runtime:
    nowhere = Client(with_token("https://127.0.0.1:1", "", "none"), "test")
    return Runtime(Settings(), nowhere, "test", asyncio.get_running_loop())


def test_an_object_that_cannot_be_read_ends_no_worker() -> None:
    """Each look at it ended one worker, until none was left, while the operator went on to say that it was well."""

    async def story() -> None:
        operator = runtime()
        operator.told(PROTECTED_VM, False, obj("ProtectedVM", "web", spec={"policyRef": 3}))
        await operator._reconcile(Key("ProtectedVM", "shop", "web"))
        await operator._reconcile(Key("ProtectedVM", "shop", "gone"))
        await operator.stop()

    asyncio.run(story())


def test_what_is_left_behind_is_told_before_its_object_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever saw that the object was gone did not find the event yet; an operator killed in between never told it."""
    written: list[str] = []

    def call(self: Client, method: str, path: str, *_: object) -> Answer:
        if method == "GET":
            raise NotFound("there are no Secrets")
        written.append(f"{method} {path.partition('?')[0].rsplit('/', 1)[-1]}")
        return Answer({"metadata": {"namespace": "shop", "name": "web", "resourceVersion": "8"}}, None)

    monkeypatch.setattr(Client, "_call", call)
    site, other = {"siteRef": {"name": "stack"}}, {"siteRef": {"name": "shore"}}
    refs = {"policyRef": {"name": "standard"}, "vaultRef": {"name": "vault"}}
    spec = {"source": {**site, "address": "10.0.0.4"}, "target": other, **refs}
    body = obj("ProtectedVM", "web", spec=spec, status={"assignment": {"processServer": "ps", "epoch": 1}})
    forced = {"annotations": {FORCE_DELETE_ANNOTATION: "yes"}, "finalizers": [FINALIZER]}
    body["metadata"] |= {"deletionTimestamp": "2025-01-31T08:00:00Z", **forced}

    async def story() -> None:
        operator = runtime()
        operator.told(PROTECTED_VM, False, body)
        await operator._reconcile(Key("ProtectedVM", "shop", "web"))
        await operator.stop()

    asyncio.run(story())
    assert written == ["POST events", "PATCH web"]


def test_nothing_is_decided_before_everything_was_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that was started anew knew drills and plans before their runs, and said that those were deleted."""
    listed, begun = [], []

    async def story() -> None:
        operator = runtime()

        async def resync(resource: Resource) -> None:
            operator._queue.add(Key(resource.kind, "shop", "one"))
            await asyncio.sleep(0.01)
            listed.append(resource.kind)

        async def reconcile(key: Key) -> None:
            begun.append((key, len(listed)))

        monkeypatch.setattr(operator, "_resync", resync)
        monkeypatch.setattr(operator, "_reconcile", reconcile)
        monkeypatch.setattr(operator._heartbeats, "poll", lambda *_: [])
        await asyncio.wait_for(operator.start(), 60)
        async with asyncio.timeout(60):
            while not begun:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await operator.stop()

    asyncio.run(story())
    assert begun and {count for _, count in begun} == {len(WATCHED)}


def test_a_part_that_ended_is_told_by_livez(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        operator = runtime()

        async def broken() -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(operator, "_poll_heartbeats", broken)
        starting = asyncio.create_task(operator.start())
        async with asyncio.timeout(60):
            while "heartbeats ended" not in operator.live():
                await asyncio.sleep(0.01)
        await operator.stop()
        starting.cancel()

    asyncio.run(story())


def test_kopf_looks_for_the_kinds_only_when_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that was started before the CRDs watched nothing, and looked at changes every five minutes."""
    found = asyncio.Event()

    async def story() -> None:
        operator = runtime()

        async def resync(resource: object) -> None:
            if not found.is_set():
                raise NotFound("listing sites was refused (404): 404 page not found")

        monkeypatch.setattr(operator, "_resync", resync)
        monkeypatch.setattr("farshore_operator.handlers.runtime.LIST_AGAIN", 0.01)
        starting = asyncio.create_task(operator.start())
        await asyncio.sleep(0.1)
        assert not starting.done() and operator.ready() != ""
        found.set()
        await asyncio.wait_for(starting, 60)
        assert operator.ready() == ""
        await operator.stop()

    asyncio.run(story())


def test_an_api_server_that_answers_with_errors_is_waited_for_without_an_end() -> None:
    """An etcd that was away for a minute ended the operator: kopf gives up when its list of pauses is through."""
    settings = kopf.OperatorSettings()
    watch.configure(settings)
    pauses = settings.networking.error_backoffs
    assert not isinstance(pauses, float)
    for _ in range(2):  # each request begins with the short ones
        first = list(islice(pauses, 500))
        assert first[0] == 1 and sum(first) > 3 * 3600 and max(first) <= 30


def test_health_and_metrics_are_served() -> None:
    trouble = {"live": "", "ready": "the first listing is under way"}
    metrics = Metrics()
    metrics.set_phase("shop", "web-01", "Protected", ("Pending", "Protected"))
    server = HealthServer(("127.0.0.1", 0), lambda: trouble["live"], lambda: trouble["ready"], metrics.registry)
    server.start()

    def ask(path: str) -> tuple[int, str]:
        answer = urllib3.request("GET", f"http://127.0.0.1:{server.port}{path}", retries=False, timeout=60)
        return answer.status, answer.data.decode()

    try:
        assert ask("/livez") == (200, "ok\n")
        assert ask("/readyz") == (503, "the first listing is under way\n")
        trouble["ready"] = ""
        assert ask("/readyz") == (200, "ok\n")
        status, text = ask("/metrics")
        assert status == 200
        assert 'farshore_protectedvm_phase{name="web-01",namespace="shop",phase="Protected"} 1.0' in text
        assert ask("/else")[0] == 404
    finally:
        server.stop()
