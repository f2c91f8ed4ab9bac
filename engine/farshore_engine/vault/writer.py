"""Writing points: what a process server uses.

    writer = PointWriter(vault, vault.claim(writer=..., epoch=..., reason=...), sink)
    refs = writer.add("sda", indexes, buffer)        # from several threads; journal the refs if the packs are spooled
    writer.flush()                                   # now the sink has every byte of what was added
    point = writer.commit(PointFields(...))          # all packs durable, then the slot: now it is visible

What survives a crash of the process is up to the sink: a spool journals refs and packs and hands them back with
`resume`. What was added and not committed belongs to the next point.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks.content import Digests
from farshore_engine.blocks.encoded import EncodedBlocks
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, block_count
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency, GroupCut, RecoveryPoint, point_name
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.chain import ChainWriter
from farshore_engine.vault.compaction import Carried, carry
from farshore_engine.vault.encoder import Encoder
from farshore_engine.vault.encoding import BlockRefs, Refs, holes, in_packs
from farshore_engine.vault.immutability import LockKeeper
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.names import PackId
from farshore_engine.vault.nodestore import MapSpoiled
from farshore_engine.vault.pack import PACK_TARGET, Packer, PackSink
from farshore_engine.vault.pending import PendingBlocks
from farshore_engine.vault.records import PointDisk, PointManifest, Record, RefModel

FOLD_AT = 1 << 18  # pending references (16 GiB of blocks, 16 MB) after which they are written into the map


@dataclass(frozen=True, slots=True)
class DiskFields:
    """A disk as it was at the freeze; size in bytes."""

    id: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class PointFields:
    """What the process server knows of a point. `time` is the instant of the freeze, with time zone."""

    time: datetime
    consistency: Consistency
    disks: tuple[DiskFields, ...]
    machine: MachineDescription
    notes: tuple[str, ...] = ()
    group: GroupCut | None = None


class DiskSpoiled(StopFault):
    """The newest map of a disk cannot be read. `PointWriter.restart` and a full copy of the disk heal it."""

    def __init__(self, machine: str, error: MapSpoiled) -> None:
        super().__init__(
            f"the map of disk {error.disk} of {machine} is damaged in the vault: {error}",
            "The disk is copied in full again; older points that need the damaged object stay damaged",
            reason="MapDamaged",
        )
        self.disk = error.disk


@dataclass
class _Disk:
    base: BlockMap  # as in the newest point, plus what was folded since
    pending: PendingBlocks = field(default_factory=PendingBlocks)
    adding: set[int] = field(default_factory=set)


class PointWriter:
    """One claim's work on a machine: the maps at the chain's head, the packs being filled, and what is in flight.

    Thread-safe, but `commit` runs alone. `last` is the point that the next one builds on: a source whose changes are
    not relative to exactly that point must be compared by digests first.
    """

    def __init__(
        self,
        vault: MachineVault,
        chain: ChainWriter,
        sink: PackSink,
        *,
        pack_target: int = PACK_TARGET,
        fold_at: int = FOLD_AT,
        locks: LockKeeper | None = None,
        base: StoredPoint | None = None,
    ) -> None:
        """Begin where the newest point ends, or at `base`, an older one on which the chain is to go on.

        `chain` is freshly claimed, so nobody else moves the head from now on. `locks`, started, holds what points need
        against deletion.
        """
        self._vault = vault
        self._machine = vault.access.keys.machine
        self.chain = chain
        self.last: StoredPoint | None = base or vault.newest()
        self._sink = sink
        self.locks = locks
        self._packer = Packer(vault.access.keys, chain.claim, sink, target=pack_target)
        self._encoder = Encoder(vault.access.keys, self._packer)
        self._fold_at = fold_at
        self._lock = threading.RLock()
        self._bytes_changed = 0
        self._reached: frozenset[PackId] = frozenset()  # packs that the point which is being put may need
        self._reached_before: frozenset[PackId] = frozenset()  # the same of the point before
        self._distrusted: frozenset[PackId] = frozenset()
        self._carried: tuple[Carried, ...] = ()
        self._disks: dict[str, _Disk] = {}
        for disk in self.last.manifest.disks if self.last is not None else ():
            root = disk.root.ref() if disk.root is not None else None
            self._disks[disk.id] = _Disk(BlockMap(disk.id, block_count(disk.size_bytes), root, vault.nodes))
        vault.nodes.settle = self._settle

    @property
    def in_flight(self) -> frozenset[PackId]:
        """Packs that no visible point reaches yet; `prune` spares them."""
        return self._packer.in_flight

    def add(self, disk: str, indexes: npt.NDArray[np.integer], buffer: bytes | bytearray | memoryview) -> BlockRefs:
        """Compress and encrypt blocks in the calling thread and count them to the next point.

        Args:
            disk: the disk's id; one that the newest point does not have starts as all holes.
            indexes: the numbers of the blocks, ascending.
            buffer: their bytes one after another; only the last may be short (the disk's end). 256 KiB and more a call
                keep the cores busy. It may be reused after the call.

        Returns:
            The references, of dtype BLOCK_REF, for the spool's journal. Blocks that are as in the newest point
            refer to what it stores; zeros are holes.

        Two calls at a time must not hold the same block; of two calls one after the other the later one counts.

        Raises:
            DiskSpoiled: the map to compare with cannot be read.
            Fault: the sink refused a pack.
        """
        return self._add(disk, indexes, lambda numbers, known: self._encoder.blocks(disk, numbers, buffer, known))

    def add_encoded(self, disk: str, indexes: npt.NDArray[np.integer], blocks: EncodedBlocks) -> BlockRefs:
        """Do the same with blocks that are compressed already; none of them holds only zeros."""
        return self._add(disk, indexes, lambda numbers, known: self._encoder.encoded(disk, numbers, blocks, known))

    def _add(
        self, disk: str, indexes: npt.NDArray[np.integer], encode: Callable[[Indexes, Refs], BlockRefs]
    ) -> BlockRefs:
        numbers = indexes.astype(np.int64)
        if (numbers[1:] <= numbers[:-1]).any():
            raise ValueError("block numbers must ascend")
        busy = set(numbers.tolist())
        with self._lock:
            state = self._state(disk)
            if not state.adding.isdisjoint(busy):
                raise ValueError(f"a block of disk {disk} is being added twice at a time")
            state.adding |= busy
            base = state.base
        try:
            try:
                known = base.lookup_indexes(numbers)
            except MapSpoiled as error:
                raise DiskSpoiled(self._machine, error) from error
            if self._distrusted:
                known[in_packs(known, self._distrusted)] = np.zeros((), known.dtype)
            refs = encode(numbers, known)
            self._count(state, refs)
        finally:
            with self._lock:
                state.adding -= busy
        return refs

    def add_zeros(self, disk: str, first: int, count: int) -> BlockRefs:
        """Count blocks [first, first + count) as zeros; returns their references like `add`."""
        refs = holes(np.arange(first, first + count, dtype=np.int64))
        self._count(self._state(disk), refs)
        return refs

    def resume(self, disk: str, refs: BlockRefs) -> None:
        """Count references again that an earlier process journalled and did not commit, in their order.

        The caller's sink must hold (or have uploaded) the packs that they are in; they count as in flight.
        """
        stored = refs["ref"][refs["ref"]["length"] != 0]
        pairs = np.unique(stored[["claim", "random"]]).tolist()
        self._packer.hold(PackId(int(claim), int(random)) for claim, random in pairs)
        self._count(self._state(disk), refs)

    def digests_of(self, disk: str, first: int, count: int) -> tuple[Digests, npt.NDArray[np.bool_]]:
        """Return digests, shape (count, 32), and hole flags of the disk as the next point would be now.

        A source whose tracking had a gap sends the blocks whose digests differ. Raises DiskSpoiled.
        """
        with self._lock:
            state = self._state(disk)
            try:
                refs: Refs = state.base.lookup(first, count)
            except MapSpoiled as error:
                raise DiskSpoiled(self._machine, error) from error
            if self._distrusted:
                refs["digest"][in_packs(refs, self._distrusted)] = 0xFF  # of no block: so that it is sent
            state.pending.overlay(first, refs)
        return np.ascontiguousarray(refs["digest"]), refs["length"] == 0

    def restart(self, disk: str) -> None:
        """Forget everything about a disk: it starts as all holes and must be copied in full before the next commit."""
        with self._lock:
            self._disks[disk] = _Disk(BlockMap(disk, 0, None, self._vault.nodes))

    def distrust(self, packs: frozenset[PackId]) -> None:
        """Store blocks anew that the newest point has in these packs, which are lost, when they come again.

        They come when the source compares its disk: their digests are told wrongly until then.
        """
        with self._lock:
            self._distrusted |= packs

    def carry(self, carried: Sequence[Carried]) -> None:
        """Have the next point store these blocks anew, so that the packs that they are in can go; see `compaction`."""
        with self._lock:
            self._carried = tuple(carried)

    def flush(self) -> None:
        """Seal the open pack: when this returns, the sink has accepted every byte of what was added."""
        self._packer.flush()

    def commit(self, fields: PointFields) -> RecoveryPoint:
        """Make the point: write the maps, wait until every pack is durable in the vault, then put the slot.

        Raises:
            WaitFault: the store is away; call it again with the same fields, nothing is lost or made twice.
            Fenced: another writer has the chain; this one is finished.
            DiskSpoiled: a map to build on cannot be read.
        """
        with self._lock:
            # An earlier attempt comes first: what was added since is not part of it and must stay in flight.
            settled = self._visible(self.chain.settle())
            if settled is not None and settled.manifest.time == fields.time:
                return settled.summary
            for disk in fields.disks:
                self._fold(self._state(disk.id), block_count(disk.size))
            self._carry_over(frozenset(disk.id for disk in fields.disks))
            reached = self._packer.flush()
            self._sink.drain()
            self._reached = reached
            until = self._hold(fields)
            point = self._visible(self.chain.append(lambda slot: self._manifest(fields, slot, until)))
            assert point is not None
            return point.summary

    def _hold(self, fields: PointFields) -> datetime | None:
        """Lock what the point will reach, before it can be seen; return until when."""
        return None if self.locks is None else self.locks.hold(self.chain.head + 1, self._reached, fields.time)

    def _visible(self, record: Record | None) -> StoredPoint | None:
        """Take note that a point is visible: the next one builds on it."""
        if record is None or not isinstance(record.body, PointManifest):
            return None
        # Not what this point reached: a block that was being encoded meanwhile may lie in one of those packs, and only
        # the next point refers to it.
        self._packer.release(self._reached_before)
        self._reached_before = self._reached
        self._packer.restart_count()
        self._bytes_changed = 0
        kept = {disk.id for disk in record.body.disks}
        self._disks = {disk: state for disk, state in self._disks.items() if disk in kept or len(state.pending)}
        self.last = StoredPoint(record, record.body, ())
        if self.locks is not None and record.body.locked_until is not None:
            self.locks.seal(record.header.slot, record.body.locked_until)
        return self.last

    def _manifest(self, fields: PointFields, slot: int, locked_until: datetime | None) -> PointManifest:
        disks = []
        for disk in fields.disks:
            root = RefModel.of(self._disks[disk.id].base.root)
            disks.append(PointDisk(id=disk.id, name=disk.name, size_bytes=disk.size, root=root))
        return PointManifest(
            name=point_name(fields.time, slot),
            time=fields.time,
            consistency=fields.consistency,
            notes=fields.notes,
            disks=tuple(disks),
            machine=fields.machine,
            bytes_changed=self._bytes_changed,
            bytes_stored=self._packer.bytes_sealed,
            packs_added=self._packer.packs_sealed,
            locked_until=locked_until,
            group=fields.group,
        )

    def _state(self, disk: str) -> _Disk:
        with self._lock:
            if disk not in self._disks:
                self.restart(disk)
            return self._disks[disk]

    def _count(self, state: _Disk, refs: BlockRefs) -> None:
        with self._lock:
            state.pending.add(refs)
            if len(state.pending) >= self._fold_at:
                self._fold(state, None)

    def _fold(self, state: _Disk, blocks: int | None) -> None:
        """Write what is pending into the map; `blocks` is the disk's size, None while it is not known yet."""
        refs = state.pending.merged()
        size = blocks if blocks is not None else max(state.base.blocks, int(refs["index"][-1]) + 1)
        refs = refs[refs["index"] < size]
        try:
            known = state.base.lookup_indexes(refs["index"].astype(np.int64))
            state.base = state.base.updated(refs, self._encoder, size, away=self._distrusted)
        except MapSpoiled as error:
            raise DiskSpoiled(self._machine, error) from error
        changed = (known["digest"] != refs["ref"]["digest"]).any(axis=1)
        self._bytes_changed += int(changed.sum()) * BLOCK_SIZE
        state.pending.take()

    def _carry_over(self, disks: frozenset[str]) -> None:
        """Take what is to be carried into the maps; where a map cannot be read, it is left."""
        carried, self._carried = self._carried, ()
        for one in carried:
            if one.disk in disks:
                with contextlib.suppress(MapSpoiled):
                    state = self._state(one.disk)
                    state.base = carry(state.base, one, self._encoder)

    def _settle(self, pack: PackId) -> None:
        """Make a pack readable that is not in the vault yet, because a map node in it fell out of the cache."""
        if pack in self._packer.in_flight:
            self._packer.flush()
            self._sink.drain()
