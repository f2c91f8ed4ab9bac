"""Whatever bytes come in, a frame is read whole and well-formed or refused, and no header is more than a message."""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from farshore_engine.agent.channel import _FrameBuffer
from farshore_engine.wire.frames import (
    MAGIC,
    MAX_HEADER,
    MAX_PAYLOAD,
    PREFIX,
    FrameKind,
    PeerClosed,
    WireError,
    decode_header,
    encode_prefix,
    receive_frame,
)
from farshore_engine.wire.messages import (
    MESSAGES,
    Ack,
    Baseline,
    Data,
    DiskInfo,
    Hello,
    Message,
    Run,
    TakePoint,
    decode,
)

FAST = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({field.name for message in MESSAGES.values() for field in dataclasses.fields(message)})
SEEDS: tuple[tuple[Message, bytes], ...] = (
    (Ack(7), b""),
    (TakePoint("p", "crash", True), b""),  # type: ignore[arg-type]
    (Data(3, "disk", (Run(0, 65536), Run(131072, 65536))), bytes(131072)),
    (
        Hello(2, "1", "demo.vm", "b", "t", "", (DiskInfo("a", "sda", 1 << 30),), {"hostname": "x"},
              Baseline("s", "", 0, ""), 1.5),
        b"",
    ),
)  # fmt: skip


def frame(message: Message, payload: bytes = b"") -> bytes:
    return encode_prefix(message.kind, message.to_header(), len(payload)) + payload


def read_all(data: bytes) -> list[Message]:
    """Read a stream as the process server does; returns what came before it was refused or ended."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        theirs.sendall(data)
        theirs.close()
        found = []
        try:
            while True:
                read = receive_frame(ours)
                found.append(decode(read.kind, read.header))
        except (WireError, PeerClosed):
            return found


@FAST
@given(st.binary(max_size=4096))
@example(struct.pack("<HBBII", MAGIC, 8, 0, 2, 0) + b"{}")
@example(PREFIX.pack(MAGIC, 6, 0, MAX_HEADER + 1, 0))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_all(data)
    with pytest.raises(WireError) if len(data) >= PREFIX.size and data[:2] != b"\x52\xfa" else _nothing():
        _FrameBuffer().feed(data)


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, WireError)


@settings(FAST, max_examples=100)
@given(st.sampled_from(sorted(FrameKind)), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=10))
def test_any_header_becomes_a_message_of_plain_types_or_is_refused(kind: FrameKind, header: dict[str, Any]) -> None:
    try:
        text = json.dumps(header).encode()
        message = decode(kind, decode_header(text))
    except WireError:
        return
    assert type(message) is MESSAGES[kind]
    json.dumps(message.to_header(), allow_nan=False, ensure_ascii=False).encode()


@FAST
@given(st.sampled_from(SEEDS), st.data())
def test_a_good_frame_that_is_damaged_is_another_good_one_or_refused(seed: tuple[Message, bytes], data: Any) -> None:
    whole = bytearray(frame(*seed))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(whole) - 1, 400)))
        match data.draw(st.sampled_from(("flip", "cut", "insert", "repeat"))):
            case "flip":
                whole[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del whole[at : at + data.draw(st.integers(1, 8))]
            case "insert":
                whole[at:at] = data.draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                whole += whole[at : at + 64]
        if not whole:
            return
    read_all(bytes(whole))


def test_a_lying_length_takes_no_memory() -> None:
    """A prefix may announce four megabytes at most, however often it comes, and is refused beyond that."""
    tracemalloc.start()
    try:
        for header, payload in ((MAX_HEADER + 1, 0), (2, MAX_PAYLOAD + 1), (2**32 - 1, 2**32 - 1)):
            assert read_all(PREFIX.pack(MAGIC, FrameKind.DATA, 0, header, payload)) == []
        buffer = _FrameBuffer()
        with pytest.raises(WireError):
            buffer.feed(PREFIX.pack(MAGIC, FrameKind.DATA, 0, 2**31, 0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_half_a_character_is_refused_and_never_sent() -> None:
    """It passed every check and could be stored nowhere: the machine's points failed for ever."""
    with pytest.raises(WireError):
        decode_header(b'{"id": "\\ud800"}')
    with pytest.raises(WireError):
        decode_header(b'{"id": "\\UD800"}')
    assert decode_header(b'{"id": "\\ud83d\\ude00"}') == {"id": "\U0001f600"}
    sent = encode_prefix(FrameKind.BYE, {"reason": "file \udcff, and \U0001f600"})[PREFIX.size :]
    assert decode_header(sent) == {"reason": "file ?, and \U0001f600"}
