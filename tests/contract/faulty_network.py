"""A TCP proxy in front of a store's HTTP service that breaks connections in chosen ways, for tests on loopback."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum
from types import TracebackType

SERVICE_UNAVAILABLE = (
    b"HTTP/1.1 503 Server Busy\r\nx-ms-error-code: ServerBusy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
STEP = 64 << 10
REQUEST_CUT = 512 << 10


class Break(Enum):
    """What happens to a connection. Every one but `NONE` and `DELAY` ends it."""

    NONE = "none"
    REFUSE = "refuse"  # reset before anything is read
    CUT_REQUEST = "cut request"  # reset when half a megabyte of the request has passed
    LOSE_ANSWER = "lose answer"  # the request gets through, the answer does not
    CUT_ANSWER = "cut answer"  # only the first 700 bytes of the answer get through
    BUSY = "busy"  # 503 by somebody on the way
    DELAY = "delay"  # the request waits a while


class FaultyNetwork:
    """Listens on `port` and passes connections on to `target`; `plan(number)` says how each is broken."""

    def __init__(self, target: int, plan: Callable[[int], Break]) -> None:
        self._target = target
        self._plan = plan
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.broken: list[Break] = []
        self._serving: list[threading.Thread] = []
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> FaultyNetwork:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._serving:
            thread.join(10)

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            how = self._plan(number)
            number += 1
            if how is not Break.NONE:
                self.broken.append(how)
            thread = threading.Thread(target=self._quietly, args=(client, how), daemon=True)
            thread.start()
            self._serving.append(thread)

    def _quietly(self, client: socket.socket, how: Break) -> None:
        with contextlib.suppress(OSError):  # the client went away, which is its right
            self._serve(client, how)

    def _serve(self, client: socket.socket, how: Break) -> None:
        with client:
            if how is Break.REFUSE:
                return _reset(client)
            if how is Break.BUSY:
                client.recv(STEP)
                client.sendall(SERVICE_UNAVAILABLE)
                return
            if how is Break.DELAY:
                time.sleep(0.3)
            with socket.create_connection(("127.0.0.1", self._target), 10) as server:
                server.settimeout(60)
                client.settimeout(60)
                bound = REQUEST_CUT if how is Break.CUT_REQUEST else None
                there = threading.Thread(target=_pass, args=(client, server, bound), daemon=True)
                there.start()
                _pass(server, client, {Break.LOSE_ANSWER: 0, Break.CUT_ANSWER: 700}.get(how))
                there.join()


def _pass(source: socket.socket, sink: socket.socket, allowed: int | None) -> None:
    """Pass bytes on until the end; only `allowed` of them if that is given, then both ends are reset."""
    passed = 0
    try:
        while data := source.recv(STEP):
            if allowed is not None and passed + len(data) > allowed:
                sink.sendall(data[: allowed - passed])
                time.sleep(0.05)  # so that what was let through arrives before the reset
                raise ConnectionResetError
            sink.sendall(data)
            passed += len(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _reset(source)
        _reset(sink)


def _reset(end: socket.socket) -> None:
    """End a connection at once, as a device on the way does; whoever reads from it is told."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
