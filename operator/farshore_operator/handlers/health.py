"""`/livez`, `/readyz` and `/metrics` on a port of their own, in a thread, so that a busy loop shows as not alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str]
"""Returns an empty text if all is well, else what is not."""


class HealthServer:
    """Serves health and metrics.

    Args:
        address: host and port; port 0 takes a free one (see `port`).
        live: whether the process should go on; if not, the kubelet restarts it.
        ready: whether it does its work now.
    """

    def __init__(self, address: tuple[str, int], live: Check, ready: Check, registry: CollectorRegistry) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path in ("/livez", "/readyz"):
                    trouble = (live if self.path == "/livez" else ready)()
                    self._answer(503 if trouble else 200, (trouble or "ok").encode() + b"\n", "text/plain")
                else:
                    self._answer(404, b"try /livez, /readyz or /metrics\n", "text/plain")

            def _answer(self, status: int, body: bytes, content: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
