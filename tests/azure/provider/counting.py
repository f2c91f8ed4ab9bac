"""A proxy before Azurite that counts what goes to the blobs, and fails requests where a test plans it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@dataclass(frozen=True)
class Request:
    """A request: its method, path with query, the headers by lower-case names, and the length of its body."""

    method: str
    path: str
    headers: dict[str, str]
    length: int

    @property
    def writes(self) -> bool:
        """Whether it writes pages."""
        return self.method == "PUT" and "comp=page" in self.path and self.headers.get("x-ms-page-write") == "update"


@dataclass
class Counted:
    """What went through: `connection_string` leads through the proxy."""

    connection_string: str
    requests: list[Request] = field(default_factory=list)
    refuse: Callable[[Request], tuple[int, str] | None] = lambda _: None
    """Returns status and code to refuse a request with, None to let it through."""
    lose: Callable[[Request], bool] = lambda _: False
    """Tells whether the answer to a request is lost, after it was carried out."""

    def written(self, part: str = "") -> int:
        """Bytes of pages that were written to blobs whose path has this part."""
        return sum(one.length for one in self.requests if one.writes and part in one.path)


@contextmanager
def counting(connection_string: str) -> Iterator[Counted]:
    """Run the proxy before the account of a connection string."""
    parts = dict(one.split("=", 1) for one in connection_string.split(";") if one)
    there = urlsplit(parts["BlobEndpoint"])
    counted = Counted("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, given, len(body))
            counted.requests.append(request)
            refused = counted.refuse(request)
            if refused is not None:
                self.answer(refused[0], {"x-ms-error-code": refused[1]}, b"")
                return
            upstream = http.client.HTTPConnection(there.hostname or "", there.port, timeout=60)
            try:
                upstream.request(self.command, self.path, body or None, {**dict(self.headers.items())})
                found = upstream.getresponse()
                kept = {name: value for name, value in found.getheaders() if name.lower() not in HOP}
                if counted.lose(request):
                    found.read()
                    self.close_connection = True
                    return
                length = found.headers.get("Content-Length") if self.command == "HEAD" else None
                self.answer(found.status, kept, found.read(), length)
            finally:
                upstream.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = f"http://127.0.0.1:{server.server_address[1]}{there.path}"
    counted.connection_string = connection_string.replace(parts["BlobEndpoint"], endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
