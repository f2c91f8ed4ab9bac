"""Locks: no point, and nothing that it needs, can be deleted or changed by anybody before its lock ends.

Before a point becomes visible, every pack that it reaches is locked at least until the point's lock ends; afterwards
its slot, the key document and the vault's own file are. Packs live long and are reached by many points, so their locks
are set ahead, to coarse times: each pack is extended once in a while and not at every point.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from farshore_engine.blocks.grid import block_count
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.chain import Access, list_slots, read_slot
from farshore_engine.vault.crypto import MachineKeys
from farshore_engine.vault.envelope import RecordDamaged
from farshore_engine.vault.keydocument import KeyDocument
from farshore_engine.vault.keyring import KeyRing, no_machine, unwrap
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.mapdiff import packs_of
from farshore_engine.vault.names import MachineNames, PackId, vault_file
from farshore_engine.vault.nodestore import MapSpoiled
from farshore_engine.vault.pace import Pace
from farshore_engine.vault.pack import PACK_MAGIC
from farshore_engine.vault.records import RecordKind, open_record
from farshore_engine.vault.store import LockedVersion, LockingStore, ObjectLocked, ObjectNotFound, ObjectStore

FINEST, COARSEST = timedelta(hours=1), timedelta(days=7)
THREADS = 8


@dataclass(frozen=True, slots=True)
class LockRule:
    """For how long points are locked, and whether not even an administrator may end a lock."""

    period: timedelta
    final: bool = False

    @property
    def grain(self) -> timedelta:
        """What the ends of packs' locks are rounded up to."""
        return min(max(self.period / 8, FINEST), COARSEST)

    def rounded(self, until: datetime) -> datetime:
        """Return the end of a pack's lock that must not end before `until`."""
        step = self.grain.total_seconds()
        return datetime.fromtimestamp(math.ceil(until.timestamp() / step) * step, UTC)


def locking(store: ObjectStore) -> LockingStore:
    """Return the store as one that can lock.

    Raises:
        StopFault: it cannot, whatever is switched on.
    """
    if not isinstance(store, LockingStore):
        raise StopFault(
            "this store cannot lock objects against deletion",
            "Keep the vault in Azure Blob Storage, or remove spec.immutability",
            reason="ImmutabilityNotSupported",
        )
    return store


class LockKeeper:
    """The locks of one machine under one claim. Thread-safe."""

    def __init__(self, access: Access, rule: LockRule, clock: Callable[[], datetime]) -> None:
        """Use `start` before anything else."""
        self._access = access
        self._store = locking(access.store)
        self._rule = rule
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[str, datetime] = {}  # of objects, as far as they are known
        self._reach: set[PackId] = set()  # what the newest point reaches, and what is added since
        self._added: dict[int, frozenset[PackId]] = {}
        self._owed: list[tuple[str, datetime]] = []  # slots whose lock could not be set when they became visible

    def start(self, newest: Iterable[BlockMap], slots: Iterable[tuple[int, datetime]]) -> None:
        """Learn which locks there are and what the newest point reaches, and lock what a crash left open.

        Args:
            newest: the maps of the newest point, each walked once.
            slots: slots that must be locked, and until when: the newest point's, the claim's.
        """
        self._ends = dict(self._store.locks(self._access.names.root))
        for one in newest:
            with contextlib.suppress(MapSpoiled):
                self._reach.update(pack for packs in packs_of(one, None) for pack in packs)
        now = self._clock()
        self._extend([(self._access.names.slot(slot), until) for slot, until in slots if until > now])

    def hold(self, slot: int, fresh: frozenset[PackId], time: datetime) -> datetime | None:
        """Lock everything that the point in `slot`, frozen at `time`, will reach; return when its lock ends.

        None if that is over already, as for a point that waited in a spool for longer than the period.
        """
        until = time.astimezone(UTC) + self._rule.period
        if until <= self._clock():
            return None
        with self._lock:
            self._reach |= fresh
            self._added[slot] = fresh
            reach = tuple(self._reach)
        names = self._access.names
        ends = self._rule.rounded(until)
        wanted = [(names.pack(p), ends) for p in reach if self._end(names.pack(p)) < until]
        own = (names.key, vault_file(names.prefix))
        self._extend(self._owed + wanted + [(name, ends) for name in own if self._end(name) < until])
        self._owed = []
        return until

    def seal(self, slot: int, until: datetime) -> None:
        """Lock the slot of a point that is visible now."""
        owed = (self._access.names.slot(slot), until)
        try:
            self._extend([owed])
        except WaitFault:  # the point is there, whatever comes of this
            self._owed.append(owed)

    def ahead(self, slot: int, live: Iterable[PackId], claim: int, pace: Pace | None = None) -> int:
        """Take over what the point in `slot` reaches, and extend locks before a point has to wait for it.

        Returns how many were extended. `claim`: the slot of the writer's fence, which is kept as well.
        """
        with self._lock:
            self._added = {at: packs for at, packs in self._added.items() if at > slot}
            self._reach = set(live).union(*self._added.values())
            reach = tuple(self._reach)
        names, soon = self._access.names, self._clock() + self._rule.period + self._rule.grain / 2
        ends = self._rule.rounded(soon)
        fixed = [names.slot(claim), names.key, vault_file(names.prefix)]
        wanted = [(name, ends) for name in (*fixed, *map(names.pack, reach)) if self._end(name) < soon]
        self._extend(wanted, pace)
        return len(wanted)

    def forget_key(self) -> None:
        """Lock the key document anew: it was written anew."""
        self._ends.pop(self._access.names.key, None)

    def _end(self, name: str) -> datetime:
        return self._ends.get(name, datetime.min.replace(tzinfo=UTC))

    def _extend(self, wanted: list[tuple[str, datetime]], pace: Pace | None = None) -> None:
        def one(work: tuple[str, datetime]) -> None:
            name, until = work
            if pace is not None:
                pace.take()
            if self._end(name) < until:
                with contextlib.suppress(ObjectNotFound):  # a pack in flight that the point turns out not to need
                    self._store.lock(name, until, final=self._rule.final)
                    self._ends[name] = until

        if len(wanted) < 2 or pace is not None:
            for work in wanted:
                one(work)
            return
        with ThreadPoolExecutor(THREADS, "vault-lock") as pool:
            list(pool.map(one, wanted))


