"""The data port: where agents dial in. TLS 1.3, mutual, one thread for each connection, and refusals with a reason.

A peer is refused unless its certificate comes from our authority, names one machine, that machine is the one that its
Hello names, and it is assigned to this process server now.
"""

from __future__ import annotations

import functools
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from farshore_engine.processserver.budget import Cancelled
from farshore_engine.processserver.identity import peer_machine
from farshore_engine.processserver.intake import IntakeBroken
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.replica import Replica
from farshore_engine.processserver.session import Session
from farshore_engine.wire.frames import MAX_HEADER, PROTOCOL, PeerClosed, WireError, receive_frame, send_frame
from farshore_engine.wire.messages import Enrol, Enrolled, Hello, Message, Ping, Pong, Refuse, decode
from farshore_engine.wire.stream import TlsStream

log = structlog.get_logger(__name__)

HANDSHAKE_SECONDS = 10.0
HELLO_SECONDS = 15.0  # without any byte
GREETING_SECONDS = 90.0
MAX_STRANGERS_HEADER = 16 << 10  # bytes of an enrolment
MAX_CONNECTIONS = 512
BACKLOG = 128
PING_TICK = 2.0


class Directory(Protocol):
    """Who may talk here; the service implements it."""

    def replica_of(self, machine_id: str) -> Replica | Refuse:
        """Return the machine's replication, or why it is refused now."""
        ...

    def enrol(self, machine_id: str, token: str) -> Enrolled | Refuse:
        """Return the identity of a machine that was installed by hand, if the token is good."""
        ...


class DataPort:
    """Listens and serves until closed. The certificate may be changed while it runs."""

    def __init__(self, address: str, port: int, directory: Directory, metrics: Metrics) -> None:
        """Bind now, so that a port that is taken shows at once; raises OSError."""
        self._directory = directory
        self._metrics = metrics
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._connections: dict[int, Session | None] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, port), family=family, backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]

    def use(self, context: ssl.SSLContext) -> None:
        """Use these TLS settings for connections from now on."""
        self._context = context

    def start(self) -> None:
        """Begin to accept."""
        for run, name in ((self._accept, "data-port"), (self._ping, "data-port-pings")):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop accepting; sessions are ended by those who own them."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closed:
            try:
                plain, peer = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.1)  # out of descriptors: connections that end give some back
                continue
            context = self._context
            with self._lock:
                number = plain.fileno()
                admitted = context is not None and len(self._connections) < MAX_CONNECTIONS
                if admitted:
                    self._connections[number] = None
            if context is None or not admitted:
                self._metrics.refused.labels("NotReady" if context is None else "TooMany").inc()
                plain.close()
                continue
            accepted = time.monotonic()
            threading.Thread(
                target=self._serve, args=(plain, peer[0], context, accepted), name=f"agent-{peer[0]}", daemon=True
            ).start()

    def _serve(self, plain: socket.socket, peer: str, context: ssl.SSLContext, accepted: float) -> None:
        number = plain.fileno()
        stream: TlsStream | None = None
        try:
            plain.settimeout(HANDSHAKE_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            secured = context.wrap_socket(plain, server_side=True)
            plain = secured
            machine = peer_machine(secured)
            stream = TlsStream(secured, HELLO_SECONDS)
            opened = functools.partial(self._connections.__setitem__, number)
            self._converse(stream, machine, peer, opened, accepted)
        except (OSError, ValueError, WireError, PeerClosed) as error:
            self._metrics.refused.labels(type(error).__name__).inc()
            log.info("connection ended early", peer=peer, reason=str(error))
        finally:
            with self._lock:
                self._connections.pop(number, None)
            if stream is not None:
                stream.close()
            plain.close()

    def _converse(
        self,
        stream: TlsStream,
        machine: str | None,
        peer: str,
        opened: Callable[[Session], None],
        accepted: float = math.inf,
    ) -> None:
        message = self._first_message(stream, certified=machine is not None)
        if isinstance(message, Enrol) and machine is None:
            self._answer(stream, self._directory.enrol(message.machine_id, message.token), peer)
            return
        if machine is None:
            self._answer(stream, Refuse("NoCertificate", "a machine without a certificate can only enrol"), peer)
            return
        if not isinstance(message, Hello):
            raise WireError(f"{message.kind.name} instead of Hello")
        if message.protocol != PROTOCOL:
            text = f"the agent speaks protocol {message.protocol}, this process server {PROTOCOL}"
            self._answer(stream, Refuse("Protocol", text, 60.0), peer)
            return
        if message.machine_id != machine:
            text = f"the certificate is for {machine}, not for {message.machine_id}"
            self._answer(stream, Refuse("WrongMachine", text, 60.0), peer)
            return
        found = self._directory.replica_of(machine)
        if isinstance(found, Refuse):
            self._answer(stream, found, peer)
            return
        session = Session(stream, message, peer, found, accepted)
        opened(session)
        reason = "closed by this side"
        try:
            session.run()
        except (PeerClosed, TimeoutError, WireError, IntakeBroken, Cancelled) as error:
            reason = str(error) or type(error).__name__
        finally:
            found.detach(session, reason)

    @staticmethod
    def _first_message(stream: TlsStream, *, certified: bool) -> Message:
        """Return what the peer has to say; an agent that is slow to describe its machine gives signs of life first.

        Who shows no certificate may take little memory, and nobody a connection for ever.
        """
        stream.receive_until = time.monotonic() + GREETING_SECONDS  # also for one that sends a byte at a time
        while True:
            frame = receive_frame(stream, MAX_HEADER if certified else MAX_STRANGERS_HEADER, max_payload=0)
            message = decode(frame.kind, frame.header)
            if not isinstance(message, Ping):
                stream.receive_until = math.inf
                return message
            send_frame(stream, Pong.kind, Pong().to_header())

    def _answer(self, stream: TlsStream, answer: Message, peer: str) -> None:
        if isinstance(answer, Refuse):
            self._metrics.refused.labels(answer.reason).inc()
            log.info("connection refused", peer=peer, reason=answer.reason, detail=answer.message)
        send_frame(stream, answer.kind, answer.to_header())

    def _ping(self) -> None:
        while not self._closed:
            time.sleep(PING_TICK)
            with self._lock:
                sessions = [session for session in self._connections.values() if session is not None]
            for session in sessions:
                with suppress(PeerClosed):
                    session.ping(time.monotonic())
