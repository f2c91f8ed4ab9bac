"""One TLS connection to a process server, owned by one thread, because OpenSSL's connection is not for two.

Messages go in and out through queues: the sender is held up while `queue_limit` bytes wait, so memory is bounded by
back-pressure. Pings and their answers are the channel's own business.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import ssl
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from farshore_engine.agent.config import AgentConfig, Server
from farshore_engine.contract.faults import StopFault
from farshore_engine.wire.frames import (
    PREFIX,
    FrameKind,
    PeerClosed,
    WireError,
    decode_header,
    decode_prefix,
    encode_prefix,
)
from farshore_engine.wire.messages import Message, Ping, Pong, decode

SERVER_NAME = "farshore-process-server"  # in the certificate of every process server, whatever its address
CONNECT_SECONDS = 10.0
PING_SECONDS, HANG_UP_SECONDS = 10.0, 30.0
QUEUE_LIMIT = 2 << 20  # bytes
RECEIVE_SIZE = 1 << 18
WRITE_TURN = 1 << 20
IN_LIMIT = 4096  # messages that wait to be handled; then nothing more is read


@dataclass(frozen=True, slots=True)
class Received:
    """A message and its payload."""

    message: Message
    payload: bytes


def tls_context(config: AgentConfig) -> ssl.SSLContext:
    """Return the context for mutual TLS 1.3; raises StopFault when a file is missing or no key fits."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(config.ca)
        context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise StopFault(
            f"the agent's certificate files cannot be used: {error}",
            f"Check {config.ca}, {config.certificate} and {config.key}, or install the agent again",
            reason="BadCertificate",
        ) from error
    return context


def dial(server: Server, context: ssl.SSLContext) -> Channel:
    """Connect to a data port; raises OSError (ssl.SSLError among them) when it is not there or not who it should be."""
    plain = socket.create_connection((server.host, server.port), timeout=CONNECT_SECONDS)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secured = context.wrap_socket(plain, server_hostname=SERVER_NAME)
    except OSError:
        plain.close()
        raise
    return Channel(secured)


class Channel:
    """A connected data port. `send` and `receive` may be called from one thread that is not the channel's own."""

    def __init__(self, sock: ssl.SSLSocket, queue_limit: int = QUEUE_LIMIT) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._limit = queue_limit
        self._changed = threading.Condition()
        self._out: deque[memoryview] = deque()
        self._waiting = 0  # bytes in _out
        self._in: queue.SimpleQueue[Received | None] = queue.SimpleQueue()
        self._broken: Exception | None = None
        self._closing = False
        self._held_back = False  # nothing is read until some of what came in is handled
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._poller.register(self._wake, select.POLLIN)
        self._heard = self._pinged = time.monotonic()
        self._frames = _FrameBuffer()
        self.bytes_sent = 0
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)
        self._thread.start()

    def send(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Queue a message, waiting while the queue is full; raises PeerClosed."""
        head = encode_prefix(message.kind, message.to_header(), len(payload))
        with self._changed:
            while self._waiting >= self._limit and self._broken is None:
                self._changed.wait(1.0)
            self._raise_if_broken()
            self._put(head, payload)
        self._poke()

    def receive(self, timeout: float | None) -> Received | None:
        """Return the next message, None after `timeout` seconds; raises PeerClosed or WireError."""
        try:
            received = self._in.get(timeout=timeout) if timeout != 0 else self._in.get_nowait()
        except queue.Empty:
            return None
        if self._held_back:
            self._poke()
        if received is None:
            self._in.put(None)
            with self._changed:
                self._raise_if_broken()
            raise PeerClosed("the connection is closed")
        return received

    def flush(self, timeout: float) -> None:
        """Wait until everything queued has left, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._waiting and self._broken is None and time.monotonic() < deadline:
                self._changed.wait(0.1)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        with self._changed:
            self._closing = True
        self._poke()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _put(self, head: bytes, payload: bytes | memoryview) -> None:
        for part in (head, payload):
            if part:
                self._out.append(memoryview(part))
                self._waiting += len(part)

    def _poke(self) -> None:
        with suppress(OSError, ValueError):
            os.eventfd_write(self._wake, 1)

    def _raise_if_broken(self) -> None:
        if isinstance(self._broken, WireError):
            raise WireError(str(self._broken))
        if self._broken is not None:
            raise PeerClosed(str(self._broken) or "the connection broke")

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except (OSError, ValueError, PeerClosed, WireError) as error:
            with self._changed:
                self._broken = error
                self._changed.notify_all()
        finally:
            with self._changed:
                self._broken = self._broken or PeerClosed("the connection is closed")
                self._out.clear()
                self._waiting = 0
                self._changed.notify_all()
                os.close(self._wake)
                self._wake = -1
            self._in.put(None)
            self._sock.close()

    def _turn(self) -> None:
        now = time.monotonic()
        if now - self._heard > HANG_UP_SECONDS:
            raise PeerClosed(f"no sign of life for {HANG_UP_SECONDS:.0f} s")
        if now - max(self._heard, self._pinged) > PING_SECONDS:
            self._pinged = now
            self._reply(Ping())
        with self._changed:
            writing = bool(self._out)
        self._held_back = self._in.qsize() >= IN_LIMIT
        reading = 0 if self._held_back else select.POLLIN
        self._poller.modify(self._sock, reading | (select.POLLOUT if writing else 0))
        if any(fd == self._wake for fd, _ in self._poller.poll(1000)):
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        self._read_all()
        self._write_some()

    def _reply(self, message: Message) -> None:
        with self._changed:
            self._put(encode_prefix(message.kind, message.to_header()), b"")

    def _read_all(self) -> None:
        while self._in.qsize() < IN_LIMIT:
            try:
                data = self._sock.recv(RECEIVE_SIZE)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            if not data:
                raise PeerClosed("the process server closed the connection")
            self._heard = time.monotonic()
            for kind, header, payload in self._frames.feed(data):
                if kind is FrameKind.PING:
                    self._reply(Pong())
                elif kind is not FrameKind.PONG:
                    self._in.put(Received(decode(kind, header), payload))

    def _write_some(self) -> None:
        budget = WRITE_TURN  # then look for what has come in: acknowledgements must not starve
        while budget > 0:
            with self._changed:
                if not self._out:
                    return
                part = self._out[0]
            try:
                count = self._sock.send(part)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return
            budget -= count
            with self._changed:
                if count == len(part):
                    self._out.popleft()
                else:
                    self._out[0] = part[count:]
                self._waiting -= count
                self.bytes_sent += count
                if self._waiting < self._limit:
                    self._changed.notify_all()


class _FrameBuffer:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[FrameKind, dict[str, Any], bytes]]:
        """Return the frames that are complete now; raises WireError."""
        self._data += data
        frames = []
        while len(self._data) >= PREFIX.size:
            kind, header_length, payload_length = decode_prefix(self._data[: PREFIX.size])
            body = PREFIX.size + header_length
            end = body + payload_length
            if len(self._data) < end:
                break
            header = decode_header(self._data[PREFIX.size : body])
            frames.append((kind, header, bytes(self._data[body:end])))
            del self._data[:end]
        return frames
