"""Prune: give up points that retention no longer wants, then delete packs that no point reaches. Killable anywhere.

A point goes in two steps. Condemned: its record is replaced by a tombstone that holds it, and pins are looked at once
more; a pin that appeared brings it back. Buried: from then on it never comes back, and only then may its packs go.

A pack is deleted only if it was listed first, was not in flight afterwards, and no point that was visible after that
reaches it. Packs of a later claim than the pruner's are never touched, so a stalled pruner harms no new writer.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from farshore_engine.blocks.grid import block_count
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.chain import Access, ChainWriter, Fenced, Slot, list_slots, live_slots, read_base, read_slots
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.mapdiff import packs_of
from farshore_engine.vault.names import PackId
from farshore_engine.vault.nodestore import MapSpoiled
from farshore_engine.vault.pins import list_pins
from farshore_engine.vault.records import (
    PointManifest,
    Record,
    RecordKind,
    TombstoneBody,
    TombstonePhase,
    seal_record,
)
from farshore_engine.vault.retention import RetentionRules, retain
from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, VersionMismatch


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did. `withheld` says why no pack was deleted, empty if they were."""

    kept: dict[int, list[str]]
    buried: tuple[int, ...] = ()
    restored: tuple[int, ...] = ()
    packs_deleted: int = 0
    withheld: str = ""


def prune(
    vault: MachineVault,
    chain: ChainWriter,
    rules: RetentionRules,
    *,
    in_flight: Callable[[], frozenset[PackId]],
    clock: Callable[[], datetime],
) -> PruneReport:
    """Prune the points and packs of a machine; only the holder of its chain may.

    Args:
        vault: the machine.
        chain: the claim of this process.
        rules: what to keep; the newest point and pinned ones always are.
        in_flight: the writer's packs that no point reaches yet (`PointWriter.in_flight`); what a spool holds from an
            earlier process must have been handed to the writer's `resume` before.
        clock: gives the time.

    Raises:
        Fenced: somebody else has claimed the chain.
        WaitFault: the store is away; what was begun is finished by the next prune.
    """
    access = vault.access
    listed = _list_packs(access)
    spared = in_flight()
    slots = _read_chain(access, chain)
    pins = list_pins(access)
    restored = [s for s in slots if _phase(s) is TombstonePhase.CONDEMNED and pins.get(s.number)]
    for slot in restored:
        _restore(access, slot)
    points = {s.number: p for s in slots if (p := _point(vault, s, pins.get(s.number, ()))) is not None}
    kept = retain([p.summary for p in points.values()], rules, clock())
    expired = [s for s in slots if s.number in kept and not kept[s.number]]
    condemned = [s for s in slots if _phase(s) is TombstonePhase.CONDEMNED and s.number not in points]
    condemned += [done for s in expired if (done := _condemn(access, s, clock())) is not None]
    pins = list_pins(access)
    buried, back = [], []
    for slot in condemned:
        if pins.get(slot.number):
            _restore(access, slot)
            back.append(slot.number)
        elif _bury(access, slot):
            buried.append(slot.number)
    report = PruneReport(kept, tuple(buried), tuple(sorted({*back, *(s.number for s in restored)})))
    oldest = min((s.number for s in slots if not _droppable(s, set(buried))), default=chain.claim)
    _raise_base(access, oldest)
    return _sweep(vault, chain, report, listed, spared, oldest)


def _list_packs(access: Access) -> list[PackId]:
    prefix = access.names.packs
    return [PackId.parse(name[len(prefix) :]) for name in access.store.list(prefix)]


def _read_chain(access: Access, chain: ChainWriter) -> list[Slot]:
    numbers = live_slots(list_slots(access), read_base(access))
    slots = read_slots(access, numbers)
    head = slots[-1].record if slots else None
    if head is not None and head.header.claim != chain.claim:
        mine = f"{chain.writer} (epoch {chain.epoch})"
        raise Fenced(access.names.machine, head.header.epoch, head.header.writer, mine)
    return slots


def _phase(slot: Slot) -> TombstonePhase | None:
    body = slot.record.body if slot.record is not None else None
    return body.phase if isinstance(body, TombstoneBody) else None


