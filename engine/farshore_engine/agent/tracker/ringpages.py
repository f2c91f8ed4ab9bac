"""Reads pages of the kernel's trace ring buffer (Documentation/trace/ring-buffer-design) as numpy arrays.

A page is a header (time stamp, commit) and records of a 4-byte header (5 bits of type or length, 27 of time) and data.
Pages are walked side by side, so the cost of Python is that of the longest page, not of all records.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]

PADDING, TIME_EXTEND = 29, 30  # record types; 31 is a time stamp, 1..28 the length of the data in words
COMMIT_MASK = (1 << 20) - 1
MISSED_EVENTS = 1 << 31

_FIELD = re.compile(r"field:(?P<declaration>[^;]*);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);")


class UnknownLayout(ValueError):
    """The kernel describes a layout that this reader does not understand."""


def field_offsets(text: str) -> dict[str, tuple[int, int]]:
    """Return name → (offset, size) in bytes from a tracefs `format` or `header_page` file."""
    found: dict[str, tuple[int, int]] = {}
    for match in _FIELD.finditer(text):
        name = match["declaration"].split()[-1].split("[")[0]
        found.setdefault(name, (int(match["offset"]), int(match["size"])))
    return found


@dataclass(frozen=True, slots=True)
class PageLayout:
    """Where the commit count and the data of a page are: bytes."""

    page_size: int
    commit: int
    data: int

    @classmethod
    def of(cls, header_page: str, page_size: int) -> PageLayout:
        """Read the layout from the text of events/header_page; raises UnknownLayout."""
        fields = field_offsets(header_page)
        try:
            layout = cls(page_size, fields["commit"][0], fields["data"][0])
        except KeyError as error:
            raise UnknownLayout(f"header_page has no field {error}") from error
        if layout.commit % 4 or layout.data % 4:
            raise UnknownLayout("header_page fields are not aligned")
        return layout


@dataclass(frozen=True, slots=True)
class EventLayout:
    """An event's number and where its fields lie, in bytes from the start of the record's data."""

    name: str
    number: int
    dev: int
    sector: int
    sectors: int
    rwbs: int

    @classmethod
    def read(cls, directory: Path) -> EventLayout:
        """Read from the event's directory in tracefs; raises OSError or UnknownLayout."""
        fields = field_offsets((directory / "format").read_text())
        number = int((directory / "id").read_text())
        try:
            dev, sector, sectors, rwbs = (fields[n] for n in ("dev", "sector", "nr_sector", "rwbs"))
        except KeyError as error:
            raise UnknownLayout(f"{directory.name} has no field {error}") from error
        if dev[0] % 4 or sector[0] % 4 or sectors[0] % 4 or (dev[1], sector[1], sectors[1]) != (4, 8, 4):
            raise UnknownLayout(f"{directory.name} has fields of another size")
        return cls(directory.name, number, dev[0], sector[0], sectors[0], rwbs[0])


@dataclass(frozen=True, slots=True)
class Events:
    """Decoded events of one kind, reads left out: device numbers as the kernel counts them, sectors of 512 bytes."""

    dev: Words
    sector: npt.NDArray[np.int64]
    sectors: npt.NDArray[np.int64]


def record_places(words: Words, layout: PageLayout) -> tuple[Places, bool]:
    """Return where the data of each record begins, in words, and whether the kernel noted missed events."""
    per_page = layout.page_size // 4
    starts = np.arange(words.size // per_page, dtype=np.int64) * per_page
    commits = words[starts + layout.commit // 4]
    missed = bool((commits & np.uint32(MISSED_EVENTS)).any())
    position = starts + layout.data // 4
    end = position + (commits & np.uint32(COMMIT_MASK)).astype(np.int64) // 4
    found: list[Places] = []
    while True:
        live = position < end
        if not live.all():
            position, end = position[live], end[live]
        if not position.size:
            break
        header = words[position]
        kind = (header & np.uint32(31)).astype(np.int64)
        step = kind + 1
        data = position + 1
        if kind.min() == 0 or kind.max() >= PADDING:
            # A padding record with a time is a discarded event and is stepped over; without one it ends the page.
            extra = words[np.minimum(position + 1, words.size - 1)].astype(np.int64) // 4 + 1
            step = np.where((kind == 0) | (kind == PADDING), extra, np.where(kind >= TIME_EXTEND, 2, step))
            step = np.where((kind == PADDING) & (header >> np.uint32(5) == 0), per_page, np.maximum(step, 1))
            data = np.where(kind == 0, position + 2, data)[kind < PADDING]
        found.append(data)
        position = position + step
    return (np.concatenate(found) if found else np.zeros(0, np.int64)), missed


def decode(words: Words, places: Places, event: EventLayout) -> Events:
    """Return the events of one kind among the records at `places`, without reads."""
    mine = places[(words[places] & np.uint32(0xFFFF)) == event.number]
    flags = words.view(np.uint8)[mine * 4 + event.rwbs]
    mine = mine[flags != ord("R")]
    low = words[mine + event.sector // 4].astype(np.int64)
    high = words[mine + event.sector // 4 + 1].astype(np.int64)
    return Events(
        dev=words[mine + event.dev // 4],
        sector=low | (high << 32),
        sectors=words[mine + event.sectors // 4].astype(np.int64),
    )
