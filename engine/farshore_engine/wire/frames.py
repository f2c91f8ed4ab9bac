"""Frames: how bytes become messages on the data port, with every length checked before memory is taken.

A frame is a fixed 12-byte prefix, a JSON header and an optional binary payload::

    magic  u16  0xFA52
    kind   u8   FrameKind of the message
    zero   u8   reserved, 0
    header u32  length of the JSON header in bytes, at most MAX_HEADER
    body   u32  length of the payload in bytes, at most MAX_PAYLOAD

All integers are little-endian. Only the standard library is used: the agent runs this code too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

MAGIC = 0xFA52
PREFIX = struct.Struct("<HBBII")
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 4 << 20
PROTOCOL = 3
SURROGATE = b"\\ud"


class FrameKind(IntEnum):
    """What a frame carries; the names of the messages are in `messages`."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    NEED_DIGESTS = 4
    DIGESTS = 5
    DATA = 6
    ZEROS = 7
    ACK = 8
    SYNCED = 9
    TAKE_POINT = 10
    POINT_END = 11
    POINT_FAILED = 12
    COMMITTED = 13
    PROGRESS = 14
    RESYNC_REQUIRED = 15
    SETTINGS = 16
    PING = 17
    PONG = 18
    BYE = 19
    ENROL = 20
    ENROLLED = 21
    POINT_READY = 22
    FREEZE_NOW = 23
    FROZEN = 24
    CUT = 25


class Stream(Protocol):
    """What frames travel over: a socket, or `stream.TlsStream`."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive at least one byte, 0 at the end."""
        ...

    def sendall(self, data: bytes | bytearray | memoryview, /) -> None:
        """Send everything."""
        ...


class WireError(Exception):
    """The peer broke the protocol; the connection is closed, nothing of the frame is used."""


class PeerClosed(Exception):
    """The peer closed the connection between two frames, or it broke."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One received frame: its kind, its decoded JSON header and its payload (empty if none)."""

    kind: FrameKind
    header: dict[str, Any]
    payload: memoryview


def encode_prefix(kind: FrameKind, header: dict[str, Any], payload_length: int = 0) -> bytes:
    """Return prefix and header of a frame whose payload of `payload_length` bytes is sent right behind them."""
    text = json.dumps(header, separators=(",", ":")).encode()
    if SURROGATE in text:  # of a file name that is no text, say: the peer would refuse it
        clean = json.loads(json.dumps(header, ensure_ascii=False).encode("utf-8", "replace"))
        text = json.dumps(clean, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER or payload_length > MAX_PAYLOAD:
        raise WireError(f"{kind.name} frame too large: header {len(text)} bytes, payload {payload_length} bytes")
    return PREFIX.pack(MAGIC, kind, 0, len(text), payload_length) + text


def send_frame(
    sock: Stream, kind: FrameKind, header: dict[str, Any], payload: bytes | bytearray | memoryview = b""
) -> None:
    """Send one frame; raises PeerClosed when the connection is gone."""
    view = memoryview(payload).cast("B") if payload else memoryview(b"")
    try:
        sock.sendall(encode_prefix(kind, header, view.nbytes))
        if view.nbytes:
            sock.sendall(view)
    except TimeoutError:
        raise
    except OSError as error:
        raise PeerClosed(str(error)) from error


def receive_exactly(sock: Stream, buffer: memoryview) -> None:
    """Fill `buffer` from the socket; raises PeerClosed when the stream ends first."""
    done = 0
    while done < len(buffer):
        try:
            count = sock.recv_into(buffer[done:])
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerClosed(str(error)) from error
        if count == 0:
            raise PeerClosed("the peer closed the connection")
        done += count


def decode_prefix(
    prefix: bytes | bytearray | memoryview, max_header: int = MAX_HEADER, max_payload: int = MAX_PAYLOAD
) -> tuple[FrameKind, int, int]:
    """Return (kind, header length, payload length) of a prefix of PREFIX.size bytes; raises WireError."""
    magic, kind, reserved, header_length, payload_length = PREFIX.unpack(prefix)
    if magic != MAGIC or reserved != 0:
        raise WireError("not a Farshore frame")
    if header_length > max_header or payload_length > max_payload:
        raise WireError(f"frame too large: header {header_length} bytes, payload {payload_length} bytes")
    try:
        return FrameKind(kind), header_length, payload_length
    except ValueError as error:
        raise WireError(f"unknown frame kind {kind}") from error


def decode_header(text: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object of a header; raises WireError."""
    try:
        header = json.loads(text)
        if SURROGATE in text.lower():
            json.dumps(header, ensure_ascii=False).encode()  # half a character could be stored nowhere
    except (ValueError, RecursionError) as error:
        raise WireError("frame header is not JSON, or nested too deeply") from error
    if not isinstance(header, dict):
        raise WireError("frame header is not a JSON object")
    return header


def receive_frame(
    sock: Stream,
    max_header: int = MAX_HEADER,
    max_payload: int = MAX_PAYLOAD,
    memory: Callable[[int], memoryview] = lambda size: memoryview(bytearray(size)),
) -> Frame:
    """Receive one frame into buffers of at most the given sizes, in bytes; `memory(size)` gives that of the payload.

    Raises:
        WireError: bad magic, unknown kind, a length over its limit, or a header that is not a JSON object.
        PeerClosed: the connection ended.
        TimeoutError: the socket's timeout passed.
    """
    prefix = bytearray(PREFIX.size)
    receive_exactly(sock, memoryview(prefix))
    kind, header_length, payload_length = decode_prefix(prefix, max_header, max_payload)
    text = bytearray(header_length)
    receive_exactly(sock, memoryview(text))
    payload = memory(payload_length) if payload_length else memoryview(b"")
    receive_exactly(sock, payload)
    return Frame(kind, decode_header(text), payload)
