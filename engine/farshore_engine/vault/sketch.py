"""The chain in little memory: of each slot only what retention and the search for dead packs need.

A point's record may hold a machine description of many kilobytes; a sketch is about two. Sketches of slots that can
only ever lose a point (points, fences, buried ones) are kept between prunes, so a prune reads what is new.
"""

from __future__ import annotations

from dataclasses import dataclass

from farshore_engine.blocks.grid import block_count
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.vault.chain import Access, Slot, live_numbers, read_base, read_slots
from farshore_engine.vault.encoding import Ref
from farshore_engine.vault.envelope import RecordDamaged
from farshore_engine.vault.records import (
    PointManifest,
    Record,
    RecordKind,
    TombstoneBody,
    TombstonePhase,
    open_record,
    point_of,
)
from farshore_engine.vault.store import Version

BATCH = 64  # records in memory at once


@dataclass(frozen=True, slots=True)
class Root:
    """The map of one disk at a point: `blocks` on the grid, `root` None when all are holes."""

    disk: str
    blocks: int
    root: Ref | None


@dataclass(frozen=True, slots=True)
class PointSketch:
    """A point: what users see of it, and its maps. `slot` orders the points of a chain."""

    slot: int
    summary: RecoveryPoint
    roots: tuple[Root, ...]


@dataclass(frozen=True, slots=True)
class SlotSketch:
    """A slot: `point` if it holds one (condemned too), `phase` if it is a tombstone, `damage` if it is spoiled."""

    number: int
    version: Version
    kind: RecordKind | None
    claim: int
    epoch: int
    writer: str
    digest: str
    previous: str
    phase: TombstonePhase | None = None
    point: PointSketch | None = None
    damage: str = ""

    @property
    def settled(self) -> bool:
        """Whether it need not be read again: it can only lose its point, which `prune` allows for."""
        return self.kind is not None and self.phase is not TombstonePhase.CONDEMNED


class ChainSketch:
    """The sketches of one machine's chain, brought up to date by `read`. Not thread-safe."""

    def __init__(self, access: Access) -> None:
        """Nothing is read yet."""
        self._access = access
        self._known: dict[int, SlotSketch] = {}

    def read(self, head: int) -> list[SlotSketch]:
        """Return every slot that counts, in order; gaps of the chain are slots that are missing.

        `head` is the last slot that is known to be taken. It, those below it, and the one behind it are asked for by
        number, so that a list that is behind hides no point.
        """
        listed = live_numbers(self._access)
        first = listed[0] if listed else max(read_base(self._access), 1)
        numbers = sorted({*listed, *range(first, head + 2)})
        self._known = {n: s for n, s in self._known.items() if s.settled and n >= (numbers[0] if numbers else 0)}
        fresh = [n for n in numbers if n not in self._known]
        for at in range(0, len(fresh), BATCH):
            for slot in read_slots(self._access, fresh[at : at + BATCH]):
                self._known[slot.number] = self._sketch(slot)
        if numbers[-1] == head + 1 and not self._known[head + 1].version:
            del self._known[numbers.pop()]  # free, as it should be
        return [self._linked(n) for n in numbers]

    def forget(self, number: int) -> None:
        """Read this slot anew next time."""
        self._known.pop(number, None)

    def _linked(self, number: int) -> SlotSketch:
        """Return a sketch, as damaged if the slot behind it does not follow it."""
        found, follower = self._known[number], self._known.get(number + 1)
        if found.kind is not None and follower is not None and follower.kind and follower.previous != found.digest:
            why = f"it is not the record that slot {number + 1} follows"
            return SlotSketch(number, found.version, None, 0, 0, "", "", "", damage=why)
        return found

    def _sketch(self, slot: Slot) -> SlotSketch:
        record = slot.record
        if record is None:
            return SlotSketch(slot.number, slot.version, None, 0, 0, "", "", "", damage=slot.damage)
        header, phase, held = record.header, None, record
        if isinstance(record.body, TombstoneBody):
            phase = record.body.phase
            if phase is TombstonePhase.CONDEMNED:
                try:
                    held = open_record(self._access.keys, slot.number, record.body.original_record())
                except RecordDamaged as error:
                    return SlotSketch(slot.number, slot.version, None, 0, 0, "", "", "", damage=str(error))
        return SlotSketch(
            number=slot.number,
            version=slot.version,
            kind=header.kind,
            claim=header.claim,
            epoch=header.epoch,
            writer=header.writer,
            digest=record.digest,
            previous=header.previous,
            phase=phase,
            point=_point(held),
        )


def _point(record: Record) -> PointSketch | None:
    manifest = record.body
    if not isinstance(manifest, PointManifest):
        return None
    roots = tuple(
        Root(disk.id, block_count(disk.size_bytes), disk.root.ref() if disk.root is not None else None)
        for disk in manifest.disks
    )
    return PointSketch(record.header.slot, point_of(record, manifest), roots)
