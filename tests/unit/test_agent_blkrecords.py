"""Records of a blktrace channel: cut out of any stream of bytes, and nothing missing from it goes unnoticed."""

from __future__ import annotations

import numpy as np
import pytest

from farshore_engine.agent.tracker.blkrecords import (
    ACTION_COMPLETE,
    ACTION_QUEUE,
    COMPLETE,
    DISCARD,
    MAGIC,
    NOTIFY,
    PASSTHROUGH,
    QUEUE,
    READ,
    RECORD,
    WRITE,
    RecordStream,
    writes,
)
from farshore_engine.agent.tracker.blktrace import ALL_BUFFERS, buffers_for


def record(
    sequence: int, category: int = WRITE | QUEUE, action: int = ACTION_QUEUE, pdu: bytes = b"", **more: int
) -> bytes:
    fields = {"magic": MAGIC, "sequence": sequence, "sector": sequence * 128, "bytes": 4096, "pdu": len(pdu), **more}
    one = np.zeros(1, RECORD)
    for name, value in fields.items():
        one[name] = value
    one["action"] = (category << 16) | action
    return one.tobytes() + pdu


def stream_of(count: int, pdu: bytes = b"") -> bytes:
    return b"".join(record(n, pdu=pdu if n % 3 == 0 else b"") for n in range(1, count + 1))


@pytest.mark.parametrize("pdu", [b"", b"12345678", b"odd"], ids=["plain", "with more data", "of odd lengths"])
@pytest.mark.parametrize("piece", [10_000, 100, 49, 7], ids=lambda n: f"read {n} bytes at a time")
def test_every_record_is_found_wherever_a_read_ends(pdu: bytes, piece: int) -> None:
    data, stream, sectors = stream_of(40, pdu), RecordStream(), []
    for at in range(0, len(data), piece):
        sectors += writes(stream.feed(data[at : at + piece]), ACTION_QUEUE).sector.tolist()
    assert sectors == [n * 128 for n in range(1, 41)]
    assert stream.faults == []


def test_a_magic_number_inside_of_data_is_not_a_record() -> None:
    pdu = MAGIC.to_bytes(4, "little") * 20
    stream = RecordStream()
    found = writes(stream.feed(record(1, pdu=pdu) + record(2)), ACTION_QUEUE)
    assert (found.sector.tolist(), stream.faults) == ([128, 256], [])


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        pytest.param(record(1) + record(3), "1 gaps", id="a record is missing"),
        pytest.param(record(2), "1 gaps", id="the first is missing"),
        pytest.param(record(1) + record(1), "1 gaps", id="a record comes twice"),
        pytest.param(record(1) + b"\0" * 48 + record(2), "torn", id="half of a record"),
        pytest.param(record(1)[:20] + record(2) + record(3), "torn", id="a record that breaks off"),
    ],
)
def test_what_is_lost_is_noticed(data: bytes, fault: str) -> None:
    stream = RecordStream()
    stream.feed(data)
    assert fault in stream.faults[0]


@pytest.mark.parametrize(
    ("category", "action", "found"),
    [
        pytest.param(WRITE | QUEUE, ACTION_QUEUE, True, id="a write"),
        pytest.param(WRITE | DISCARD | QUEUE, ACTION_QUEUE, True, id="a discard"),
        pytest.param(QUEUE, ACTION_QUEUE, True, id="a kind that is not known yet"),
        pytest.param(READ | QUEUE, ACTION_QUEUE, False, id="a read"),
        pytest.param(WRITE | QUEUE | PASSTHROUGH, ACTION_QUEUE, False, id="a command without sectors"),
        pytest.param(WRITE | COMPLETE, ACTION_COMPLETE, False, id="another action"),
        pytest.param(NOTIFY, 0, False, id="a note"),
    ],
)
def test_writes_of_any_kind_count_and_reads_do_not(category: int, action: int, found: bool) -> None:
    extents = writes(RecordStream().feed(record(1, category, action)), ACTION_QUEUE)
    assert extents.sectors.tolist() == ([8] if found else [])


@pytest.mark.parametrize(("disks", "cpus"), [(1, 2), (4, 16), (32, 128)])
def test_buffers_stay_within_their_bound(disks: int, cpus: int) -> None:
    size, number = buffers_for(disks, cpus)
    assert size == 1 << 20 or size * number * disks * cpus <= max(ALL_BUFFERS, (64 << 10) * number * disks * cpus)
    assert size >= 64 << 10
