"""Giving points up: their records become tombstones, in two steps, and slots that nobody needs leave the chain."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from farshore_engine.vault.chain import Access, list_slots, read_base, read_slot
from farshore_engine.vault.records import (
    PointManifest,
    RecordHeader,
    RecordKind,
    TombstoneBody,
    TombstonePhase,
    seal_record,
)
from farshore_engine.vault.sketch import ChainSketch, SlotSketch
from farshore_engine.vault.store import AlreadyExists, ObjectLocked, ObjectNotFound, Version, VersionMismatch


class Burial:
    """Replaces the records of points, each on condition that it is still what was seen."""

    def __init__(self, access: Access, sketch: ChainSketch, clock: Callable[[], datetime]) -> None:
        """Change slots through `access`, and have `sketch` read them anew."""
        self._access = access
        self._sketch = sketch
        self._clock = clock
        self.locked = 0

    def condemn(self, slot: SlotSketch) -> SlotSketch | None:
        """Replace a point by a tombstone that holds it; None if somebody changed the slot meanwhile."""
        found = read_slot(self._access, slot.number)
        record = found.record
        if record is None or not isinstance(record.body, PointManifest) or found.version != slot.version:
            self._sketch.forget(slot.number)
            return None
        body = TombstoneBody(
            phase=TombstonePhase.CONDEMNED,
            reason="retention",
            time=self._clock(),
            name=record.body.name,
            original=base64.b64encode(found.data).decode(),
            original_digest=record.digest,
        )
        version = self._replace(slot, record.header, body)
        return None if version is None else replace(slot, version=version, phase=TombstonePhase.CONDEMNED)

    def bury(self, slot: SlotSketch) -> bool:
        """Take the point out of a tombstone; from here nothing brings it back."""
        record = read_slot(self._access, slot.number).record
        if record is None or not isinstance(record.body, TombstoneBody):
            return False
        body = record.body.model_copy(update={"phase": TombstonePhase.BURIED, "original": None})
        return self._replace(slot, record.header, body) is not None

    def restore(self, slot: SlotSketch) -> None:
        """Bring a condemned point back; if somebody changed the slot meanwhile, they decided."""
        record = read_slot(self._access, slot.number).record
        self._sketch.forget(slot.number)
        if record is not None and isinstance(record.body, TombstoneBody) and record.body.original is not None:
            with contextlib.suppress(VersionMismatch):
                name = self._access.names.slot(slot.number)
                self._access.store.put_if(name, record.body.original_record(), slot.version)

    def _replace(self, slot: SlotSketch, header: RecordHeader, body: TombstoneBody) -> Version | None:
        access = self._access
        self._sketch.forget(slot.number)
        data = seal_record(access.keys, replace(header, kind=RecordKind.TOMBSTONE), body)
        try:
            return access.store.put_if(access.names.slot(slot.number), data, slot.version)
        except VersionMismatch:
            return None
        except ObjectLocked:
            self.locked += 1
            return None


def raise_base(access: Access, oldest: int) -> int:
    """Make the oldest point the base of the chain and remove the slots below it; return how many are held fast.

    The base is raised first: a stale writer whose slot was removed looks at it after its put.
    """
    while read_base(access) < oldest:
        try:
            _, version = access.store.get(access.names.base)
            access.store.put_if(access.names.base, str(oldest).encode(), version)
        except ObjectNotFound:
            with contextlib.suppress(AlreadyExists):
                access.store.put(access.names.base, str(oldest).encode(), create_only=True)
        except VersionMismatch:
            continue
    locked = 0
    for number in list_slots(access):
        if number < oldest:
            try:
                access.store.delete(access.names.slot(number))
            except ObjectLocked:
                locked += 1
    return locked
