"""The operator's small parts: the queue, the cache, heartbeats, conditions, keys, certificates, bandwidth, rights."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.unit.decide_world import NOW

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.processserver.identity import ServerIdentity
from farshore_operator.api.bandwidth import Bandwidth
from farshore_operator.crypto.certificates import (
    certificate_digest,
    make_authority,
    request_digest,
    sign_machine,
    sign_process_server,
)
from farshore_operator.crypto.sealing import public_key, seal, unseal
from farshore_operator.decide.bandwidth import limit_at
from farshore_operator.decide.keys import key_bytes
from farshore_operator.decide.naming import bounded
from farshore_operator.decide.rbac import appliance_rules, registrar_rules
from farshore_operator.handlers.queue import Key, WorkQueue
from farshore_operator.kube import faults
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Answer, Client
from farshore_operator.kube.connection import with_token
from farshore_operator.kube.leases import Heartbeats
from farshore_operator.kube.registrationkey import RegistrationKey
from farshore_operator.kube.resources import TASK
from farshore_operator.report.conditions import Seen, ready, settle, waiting

A, B = Key("ProtectedVM", "shop", "a"), Key("ProtectedVM", "shop", "b")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def play(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def test_events_that_come_together_are_one_piece_of_work() -> None:
    async def story() -> None:
        queue = WorkQueue(Clock())
        for key in (A, B, A, A):
            queue.add(key)
        assert [(await queue.take())[0] for _ in range(2)] == [A, B]
        assert len(queue) == 0

    play(story())


def test_a_key_is_never_worked_on_twice_at_once_and_no_event_is_lost() -> None:
    async def story() -> None:
        queue = WorkQueue(Clock())
        queue.add(A)
        await queue.take()
        queue.add(A)  # while it is worked on
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.take(), 0.05)
        queue.done(A)
        assert (await queue.take())[0] == A

    play(story())


def test_the_earliest_delay_counts_and_failures_wait_longer_each_time() -> None:
    async def story() -> None:
        clock = Clock()
        queue = WorkQueue(clock, jitter=lambda: 0.5)
        queue.add_after(A, 60)
        queue.add_after(A, 2)
        clock.now = 2.0
        assert (await queue.take())[0] == A
        queue.done(A)
        clock.now = 61.0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.take(), 0.05)
        assert [queue.retry(B) for _ in range(4)] == [0.5, 1.0, 2.0, 4.0]
        assert max(queue.retry(B) for _ in range(20)) == 60.0
        queue.forgive(B)
        assert queue.retry(B) == 0.5

    play(story())


def obj(name: str, version: int, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, "uid": uid, "resourceVersion": str(version)}}


def test_the_cache_never_goes_back_in_time() -> None:
    cache = Cache()
    assert cache.put("Site", obj("a", 5))
    assert not cache.put("Site", obj("a", 4)), "news that a watch brings late"
    assert not cache.put("Site", obj("a", 5)), "our own write, coming back"
    assert cache.drop("Site", obj("a", 6))
    assert not cache.put("Site", obj("a", 5)), "the late answer to a write does not bring it back"
    assert cache.put("Site", obj("a", 7, uid="new"))


def test_a_listing_finds_what_disappeared_unnoticed_but_keeps_what_is_newer() -> None:
    cache = Cache()
    for one in (obj("gone", 3), obj("kept", 4), obj("newer", 12)):
        cache.put("Site", one)
    lost = cache.replace("Site", None, [obj("kept", 4)], version=10)
    assert [body["metadata"]["name"] for body in lost] == ["gone"]
    assert [body["metadata"]["name"] for body in cache.all("Site")] == ["kept", "newer"]


def test_what_is_made_right_after_an_empty_list_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version was asked for after the list: a task that came in between was neither listed nor watched."""
    asked: list[str] = []

    def call(self: Client, method: str, path: str, doing: str) -> Answer:
        asked.append(path)
        return Answer({"metadata": {"resourceVersion": str(99 + len(asked))}, "items": []}, None)  # others write too

    monkeypatch.setattr(Client, "_call", call)
    nowhere = Client(with_token("https://127.0.0.1:1", "", "none"), "test")
    assert nowhere.list_with_version(TASK, "shop") == ([], "100")


def lease(renewed: datetime) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "ps"}, "spec": {"renewTime": renewed.isoformat()}}


def test_a_heartbeat_is_judged_by_when_it_was_seen_not_by_the_appliances_clock() -> None:
    beats = Heartbeats(timedelta(seconds=20))
    ahead = NOW + timedelta(minutes=4)  # its clock is four minutes ahead, and accepted
    assert beats.learn([lease(ahead)], NOW) == [("shop", "ps")]
    assert beats.connected("shop", "ps", NOW + timedelta(seconds=19))
    late = NOW + timedelta(seconds=21)
    assert beats.learn([lease(ahead)], late) == [("shop", "ps")], "the silence is news once"
    assert beats.learn([lease(ahead)], late) == []
    assert not beats.connected("shop", "ps", late)
    assert beats.learn([lease(ahead + timedelta(seconds=1))], late) == [("shop", "ps")]


