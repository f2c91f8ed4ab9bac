"""Calls of web services for hooks: what counts as an answer, what is sent, and what is never told."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from farshore_operator.act import webhooks
from farshore_operator.act.effects import Effects
from farshore_operator.api.hook import HTTPHook
from farshore_operator.decide.actions import CallService, HookAnswered, ObjectId
from farshore_operator.settings import Timing

VALUE = "Bearer 8c0ffee"
HEADERS = {"type": "farshore.dev/hook-headers", "data": {"Authorization": base64.b64encode(VALUE.encode()).decode()}}


class Service:
    """Answers with these statuses, the last one for ever; a Location comes with a redirect."""

    def __init__(self, *statuses: int) -> None:
        self.seen: list[dict[str, str]] = []
        service, answers = self, [*statuses]

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                service.seen.append(dict(self.headers))
                self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "6")
                self.end_headers()
                self.wfile.write(b"secret")

            def do_POST(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/switch?token=hidden"


@pytest.fixture
def services() -> Iterator[Any]:
    made: list[Service] = []

    def make(*statuses: int) -> Service:
        made.append(Service(*statuses))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


class Secrets:
    def __init__(self, body: dict[str, Any] | None) -> None:
        self._body = body

    def get(self, *_: Any) -> dict[str, Any] | None:
        return self._body


def call(url: str, secret: dict[str, Any] | None = None, *, seconds: float = 30.0, **http: Any) -> HookAnswered:
    now = datetime.now(UTC)
    hook = HTTPHook.model_validate({"url": url, **http})
    owner = ObjectId("FailoverRun", "shop", "a-run", "uid")
    action = CallService(owner, "web/before/lb", hook, "{}", "uid/web/before/lb", now + timedelta(seconds=seconds))
    client: Any = Secrets(secret)
    cache: Any = None
    (answered,) = webhooks.perform(Effects(client, cache, lambda: datetime.now(UTC), Timing()), action)
    assert isinstance(answered, HookAnswered)
    assert VALUE not in str(answered) and "secret" not in answered.message and "hidden" not in answered.message
    return answered


@pytest.mark.parametrize(
    ("statuses", "succeeded", "calls"),
    [
        pytest.param((200,), True, 1, id="ok"),
        pytest.param((204,), True, 1, id="no-content"),
        pytest.param((503, 429, 200), True, 3, id="busy-then-ok"),
        pytest.param((404,), False, 1, id="not-found"),
        pytest.param((302,), False, 1, id="a-redirect-is-not-followed"),
        pytest.param((401, 200), False, 1, id="unauthorized"),
    ],
)
def test_an_answer(services: Any, statuses: tuple[int, ...], succeeded: bool, calls: int) -> None:
    service = services(*statuses)
    assert call(service.url).succeeded is succeeded
    assert len(service.seen) == calls
    assert {one["Idempotency-Key"] for one in service.seen} == {"uid/web/before/lb"}


def test_who_never_answers_leaves_the_hook_running(services: Any) -> None:
    assert call(services(500).url, seconds=1).succeeded is None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        answered = call(f"http://127.0.0.1:{port}/", seconds=2, attemptTimeout="500ms")
    assert answered.succeeded is None and "was not answered" in answered.message
    assert "NewConnectionError" in call(f"http://127.0.0.1:{port}/", seconds=1).message


def test_headers_come_from_a_secret_that_is_meant_for_it(services: Any) -> None:
    service = services(200)
    reference = {"headersSecretRef": {"name": "lb"}}
    assert call(service.url, HEADERS, **reference).succeeded
    assert service.seen[0]["Authorization"] == VALUE
    refused = call(service.url, {**HEADERS, "type": "Opaque"}, **reference)
    assert refused.succeeded is False and "is not sent away" in refused.message
    lines = {**HEADERS, "data": {"X": base64.b64encode(b"a\r\nHost: b").decode()}}
    assert "several lines" in call(service.url, lines, **reference).message
    missing = call(service.url, None, **reference)
    assert missing.succeeded is None and "does not exist" in missing.message
    assert len(service.seen) == 1


def test_a_url_that_cannot_be_read_is_no_answer() -> None:
    assert call("http://[", seconds=1).succeeded is None


def test_a_call_is_what_the_plan_says(services: Any) -> None:
    service = services(200)
    assert call(service.url, method="GET", body="x").message.startswith("GET http://127.0.0.1/switch answered 200")
