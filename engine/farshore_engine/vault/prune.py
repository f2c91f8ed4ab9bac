"""Prune: give up points that retention no longer wants, then delete packs that no point reaches. Killable anywhere.

A point goes in two steps. Condemned: its record is replaced by a tombstone that holds it, and pins are looked at once
more; a pin that appeared brings it back. Buried: from then on it never comes back, and only then may its packs go.

A pack is deleted only if it was listed first, was not in flight afterwards, and no point that was visible after that
reaches it. Packs of a later claim than the pruner's are never touched, so a stalled pruner harms no new writer.
Where a map or record cannot be read, packs of earlier claims than the point's slot stay: no other can be needed by it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.vault.burial import Burial, raise_base
from farshore_engine.vault.chain import Access, ChainWriter, Fenced
from farshore_engine.vault.decoder import Decoder
from farshore_engine.vault.ledger import PackLedger, Spoiled
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.names import PackId
from farshore_engine.vault.nodestore import NodeStore
from farshore_engine.vault.pace import Pace, PacedStore
from farshore_engine.vault.pins import list_pins
from farshore_engine.vault.records import (
    RecordKind,
    TombstonePhase,
)
from farshore_engine.vault.retention import RetentionRules, retain
from farshore_engine.vault.sketch import ChainSketch, PointSketch, SlotSketch
from farshore_engine.vault.store import ObjectLocked, ObjectNotFound

WALK_CACHE = 1024  # nodes of maps that a prune keeps; 14 MiB


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did and found; sizes in bytes.

    Attributes:
        kept: the reasons for each point, none for one that expired.
        buried, restored: slots of points that went, and that came back because of a pin.
        packs_deleted, bytes_deleted: what was freed.
        withheld: why packs of some claims were not looked at, empty if all were.
        points: the points that there are now, oldest first.
        stored, live: of all packs, and of what the newest point reaches in them.
        missing: packs that a point needs and that are not there.
        spoiled: points whose map cannot be read.
        locked: objects that were to go and are held fast; they are met again.
    """

    kept: dict[int, list[str]]
    buried: tuple[int, ...] = ()
    restored: tuple[int, ...] = ()
    packs_deleted: int = 0
    bytes_deleted: int = 0
    withheld: str = ""
    points: tuple[RecoveryPoint, ...] = ()
    stored: int = 0
    live: int = 0
    missing: frozenset[PackId] = frozenset()
    spoiled: tuple[Spoiled, ...] = ()
    locked: int = 0


@dataclass
class PruneState:
    """What a machine's prunes carry from one to the next, so that each costs what changed; not thread-safe.

    `sizes`: the packs that are there and their bytes, as the last prune left them; `missing`: those that a point needs
    and that are not.
    """

    access: Access
    sketch: ChainSketch
    ledger: PackLedger
    nodes: NodeStore
    sizes: dict[PackId, int] = field(default_factory=dict)
    missing: frozenset[PackId] = frozenset()

    @classmethod
    def of(cls, vault: MachineVault, pace: Pace | None = None) -> PruneState:
        """Start without knowledge, with readers and a cache of its own; `pace` holds back every operation."""
        store = vault.access.store if pace is None else PacedStore(vault.access.store, pace)
        access = Access(store, vault.access.names, vault.access.keys)
        decoder = Decoder(store, access.names, access.keys)
        nodes = NodeStore(access.names.machine, decoder, cached=WALK_CACHE)
        return cls(access, ChainSketch(access), PackLedger(nodes), nodes)


def prune(
    vault: MachineVault,
    chain: ChainWriter,
    rules: RetentionRules,
    *,
    in_flight: Callable[[], frozenset[PackId]],
    clock: Callable[[], datetime],
    state: PruneState | None = None,
    base: int = 0,
) -> PruneReport:
    """Prune the points and packs of a machine; only the holder of its chain may.

    Args:
        vault: the machine.
        chain: the claim of this process.
        rules: what to keep; the newest point, pinned and locked ones always are.
        in_flight: the writer's packs that no point reaches yet (`PointWriter.in_flight`); what a spool holds from an
            earlier process must have been handed to the writer's `resume` before.
        clock: gives the time.
        state: what earlier prunes under the same claim learned.
        base: slot of the point on which the next one lies, which stays; 0 for the newest.

    Raises:
        Fenced: somebody else has claimed the chain.
        WaitFault: the store is away; what was begun is finished by the next prune.
    """
    state = state or PruneState.of(vault)
    access = state.access
    listed = _list_packs(access)
    spared = in_flight()
    slots = _read_chain(state, chain)
    pins = list_pins(access)
    bench = Burial(state.access, state.sketch, clock)
    restored = {s.number for s in slots if s.phase is TombstonePhase.CONDEMNED and pins.get(s.number)}
    for slot in slots:
        if slot.number in restored:
            bench.restore(slot)
    points = {s.number: _pinned(s.point, pins) for s in slots if s.point is not None and _counts(s, pins)}
    kept = retain([p.summary for p in points.values()], rules, clock())
    if base in kept:
        kept[base].append("the next point lies on it")
    condemned = [s for s in slots if s.phase is TombstonePhase.CONDEMNED and s.number not in points]
    for slot in slots:
        if slot.number in kept and not kept[slot.number] and (done := bench.condemn(slot)) is not None:
            condemned.append(done)
    pins = _pins_by_now(access) if condemned else {}
    buried, back = [], set(restored)
    for slot in condemned:
        if pins.get(slot.number):
            bench.restore(slot)
            back.add(slot.number)
        elif bench.bury(slot):
            buried.append(slot.number)
    report = PruneReport(kept, tuple(buried), tuple(sorted(back)), locked=bench.locked)
    oldest = min((s.number for s in slots if not _droppable(s, set(buried))), default=chain.claim)
    report = replace(report, locked=report.locked + raise_base(access, oldest))
    return _sweep(state, chain, report, listed, spared, oldest)