def test_an_operator_that_starts_does_not_take_an_old_lease_for_a_heartbeat() -> None:
    beats = Heartbeats(timedelta(seconds=20))
    beats.learn([lease(NOW - timedelta(hours=1))], NOW)
    assert not beats.connected("shop", "ps", NOW)


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = settle((), waiting("Busy", "wait"), (Seen("Own", True, "Yes"),), 1, NOW)
    later = NOW + timedelta(minutes=1)
    second = settle(first, ready(), (Seen("Own", True, "StillYes"),), 2, later)
    by_type = {condition.type: condition for condition in second}
    assert by_type["Own"].last_transition_time == NOW and by_type["Own"].reason == "StillYes"
    assert by_type["Ready"].last_transition_time == later
    assert {condition.observed_generation for condition in second} == {2}
    assert [c.type for c in settle(second, ready(), (), 2, later)] == ["Ready", "Reconciling", "Stalled"]


def test_a_sealed_token_opens_with_the_right_key_for_the_right_owner_only() -> None:
    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    sealed = seal("token", public_key(key), "shop/ps")
    assert unseal(sealed, key, "shop/ps") == "token"
    damaged = base64.b64encode(base64.b64decode(sealed)[:-1] + b"x").decode()
    for box, opener, owner in ((sealed, other, "shop/ps"), (sealed, key, "shop/other"), (damaged, key, "shop/ps")):
        with pytest.raises(StopFault):
            unseal(box, opener, owner)
    with pytest.raises(StopFault):
        seal("token", "no key", "shop/ps")


def test_the_operator_decides_what_a_certificate_says(tmp_path: Any) -> None:
    now = datetime.now(UTC)
    ca = make_authority("shop", now, timedelta(days=3650))
    request = ServerIdentity(tmp_path, "anything").request
    machine = sign_machine(ca, request, "shop.web-01", now, timedelta(days=90))
    loaded = x509.load_pem_x509_certificate(machine.certificate.encode())
    loaded.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate.encode()))
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["farshore:machine:shop.web-01"], "not what the request asked for"
    assert certificate_digest(machine.certificate) == request_digest(request)
    server = sign_process_server(ca, request, "10.0.0.2", now, timedelta(days=90))
    names = x509.load_pem_x509_certificate(server.certificate.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["farshore-process-server"]
    with pytest.raises(StopFault):
        sign_machine(ca, "no request", "shop.web-01", now, timedelta(days=90))
    with pytest.raises(StopFault, match="--advertise"):
        sign_process_server(ca, request, "bücher.example", now, timedelta(days=90))
    assert ca.key not in repr(ca)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        pytest.param(b"x" * 32, True, id="raw"),
        pytest.param(base64.b64encode(b"x" * 32), True, id="base64"),
        pytest.param(base64.b64encode(b"x" * 32) + b"\n", True, id="base64-with-a-line-break"),
        pytest.param(b"x" * 31, False, id="short"),
        pytest.param(base64.b64encode(b"x" * 16), False, id="base64-of-too-little"),
    ],
)
def test_vault_key(value: bytes, good: bool) -> None:
    assert (key_bytes(value) is not None) is good


@pytest.mark.parametrize(
    ("moment", "limit"),
    [
        pytest.param("2025-01-31T09:00:00Z", 10, id="friday-in-the-day"),
        pytest.param("2025-01-31T18:00:00Z", 100, id="end-is-outside"),
        pytest.param("2025-01-31T23:00:00Z", 50, id="night-begins-on-friday"),
        pytest.param("2025-02-01T03:00:00Z", 50, id="and-goes-on-after-midnight"),
        pytest.param("2025-02-01T23:00:00Z", 100, id="saturday-night-is-free"),
    ],
)
def test_bandwidth_windows(moment: str, limit: int) -> None:
    windows = [
        {"from": "08:00", "to": "18:00", "limit": "10"},
        {"days": ["Fri"], "from": "22:00", "to": "06:00", "limit": "50"},
    ]
    bandwidth = Bandwidth.model_validate({"limit": "100", "schedule": windows})
    assert limit_at(bandwidth, datetime.fromisoformat(moment)) == limit
    assert limit_at(None, NOW) == 0