def _droppable(slot: Slot, buried: set[int]) -> bool:
    """Whether the slot may go once no point is below it. A slot that somebody else changed meanwhile may not."""
    if slot.record is None:
        return True
    fence = slot.record.header.kind is RecordKind.FENCE
    return fence or _phase(slot) is TombstonePhase.BURIED or slot.number in buried


def _point(vault: MachineVault, slot: Slot, pins: tuple[str, ...]) -> StoredPoint | None:
    found = vault.judge(slot, None, pins)
    return found if isinstance(found, StoredPoint) else None


def _condemn(access: Access, slot: Slot, now: datetime) -> Slot | None:
    """Replace a point by a tombstone that holds it; None if somebody changed the slot meanwhile."""
    record = slot.record
    assert record is not None and isinstance(record.body, PointManifest)
    body = TombstoneBody(
        phase=TombstonePhase.CONDEMNED,
        reason="retention",
        time=now,
        name=record.body.name,
        original=base64.b64encode(slot.data).decode(),
        original_digest=record.digest,
    )
    return _replace(access, slot, record, body)


def _bury(access: Access, slot: Slot) -> bool:
    record = slot.record
    assert record is not None and isinstance(record.body, TombstoneBody)
    body = record.body.model_copy(update={"phase": TombstonePhase.BURIED, "original": None})
    return _replace(access, slot, record, body) is not None


def _replace(access: Access, slot: Slot, record: Record, body: TombstoneBody) -> Slot | None:
    header = replace(record.header, kind=RecordKind.TOMBSTONE)
    data = seal_record(access.keys, header, body)
    try:
        version = access.store.put_if(access.names.slot(slot.number), data, slot.version)
    except VersionMismatch:
        return None
    return Slot(slot.number, version, Record(header, body, record.digest), data)


def _restore(access: Access, slot: Slot) -> None:
    """Bring a condemned point back; if somebody changed the slot meanwhile, they decided."""
    assert slot.record is not None and isinstance(slot.record.body, TombstoneBody)
    try:
        access.store.put_if(access.names.slot(slot.number), slot.record.body.original_record(), slot.version)
    except VersionMismatch:
        return


def _raise_base(access: Access, oldest: int) -> None:
    """Make the oldest point the base of the chain and remove the slots below it. The base is raised first: a stale
    writer whose slot was removed looks at it after its put."""
    while read_base(access) < oldest:
        try:
            _, version = access.store.get(access.names.base)
            access.store.put_if(access.names.base, str(oldest).encode(), version)
        except ObjectNotFound:
            with contextlib.suppress(AlreadyExists):
                access.store.put(access.names.base, str(oldest).encode(), create_only=True)
        except VersionMismatch:
            continue
    for number in list_slots(access):
        if number < oldest:
            access.store.delete(access.names.slot(number))


def _sweep(
    vault: MachineVault,
    chain: ChainWriter,
    report: PruneReport,
    listed: list[PackId],
    spared: frozenset[PackId],
    oldest: int,
) -> PruneReport:
    """Delete listed packs that nothing needs, looking at the chain as it is now."""
    access = vault.access
    catalogue = vault.catalogue()
    damaged = [d for d in catalogue.damaged if d.slot >= oldest]
    if damaged:
        why = f"slot {damaged[0].slot} may hold a point and cannot be read: {damaged[0].why}"
        return replace(report, withheld=why)
    try:
        needed = reachable(vault, catalogue.points)
    except MapSpoiled as error:
        return replace(report, withheld=f"a kept point is damaged, so what it needs is not known: {error}")
    deleted = 0
    for pack in listed:
        if pack not in needed and pack not in spared and pack.claim <= chain.claim:
            access.store.delete(access.names.pack(pack))
            deleted += 1
    return replace(report, packs_deleted=deleted)


def reachable(vault: MachineVault, points: tuple[StoredPoint, ...]) -> set[PackId]:
    """Return the packs that the points need. Costs one walk of a map, and of each further one what differs.

    Raises:
        MapSpoiled: a map cannot be read in full.
    """
    needed: set[PackId] = set()
    walked: dict[str, BlockMap] = {}
    for point in reversed(points):
        for disk in point.manifest.disks:
            root = disk.root.ref() if disk.root is not None else None
            block_map = BlockMap(disk.id, block_count(disk.size_bytes), root, vault.nodes)
            for packs in packs_of(block_map, walked.get(disk.id)):
                needed |= packs
            walked[disk.id] = block_map
    return needed