def open_locks(
    vault: MachineVault, rule: LockRule, claim: int, clock: Callable[[], datetime], base: StoredPoint | None = None
) -> LockKeeper:
    """Return the locks of a machine whose chain was claimed by the fence in slot `claim`, started.

    `base`: the point on which the next one lies, by default the newest. A map of it that cannot be read is left out:
    its disk is copied anew in any case.

    Raises:
        StopFault: the store does not lock; the remedy says what to switch on.
        WaitFault: the store is away.
    """
    keeper = LockKeeper(vault.access, rule, clock)
    newest = base or vault.newest()
    maps = []
    slots = [(claim, clock() + rule.period)]
    for disk in newest.manifest.disks if newest is not None else ():
        root = disk.root.ref() if disk.root is not None else None
        maps.append(BlockMap(disk.id, block_count(disk.size_bytes), root, vault.nodes))
    if newest is not None and newest.manifest.locked_until is not None:
        slots.append((newest.slot, newest.manifest.locked_until))
    keeper.start(maps, slots)
    return keeper


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `recover` did, as names of objects.

    Attributes:
        objects: brought back.
        spoiled: locked ones of which no version verifies.
        removed: slots behind the head that the machine's key does not open; they stood in the way of its writers.
        stuck: such slots that are locked themselves.
    """

    objects: tuple[str, ...]
    spoiled: tuple[str, ...]
    removed: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()


def recover(store: ObjectStore, names: MachineNames, ring: KeyRing, now: datetime) -> Recovered:
    """Bring back the locked versions of a machine's objects that somebody deleted or overwrote, and clear its head.

    It can be repeated.

    Of several locked versions of an object the one counts that verifies: packs and slots are written once, so it is the
    first of these; the key document changes when keys are rotated, so it is the last that the ring opens.

    Raises:
        StopFault: the store keeps no versions, or no key document can be opened.
        WaitFault: the store or the key vault is away.
    """
    locked = locking(store)
    found: dict[str, list[LockedVersion]] = {}
    for prefix in (vault_file(names.prefix), names.root):
        for version in locked.locked_versions(prefix):
            if version.until > now:
                found.setdefault(version.name, []).append(version)
    back, spoiled = [], []
    content, keys = _key_document(locked, found.pop(names.key, []), names, ring)
    if not _holds(store, names.key, content):
        store.put(names.key, content)
        back.append(names.key)
    for name, versions in sorted(found.items()):
        good = _good(locked, versions, functools.partial(_verifies, names, keys, name))
        if good is None:
            spoiled.append(name)
        elif not _holds(store, name, good):
            store.put(name, good)
            back.append(name)
    removed, stuck = _clear_head(Access(store, names, keys))
    return Recovered(tuple(back), tuple(spoiled), removed, stuck)


def _clear_head(access: Access) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove what somebody put behind the head of the chain."""
    removed, stuck = [], []
    for number in reversed(list_slots(access)):
        if read_slot(access, number).record is not None:
            break
        name = access.names.slot(number)
        try:
            access.store.delete(name)
            removed.append(name)
        except ObjectLocked:
            stuck.append(name)
    return tuple(removed), tuple(stuck)


def _good(store: LockingStore, versions: Iterable[LockedVersion], verifies: Callable[[bytes], bool]) -> bytes | None:
    for version in versions:
        with contextlib.suppress(ObjectNotFound):
            data = store.get_version(version)
            if verifies(data):
                return data
    return None


def _key_document(
    store: LockingStore, versions: list[LockedVersion], names: MachineNames, ring: KeyRing
) -> tuple[bytes, MachineKeys]:
    """Return the key document that counts, the one in place if it opens, and the keys in it."""
    failed: Fault | None = None
    for load in (lambda: store.get(names.key)[0], *(_loader(store, one) for one in reversed(versions))):
        try:
            data = load()
            return data, unwrap(KeyDocument.decode(data, names.machine), ring)
        except ObjectNotFound:
            continue
        except Fault as fault:
            failed = fault
    raise failed or no_machine(names.machine)


def _loader(store: LockingStore, version: LockedVersion) -> Callable[[], bytes]:
    return lambda: store.get_version(version)


def _verifies(names: MachineNames, keys: MachineKeys, name: str, data: bytes) -> bool:
    if name == vault_file(names.prefix):
        return data.startswith(b"{")
    if name.startswith(names.packs):
        return data.startswith(PACK_MAGIC)  # who could not foresee its random name cannot have been there first
    number = name.removeprefix(names.slots)
    if not number.isdigit():
        return False
    try:
        return open_record(keys, int(number), data).header.kind is not RecordKind.TOMBSTONE
    except RecordDamaged:
        return False


def _holds(store: ObjectStore, name: str, content: bytes) -> bool:
    try:
        return store.get(name)[0] == content
    except ObjectNotFound:
        return False
