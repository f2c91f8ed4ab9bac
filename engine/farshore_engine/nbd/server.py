"""The server: listens on a Unix socket or on loopback, one thread for each client.

The protocol knows neither users nor encryption, and a disk is as good as the machine. So it is spoken on a Unix socket
that only its owner may open, or to this host itself; any other address is refused.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from farshore_engine.contract.faults import StopFault
from farshore_engine.nbd.device import Device
from farshore_engine.nbd.handshake import negotiate
from farshore_engine.nbd.protocol import Disconnected, ProtocolError
from farshore_engine.nbd.stream import Stream
from farshore_engine.nbd.transmission import Budget, transmit

log = structlog.get_logger(__name__)

MOST_CLIENTS = 32
HANDSHAKE_SECONDS = 20.0  # without a byte
HELD = 128 << 20  # bytes of requests that are being worked on
LONGEST_PATH = 107  # bytes of a Unix socket's path that the kernel takes


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """Where to listen; `host` is an address of the loopback interface, port 0 lets the kernel choose."""

    host: str = "127.0.0.1"
    port: int = 10809

    @classmethod
    def parse(cls, text: str) -> TcpAddress:
        """Read `HOST:PORT`, `[HOST]:PORT` or `PORT`.

        Raises:
            StopFault: it is none, or not of this host.
        """
        host, _, port = text.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdigit() or int(port) > 65535:
            raise StopFault(f"{text!r} is not an address to listen on", "Use HOST:PORT", reason="BadAddress")
        address = cls("127.0.0.1" if host == "localhost" else host, int(port))
        address.check()
        return address

    def check(self) -> None:
        """Raise StopFault if others than this host could connect."""
        try:
            inside = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            inside = False
        if not inside:
            raise StopFault(
                f"{self.host} is not an address of this host's loopback interface, and NBD has no passwords",
                "Listen on 127.0.0.1 or on a Unix socket; forward it with SSH to use it elsewhere",
                reason="NotLoopback",
            )


class NbdServer:
    """Serves devices by name. Use it as a context manager; leaving it hangs up on every client."""

    def __init__(self, exports: Mapping[str, Device], where: Path | TcpAddress) -> None:
        """Prepare to serve `exports`, of which there is at least one, at a Unix socket or an address."""
        self._exports = dict(exports)
        self._where = where
        self._budget = Budget(HELD)
        self._lock = threading.Lock()
        self._clients: dict[Stream, threading.Thread] = {}
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self._closing = False

    def __enter__(self) -> NbdServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Listen.

        Raises:
            StopFault: the place is taken, or others than this host could connect.
        """
        self._listener = _listen_unix(self._where) if isinstance(self._where, Path) else _listen_tcp(self._where)
        self._accepting = threading.Thread(target=self._accept, name="nbd-accept", daemon=True)
        self._accepting.start()

    @property
    def uri(self) -> str:
        """Where clients find it, without the name of an export."""
        if isinstance(self._where, Path):
            return f"nbd+unix:///?socket={self._where}"
        host = f"[{self._where.host}]" if ":" in self._where.host else self._where.host
        return f"nbd://{host}:{self.port}"

    @property
    def port(self) -> int:
        """The TCP port, 0 on a Unix socket."""
        if self._listener is None or isinstance(self._where, Path):
            return 0
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening, hang up on everybody, and wait until no request is being worked on."""
        self._closing = True
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._accepting is not None:
            self._accepting.join()
        if self._listener is not None:
            self._listener.close()
            if isinstance(self._where, Path):
                self._where.unlink(missing_ok=True)
        with self._lock:
            clients = list(self._clients.items())
        for stream, _ in clients:
            stream.shut()
        for _, thread in clients:
            thread.join()

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                continue
            stream = Stream(connection)
            with self._lock:
                if len(self._clients) >= MOST_CLIENTS:
                    log.warning("nbd client refused", clients=len(self._clients))
                    stream.close()
                    continue
                thread = threading.Thread(target=self._client, args=(stream,), name="nbd-client", daemon=True)
                self._clients[stream] = thread
            thread.start()

    def _client(self, stream: Stream) -> None:
        try:
            stream.limit_waiting(HANDSHAKE_SECONDS)
            session = negotiate(stream, self._exports)
            if session is not None:
                stream.limit_waiting(None)
                transmit(stream, session, self._budget)
        except ProtocolError as error:
            log.warning("nbd client hung up on", why=str(error))
        except Disconnected:
            pass  # clients leave as they like
        finally:
            with self._lock:
                self._clients.pop(stream, None)
            stream.shut()
            stream.close()


def _listen_unix(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise StopFault(f"the path of the socket {path} is too long", "Use a shorter one", reason="BadAddress")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()  # its server was killed
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _cannot_listen(str(path), error) from error
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _listen_tcp(address: TcpAddress) -> socket.socket:
    address.check()
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise _cannot_listen(f"{address.host} port {address.port}", error) from error


def _cannot_listen(where: str, error: OSError) -> StopFault:
    return StopFault(
        f"cannot listen on {where}: {error.strerror or error}", "Choose another place", reason="CannotListen"
    )
