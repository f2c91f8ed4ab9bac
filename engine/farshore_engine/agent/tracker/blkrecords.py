"""Reads the records of a blktrace channel (include/uapi/linux/blktrace_api.h) as numpy arrays.

A record is 48 bytes and then `pdu` bytes that few kinds have. Records carry a number per CPU, so that one which the
reader never saw is noticed even when the kernel did not count it as dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAGIC = 0x65617407  # BLK_IO_TRACE_MAGIC | version 7
RECORD = np.dtype(
    [("magic", "<u4"), ("sequence", "<u4"), ("time", "<u8"), ("sector", "<u8"), ("bytes", "<u4"), ("action", "<u4"),
     ("pid", "<u4"), ("device", "<u4"), ("cpu", "<u4"), ("error", "<u2"), ("pdu", "<u2")]
)  # fmt: skip
READ, WRITE, QUEUE, COMPLETE, NOTIFY, PASSTHROUGH, DISCARD = 0x1, 0x2, 0x10, 0x80, 0x400, 0x200, 0x2000  # categories
CATEGORY_SHIFT = 16
ACTION_QUEUE, ACTION_COMPLETE = 1, 8

Records = np.ndarray[tuple[int], np.dtype[np.void]]


@dataclass(frozen=True, slots=True)
class Writes:
    """Extents of one kind, reads left out: sectors of 512 bytes."""

    sector: npt.NDArray[np.int64]
    sectors: npt.NDArray[np.int64]


@dataclass(slots=True)
class RecordStream:
    """Cuts what is read from one CPU's channel into records; remembers the end of a read that cut one in two."""

    rest: bytes = b""
    last: int = 0  # number of the last record
    faults: list[str] = field(default_factory=list)

    def feed(self, data: bytes) -> Records:
        """Return the whole records so far; appends to `faults` what shows that a record was lost or torn."""
        data = self.rest + data if self.rest else data
        places, end = _places(data)
        if end < 0:
            self.faults.append("a record of the trace is torn")
            self.rest = b""
        else:
            self.rest = data[end:]
        size = RECORD.itemsize
        if places.size and int(places[-1]) == (places.size - 1) * size:
            records = np.frombuffer(data, RECORD, places.size)
        else:
            records = np.frombuffer(b"".join(data[p : p + size] for p in places.tolist()), RECORD)
        self._check_numbers(records)
        return records

    def _check_numbers(self, records: Records) -> None:
        numbers = records["sequence"][(_category(records) & NOTIFY) == 0].astype(np.int64)  # notes have no number
        if not numbers.size:
            return
        steps = np.diff(numbers, prepend=self.last) & 0xFFFFFFFF
        if gaps := int((steps != 1).sum()):
            self.faults.append(f"{gaps} gaps in the numbers of the trace's records")
        self.last = int(numbers[-1])


def writes(records: Records, action: int) -> Writes:
    """Return the extents of the records of one action (ACTION_QUEUE or ACTION_COMPLETE), without reads."""
    category = _category(records)
    reads = (category & READ != 0) & (category & (WRITE | DISCARD) == 0)
    strange = category & (NOTIFY | PASSTHROUGH) != 0
    mine = ((records["action"] & 0xFFFF) == action) & ~reads & ~strange & (records["bytes"] > 0)
    return Writes(records["sector"][mine].astype(np.int64), (records["bytes"][mine].astype(np.int64) + 511) // 512)


def _category(records: Records) -> npt.NDArray[np.uint32]:
    return np.asarray(records["action"] >> CATEGORY_SHIFT, np.uint32)


def _places(data: bytes) -> tuple[npt.NDArray[np.int64], int]:
    """Return where the whole records begin, and where the last one ends; -1 for an end when one is torn."""
    found = _guess(data)
    return found if found is not None else _walk(data)


def _guess(data: bytes) -> tuple[npt.NDArray[np.int64], int] | None:
    """Find records by their magic number, all at once; None when they do not follow one another without a gap."""
    words = np.frombuffer(data, "<u4", len(data) // 4)
    starts = np.flatnonzero(words == MAGIC).astype(np.int64)
    last = len(data) - RECORD.itemsize
    starts = starts[starts * 4 <= last]
    if not starts.size:
        return None
    pdu = (words[starts + RECORD.itemsize // 4 - 1] >> 16).astype(np.int64)
    ends = starts * 4 + RECORD.itemsize + pdu
    if starts[0] != 0 or (ends[:-1] != starts[1:] * 4).any():
        return None
    if ends[-1] > len(data):
        return starts[:-1] * 4, int(starts[-1]) * 4
    left = data[ends[-1] :]
    if len(left) >= RECORD.itemsize or (len(left) >= 4 and int.from_bytes(left[:4], "little") != MAGIC):
        return None
    return starts * 4, int(ends[-1])


def _walk(data: bytes) -> tuple[npt.NDArray[np.int64], int]:
    """Go from record to record: for the rare chunk with a message of odd length, or with a torn record."""
    places: list[int] = []
    at = 0
    while at + RECORD.itemsize <= len(data):
        if int.from_bytes(data[at : at + 4], "little") != MAGIC:
            return np.array(places, np.int64), -1
        end = at + RECORD.itemsize + int.from_bytes(data[at + 46 : at + 48], "little")
        if end > len(data):
            break
        places.append(at)
        at = end
    return np.array(places, np.int64), at
