"""A peer may break the protocol or be slow; it costs neither memory nor a connection for ever, nor a stuck machine."""

from __future__ import annotations

import json
import math
import socket
import ssl
import struct
import threading
import time
from typing import Any, cast

import pytest

from farshore_engine.processserver import dataport
from farshore_engine.processserver.closedpoint import malformed
from farshore_engine.processserver.dataport import DataPort
from farshore_engine.processserver.session import Session
from farshore_engine.wire.frames import MAGIC, FrameKind, WireError, decode_header, encode_prefix, receive_frame
from farshore_engine.wire.messages import (
    Ack,
    Consistency,
    DiskInfo,
    Enrol,
    Hello,
    Message,
    Ping,
    PointEnd,
    Run,
    decode,
)
from farshore_engine.wire.stream import TlsStream

END: dict[str, Any] = json.loads(
    json.dumps(PointEnd("p", 1, Consistency.CRASH, 1.0, 0.0, 0, 0, (), {"hostname": "db"}).to_header())
)


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        pytest.param(FrameKind.ACK, {"seq": 1 << 63}, id="a number that no journal can hold"),
        pytest.param(FrameKind.POINT_END, {**END, "frozen_at": math.nan}, id="a time that is none"),
        pytest.param(FrameKind.POINT_END, {**END, "frozen_at": math.inf}, id="a time without end"),
        pytest.param(FrameKind.POINT_END, {**END, "frozen_at": 10**400}, id="a time that no float can hold"),
        pytest.param(FrameKind.POINT_END, {**END, "machine": []}, id="a description that is no object"),
    ],
)
def test_malformed_messages_are_refused(kind: FrameKind, header: dict[str, Any]) -> None:
    assert decode(FrameKind.ACK, {"seq": 7}) == Ack(7)
    with pytest.raises(WireError):
        decode(kind, header)


def test_a_header_nested_deeper_than_the_stack_ismalformed() -> None:
    with pytest.raises(WireError):
        decode_header(b"[" * 500_000)


def test_a_point_of_no_date_is_refused_before_it_is_kept() -> None:
    """Once in the spool it could never be committed, and nothing behind it either."""
    good = cast(PointEnd, decode(FrameKind.POINT_END, END))
    assert malformed(good) == ""
    far = cast(PointEnd, decode(FrameKind.POINT_END, {**END, "frozen_at": 1e18}))
    assert "clock" in malformed(far)


def test_a_frame_speaks_of_no_more_blocks_than_a_process_server_can_count() -> None:
    """A run of zeros of an exabyte is a few bytes on the wire, and would be terabytes of block numbers."""
    disk = DiskInfo("a", "sda", 1 << 60)
    hello = cast(Hello, type("Greeting", (), {"disks": (disk,)}))
    session = Session(cast(TlsStream, type("Stream", (), {})()), hello, "peer", cast(Any, None))
    assert session.blocks("a", (Run(0, 1 << 30),)).size == 1 << 14
    for runs in ((Run(0, 1 << 60),), (Run(0, 1 << 35), Run(1 << 36, 1 << 35), Run(1 << 40, 1 << 16))):
        with pytest.raises(WireError):
            session.blocks("a", runs)


def test_a_stranger_may_not_have_memory_reserved() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack("<HBBII", MAGIC, FrameKind.ENROL, 0, 2, 4 << 20))
        with pytest.raises(WireError, match="too large"):
            receive_frame(ours, max_payload=0)


class Trickle:
    """A TLS socket whose peer sends one byte at a time, each just in time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.fileno = sock.fileno
        self.setblocking = sock.setblocking

    def read(self, size: int, buffer: memoryview) -> int:
        try:
            return self.sock.recv_into(buffer[:1])
        except BlockingIOError:
            raise ssl.SSLWantReadError from None


def test_one_that_sends_a_byte_at_a_time_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundred of them, without any certificate, kept all agents out."""
    monkeypatch.setattr(dataport, "GREETING_SECONDS", 0.5)
    ours, theirs = socket.socketpair()
    message: Message = Enrol("demo.vm", "x" * 5000)
    frame = encode_prefix(message.kind, message.to_header())
    stop = threading.Event()

    def send() -> None:
        for byte in frame:
            if stop.wait(0.05):
                return
            theirs.sendall(bytes([byte]))

    sender = threading.Thread(target=send, daemon=True)
    stream = TlsStream(cast(ssl.SSLSocket, Trickle(ours)), timeout=5.0)
    began = time.monotonic()
    sender.start()
    try:
        with pytest.raises(TimeoutError):
            DataPort._first_message(stream, certified=False)
        assert time.monotonic() - began < 60
    finally:
        stop.set()
        sender.join()
        ours.close()
        theirs.close()


def test_the_bound_of_the_greeting_ends_with_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = TlsStream(cast(ssl.SSLSocket, Trickle(ours)), timeout=5.0)
        for message in (Ping(), Enrol("demo.vm", "token")):
            theirs.sendall(encode_prefix(message.kind, message.to_header()))
        stream.sendall = lambda data: None  # type: ignore[method-assign]
        assert DataPort._first_message(stream, certified=False) == Enrol("demo.vm", "token")
        assert stream.receive_until == math.inf
