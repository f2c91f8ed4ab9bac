"""Keeps the warm replica of a machine near its newest point, sends only what differs, and mends what was spoiled.

The points that the replica needs (the one that it holds, the one that it is moved to) are pinned in the vault for as
long, or what differs could not be told any more and all would be sent again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from farshore_engine.azure.replicas import Replicas
from farshore_engine.blocks.content import digest_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count
from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.pageblob import PageBlob, hydrate_page_blob, state_in, update_page_blob
from farshore_engine.hydrate.progress import ImageState
from farshore_engine.hydrate.raw import state_of
from farshore_engine.hydrate.vhd import COOKIE, FOOTER_SIZE, virtual_size
from farshore_engine.hydrate.windows import Progress, Report, silent
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.mapdiff import diff
from farshore_engine.vault.pins import list_pins
from farshore_engine.vault.reader import PointReader

log = structlog.get_logger(__name__)

PIN = "warm-replica"
HOPS = 3  # moves from point to point that bring a replica to where it is wanted: a cut one first ends what it began
SAMPLE = 16  # blocks of a disk that are read back and compared
THREADS = 1  # the keeper has time
USELESS = ("NoSuchRecoveryPoint", "PointDamaged", "PointGone", "NoSuchDisk", "NoReplica", "WrongImage")
"""Reasons for which a replica cannot be moved on, and is made anew."""


@dataclass(frozen=True)
class Kept:
    """What was found or made of a machine's replica.

    Attributes:
        point: that it holds, None while it holds none.
        behind: bytes of blocks in which the newest point differs from it.
        written: bytes that were written to it now.
    """

    point: StoredPoint | None
    behind: int = 0
    written: int = 0


def keep(replicas: Replicas, vault: MachineVault, owner: str, report: Report = silent) -> Kept:
    """Bring the replica of a machine to its newest point; one that is not there, or spoiled, is made anew.

    Raises:
        WaitFault: vault or account are away, or another process server writes to the replica; call again.
        StopFault: access is refused, or the point is damaged.
    """
    newest = vault.newest()
    if newest is None:
        return Kept(None)
    reader, written = PointReader(vault, newest), 0
    _hold(replicas, vault, newest, owner)
    for disk in reader.disks:
        written += _refresh(reader, disk.id, replicas, owner, report)
    wanted = {replicas.name(disk.id) for disk in reader.disks}
    for name in replicas.replicas():
        if name not in wanted:
            replicas.container.drop(name)  # of a disk that the machine does not have any more
    _let_go(vault, {newest.slot})
    return Kept(newest, written=written)


def look(replicas: Replicas, vault: MachineVault, owner: str) -> tuple[Kept, datetime | None]:
    """Return how the replica stands beside the newest point, and when it was last written to; changes nothing."""
    newest = vault.newest()
    if newest is None:
        return Kept(None), None
    reader, behind, changed, held = PointReader(vault, newest), 0, [], [newest]
    for disk in reader.disks:
        found = replicas.replica(disk.id, owner).look()
        state = state_in(found) if found is not None else None
        if found is None or state is None or not state.complete:
            return Kept(None), None
        changed.append(found.last_modified)
        if _holds(state, state_of(reader, disk.id)):
            continue
        try:
            held.append(vault.find(state.point))
        except StopFault as fault:
            if fault.reason not in USELESS:
                raise
            return Kept(None), None
        behind += differing(PointReader(vault, held[-1]), reader, disk.id)
    return Kept(min(held, key=lambda one: one.slot), behind), max(changed) if changed else None


def rests(changed: datetime | None, kept: Kept, interval: timedelta, now: datetime) -> bool:
    """Tell whether the replica is left alone for now: written to lately, by whichever process server."""
    return kept.point is not None and changed is not None and now - changed < interval


def forget(replicas: Replicas, vault: MachineVault) -> tuple[str, ...]:
    """Remove a machine's replica, all copies of it, and its pins; returns the names of what was removed.

    A run that is under way with a copy stages its disks after all.
    """
    found = tuple(replicas.everything())
    for name in found:
        replicas.container.drop(name)
    _let_go(vault, set())
    return found


def bring(reader: PointReader, disk: str, blob: PageBlob, *, threads: int, report: Report = silent) -> Progress:
    """Move a replica or a copy of one to a point, from whichever point it holds or was on its way to.

    Raises:
        StopFault: it holds no point, or one that the vault does not have any more.
        WaitFault: vault or account are away.
    """
    wanted, total = state_of(reader, disk), Progress(0, reader.disk(disk).size_bytes)
    for _ in range(HOPS):
        state = _state(blob)
        if state is not None and _holds(state, wanted):
            return Progress(total.total, total.total, total.written, total.fetched)
        if state is None or not (state.complete or state.base):
            raise StopFault(f"the warm replica {blob.name} is not complete yet", "Wait until it is", reason="NoReplica")
        base = _at(reader, state.point if state.complete else state.base)
        on_its_way = not state.complete and state.point != reader.point.manifest.name
        goal = _at(reader, state.point) if on_its_way else reader
        done = update_page_blob(base, goal, disk, blob, threads=threads, report=report)
        total = Progress(0, total.total, total.written + done.written, total.fetched + done.fetched)
    raise StopFault(f"the warm replica {blob.name} does not get to the point", "Choose again", reason="NoReplica")


def sound(reader: PointReader, disk: str, blob: PageBlob, rng: random.Random | None = None) -> bool:
    """Tell whether a blob that holds the point looks so: its size, its footer, and a sample of its blocks."""
    size, found = reader.disk(disk).size_bytes, blob.look()
    end = virtual_size(size)
    if found is None or int(found.size) < end + FOOTER_SIZE:
        return False
    if not blob.read(int(found.size) - FOOTER_SIZE, FOOTER_SIZE).startswith(COOKIE):
        return False
    blocks = block_count(size)
    chosen = sorted((rng or random.Random()).sample(range(blocks), min(SAMPLE, blocks)))
    for block in chosen:
        at = block * BLOCK_SIZE
        data = blob.read(at, min(BLOCK_SIZE, size - at))
        wanted = reader.lookup(disk, block, 1)["digest"]
        if (digest_blocks(reader.vault.digest_key, memoryview(data)) != wanted).any():
            return False
    return True


def differing(base: PointReader, reader: PointReader, disk: str) -> int:
    """Return the bytes of blocks of a disk in which the points differ."""
    if base.point.manifest.disk(disk) is None:
        return reader.disk(disk).size_bytes
    return sum(int(refs.size) for refs in diff(base.map(disk), reader.map(disk))) * BLOCK_SIZE


def _refresh(reader: PointReader, disk: str, replicas: Replicas, owner: str, report: Report) -> int:
    """Bring the replica of one disk to the point; returns the bytes that were written."""
    blob = replicas.replica(disk, owner)
    written = _go_on(reader, disk, blob, report)  # a first copy ends with the point that it began with
    if _state(blob) is not None:
        try:
            written += bring(reader, disk, blob, threads=THREADS, report=report).written
            if sound(reader, disk, blob):
                _name_point(reader, disk, blob)
                return written
            log.warning("a warm replica was spoiled, and is made anew", blob=blob.name)
            replicas.container.drop(blob.name)
        except StopFault as fault:
            if fault.reason not in USELESS:
                raise
            log.info("a warm replica is made anew", blob=blob.name, why=fault.message)
    return written + hydrate_page_blob(reader, disk, blob, threads=THREADS, report=report).written


def _name_point(reader: PointReader, disk: str, blob: PageBlob) -> None:
    """Put the newest point on record of a disk that did not change since another one, which retention may take now."""
    state = _state(blob)
    if state is None or state.point == reader.point.manifest.name:
        return
    wanted = state_of(reader, disk)
    with blob.opened(wanted.size) as now:
        if now is not None and _holds(now, wanted):
            blob.save(replace(wanted, complete=True))


def _go_on(reader: PointReader, disk: str, blob: PageBlob, report: Report) -> int:
    """End a first copy that was cut, with its own point, which may take longer than points take to come."""
    state = _state(blob)
    if state is None or state.complete or state.base or state.point == reader.point.manifest.name:
        return 0
    try:
        return hydrate_page_blob(_at(reader, state.point), disk, blob, threads=THREADS, report=report).written
    except StopFault as fault:
        if fault.reason not in USELESS:
            raise
        return 0


def _hold(replicas: Replicas, vault: MachineVault, newest: StoredPoint, owner: str) -> None:
    """Pin the newest point and those that the replica needs, and no others."""
    needed = {newest.slot}
    for disk in newest.manifest.disks:
        state = _state(replicas.replica(disk.id, owner))
        needed |= {int(name.rpartition("-")[2]) for name in ((state.point, state.base) if state else ()) if name}
    try:
        vault.pin(newest, PIN, note="warm replica")
    except StopFault as fault:  # a login that may only read: the replica is made anew where a point is gone
        log.warning("the point of a warm replica is not held against pruning", why=fault.message)
        return
    _let_go(vault, needed)


def _let_go(vault: MachineVault, keep_slots: set[int]) -> None:
    for slot, pins in list_pins(vault.access).items():
        if PIN in pins and slot not in keep_slots:
            vault.unpin(slot, PIN)


def _state(blob: PageBlob) -> ImageState | None:
    """Return what a blob tells of itself, None if it is not there or tells nothing."""
    found = blob.look()
    return state_in(found) if found is not None else None


def _at(reader: PointReader, point: str) -> PointReader:
    return reader if point == reader.point.manifest.name else PointReader(reader.vault, reader.vault.find(point))


def _holds(state: ImageState, wanted: ImageState) -> bool:
    mine = (state.machine, state.disk, state.size, state.root)
    return state.complete and mine == (wanted.machine, wanted.disk, wanted.size, wanted.root)