def test_rights_name_secrets_and_never_all_of_them() -> None:
    for secrets in ((), ("b", "a", "b")):
        rules = [rule for rule in appliance_rules("ps", secrets) if "secrets" in rule.resources]
        assert [(rule.verbs, rule.names) for rule in rules] == ([(("get",), ("a", "b"))] if secrets else [])
    everything = [*appliance_rules("ps", ("a",)), *registrar_rules()]
    assert not [rule for rule in everything if "*" in (*rule.verbs, *rule.resources, *rule.groups)]
    assert not [rule for rule in registrar_rules() if "secrets" in rule.resources]


@pytest.mark.parametrize(
    ("status", "reason", "family", "kind"),
    [
        pytest.param(409, "AlreadyExists", StopFault, faults.AlreadyExists, id="exists"),
        pytest.param(409, "Conflict", WaitFault, faults.Conflict, id="conflict"),
        pytest.param(401, "Unauthorized", WaitFault, faults.Unauthorized, id="unauthorized"),
        pytest.param(403, "Forbidden", WaitFault, faults.Forbidden, id="forbidden"),
        pytest.param(404, "NotFound", WaitFault, faults.NotFound, id="not-found"),
        pytest.param(422, "Invalid", StopFault, faults.Refused, id="refused-by-content"),
        pytest.param(429, "TooManyRequests", WaitFault, WaitFault, id="throttled"),
        pytest.param(503, "ServiceUnavailable", WaitFault, WaitFault, id="unavailable"),
    ],
)
def test_api_answers_become_faults(status: int, reason: str, family: type[Fault], kind: type[Fault]) -> None:
    body = json.dumps({"reason": reason, "message": "because"}).encode()
    fault = faults.refused("writing Site shop/a", status, body, {"Retry-After": "7"})
    assert isinstance(fault, family) and isinstance(fault, kind)
    assert fault.message == f"writing Site shop/a was refused ({status}): because"
    if status >= 429 and isinstance(fault, WaitFault):
        assert fault.retry_after == 7.0


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        pytest.param(b'{"reason": "NotFound", "details": {"name": "a", "kind": "sites"}}', "", id="an object"),
        pytest.param(b'{"reason": "NotFound", "details": {}}', faults.NO_KIND, id="a kind of a group that exists"),
        pytest.param(b"404 page not found", faults.NO_KIND, id="the whole group"),
    ],
)
def test_a_cluster_without_our_kinds_is_told_from_a_missing_object(body: bytes, remedy: str) -> None:
    assert faults.refused("listing sites in shop", 404, body, {}).remedy == remedy


def test_the_cause_of_a_broken_connection_is_said_without_the_library_s_wrapping() -> None:
    pool: Any = urllib3.HTTPSConnectionPool("k.example", 6443)
    connection: Any = urllib3.connection.HTTPSConnection("k.example", 6443)
    inner = urllib3.exceptions.NewConnectionError(connection, "Connection refused")
    fault = faults.unreachable("listing sites", urllib3.exceptions.MaxRetryError(pool, "/apis", inner))
    expected = "the Kubernetes API could not be reached while listing sites: k.example:6443: Connection refused"
    assert fault.message == expected


def test_a_server_of_another_ca_is_told_from_one_that_is_away() -> None:
    pool: Any = None
    error = urllib3.exceptions.MaxRetryError(pool, "/", urllib3.exceptions.SSLError("bad certificate"))
    assert faults.unreachable("asking", error).reason == faults.UNTRUSTED
    away = urllib3.exceptions.MaxRetryError(pool, "/", urllib3.exceptions.ProtocolError("refused"))
    assert faults.unreachable("asking", away).reason == "APIUnreachable"


def test_a_registration_key_survives_its_file_and_hides_its_token() -> None:
    key = RegistrationKey("https://k", "PEM", "shop", "stack", "key-1", NOW, "s3cret")
    assert RegistrationKey.parse(key.dump(), "file") == key
    assert "s3cret" not in repr(key)
    for text, why in (("{", "not YAML"), ("a: b", "apiVersion"), (key.dump().replace("token: s3cret", ""), "token")):
        with pytest.raises(StopFault, match=why):
            RegistrationKey.parse(text, "file")
    assert replace(key, site="x") != key


def test_long_names_stay_distinct() -> None:
    one, two = "a" * 300 + "1", "a" * 300 + "2"
    assert len(bounded(one)) <= 253 and bounded(one) != bounded(two) and bounded("short") == "short"


def test_what_was_written_is_news_even_when_the_watch_brings_it_later() -> None:
    """A run that the operator had just created was never looked at when its answer came before the watch's event."""
    told: list[tuple[str, Any]] = []
    cache = Cache(lambda kind, before, body: told.append((kind, before)))
    cache.learn("FailoverRun", obj("run", 5))
    assert not cache.put("FailoverRun", obj("run", 5)), "so the watch cannot be what wakes the queue"
    assert told == [("FailoverRun", None)]
    cache.learn("FailoverRun", obj("run", 5))
    assert len(told) == 1