def _list_packs(access: Access) -> dict[PackId, int]:
    prefix = access.names.packs
    found = {}
    for name, size in access.store.sizes(prefix):
        with contextlib.suppress(ValueError):  # whatever it is, it is none of ours
            found[PackId.parse(name[len(prefix) :])] = size
    return found


def _read_chain(state: PruneState, chain: ChainWriter) -> list[SlotSketch]:
    slots = state.sketch.read(chain.head)
    head = slots[-1] if slots else None
    if head is not None and head.kind is not None and head.claim != chain.claim:
        mine = f"{chain.writer} (epoch {chain.epoch})"
        raise Fenced(state.access.names.machine, head.epoch, head.writer, mine)
    return slots


def _pins_by_now(access: Access) -> dict[int, tuple[str, ...]]:
    """List the pins in a list that is not older than this moment: it must show what is put first.

    Raises:
        WaitFault: it does not, so a pin may be there that it does not show either. Nothing was deleted.
    """
    mark = f"list-{secrets.token_hex(8)}"
    name = access.names.pin(0, mark)
    access.store.put(name, b"{}")
    try:
        pins = list_pins(access)
    finally:
        access.store.delete(name)
    if mark not in pins.get(0, ()):
        raise WaitFault(
            f"the storage's list of the pins of {access.names.machine} is behind, so nothing is pruned",
            "Use a storage whose lists show what was written, as docs/vault-format.md demands",
            reason="StaleLists",
        )
    return pins


def _counts(slot: SlotSketch, pins: dict[int, tuple[str, ...]]) -> bool:
    """Whether the slot's point is visible: a condemned one only while it is pinned."""
    return slot.phase is None or slot.number in pins


def _pinned(point: PointSketch, pins: dict[int, tuple[str, ...]]) -> PointSketch:
    names = pins.get(point.slot, ())
    return replace(point, summary=point.summary.model_copy(update={"pins": names})) if names else point


def _droppable(slot: SlotSketch, buried: set[int]) -> bool:
    """Whether the slot may go once no point is below it. A slot that somebody else changed meanwhile may not."""
    if slot.kind is None:
        return True
    return slot.kind is RecordKind.FENCE or slot.phase is TombstonePhase.BURIED or slot.number in buried


def _sweep(
    state: PruneState,
    chain: ChainWriter,
    report: PruneReport,
    listed: dict[PackId, int],
    spared: frozenset[PackId],
    oldest: int,
) -> PruneReport:
    """Delete listed packs that nothing needs, looking at the chain as it is now."""
    access, ledger = state.access, state.ledger
    slots = state.sketch.read(chain.head)
    pins = list_pins(access)
    points = [_pinned(s.point, pins) for s in slots if s.point is not None and s.kind is not None and _counts(s, pins)]
    ledger.update(points)
    damaged = [s for s in slots if s.kind is None and s.number >= oldest]
    unknown = max([s.number for s in damaged] + [s.slot for s in ledger.spoiled], default=0)
    needed = ledger.needed()
    dead = [p for p in listed if p not in needed and p not in spared and unknown <= p.claim <= chain.claim]
    locked, gone = report.locked, set()
    for pack in dead:
        try:
            access.store.delete(access.names.pack(pack))
            gone.add(pack)
        except ObjectLocked:
            locked += 1
    state.sizes = {pack: size for pack, size in listed.items() if pack not in gone}
    absent = needed - listed.keys() - spared
    state.missing = frozenset(pack for pack in absent if pack in state.missing or not _there(access, pack))
    ledger.forget(gone)
    return replace(
        report,
        packs_deleted=len(gone),
        bytes_deleted=sum(listed[pack] for pack in gone),
        withheld=_withheld(damaged, ledger.spoiled),
        points=tuple(point.summary for point in points),
        stored=sum(state.sizes.values()),
        live=sum(ledger.live().values()),
        missing=state.missing,
        spoiled=ledger.spoiled,
        locked=locked,
    )


def _withheld(damaged: list[SlotSketch], spoiled: tuple[Spoiled, ...]) -> str:
    if damaged:
        return f"slot {damaged[-1].number} may hold a point and cannot be read: {damaged[-1].damage}"
    if spoiled:
        return f"the point in slot {spoiled[0].slot} is damaged, so what it needs is not known: {spoiled[0].error}"
    return ""


def _there(access: Access, pack: PackId) -> bool:
    try:
        access.store.head(access.names.pack(pack))
    except ObjectNotFound:
        return False
    return True
