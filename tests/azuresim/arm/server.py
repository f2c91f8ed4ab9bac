"""The listening end: TLS, one thread per connection, the token endpoint, Resource Manager, what planes share."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.azuresim.arm import dispatch
from tests.azuresim.arm.call import Asked
from tests.azuresim.arm.dispatch import Dropped
from tests.azuresim.arm.faults import Kind
from tests.azuresim.arm.identity import Refused

if TYPE_CHECKING:
    from tests.azuresim.sim import AzureSim


class Server(ThreadingHTTPServer):
    """Remembers its open connections, so that stopping ends them too."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext, port: int = 0) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no event here: the handlers report their own mistakes."""

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()
        for one in list(self.open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                one.close()


class Connection(BaseHTTPRequestHandler):
    """What the handlers of all planes share."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    sim: AzureSim

    def log_message(self, format: str, *args: Any) -> None: ...

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status: int, headers: Mapping[str, str], data: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def drop(self) -> None:
        """Close without an answer."""
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.connection.close()


class ArmConnection(Connection):
    """Resource Manager and the token endpoint share an address here, as they do not in Azure."""

    def _any(self) -> None:
        raw = self.read_body()
        path = urlsplit(self.path).path
        if self.sim.tokens.is_mine(path):
            return self._token(path, raw)
        request_id = self.headers.get("x-ms-client-request-id", "")
        common = {
            "x-ms-request-id": str(uuid.uuid4()),
            "x-ms-routing-request-id": f"{self.sim.region.upper()}:{uuid.uuid4()}",
            "x-ms-correlation-request-id": self.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4()),
        }  # fmt: skip
        if request_id and self.headers.get("x-ms-return-client-request-id", "").lower() == "true":
            common["x-ms-client-request-id"] = request_id
        try:
            with self.sim.lock:
                given = dispatch.answer(self.sim, self.command, self.path, self.headers, raw)
        except Dropped:
            return self.drop()
        except Exception as bug:  # noqa: BLE001 (outermost: a handler's mistake is told to the test)
            self.sim.bugs.append(f"{self.command} {self.path}: {bug!r}")
            given = dispatch.Answer(500, {"error": {"code": "SimulatorBug", "message": repr(bug)}})
        data = b"" if given.body is None else json.dumps(given.body).encode()
        kind = {"Content-Type": "application/json; charset=utf-8"} if data else {}
        self.send(given.status, {**common, **given.headers, **kind}, data)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _any  # noqa: N815

    def _give_token(self, path: str, raw: bytes) -> dict[str, Any]:
        tokens = self.sim.tokens
        if path.startswith("/msi/"):
            query = dict(parse_qsl(urlsplit(self.path).query))
            return tokens.managed_identity(query, self.headers.get("X-IDENTITY-HEADER", ""))
        return tokens.answer(self.sim.authority_url, path, dict(parse_qsl(raw.decode())))

    def _token(self, path: str, raw: bytes) -> None:
        fault = self.sim.faults.strike("token", self.command, path)
        if fault is not None and fault.kind in (Kind.LOSE_REQUEST, Kind.LOSE_RESPONSE):
            return self.drop()
        headers: dict[str, str] = {}
        try:
            if fault is not None and fault.error is not None:
                headers = fault.error.headers
                raise Refused(fault.error.code, fault.error.message, fault.error.status)
            status, content = 200, self._give_token(path, raw)
        except Refused as refused:
            status, content = refused.status, refused.body
        self.sim.record("token", Asked(self.command, path, {}, self.headers), None, status)
        self.send(status, {**headers, "Content-Type": "application/json"}, json.dumps(content).encode())
