"""The invariants, looked at whenever the store changes and again at the end.

The auditor sees the store as it is, at once and without faults, and the machine's disks as they were in each freeze.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from tests.contract.memory_store import MemoryStore
from tests.simulation.agent import MACHINE_ID
from tests.simulation.server import KEK
from tests.simulation.source import Source, differences
from tests.simulation.world import World

from farshore_engine.blocks.grid import block_count
from farshore_engine.contract.faults import Fault
from farshore_engine.contract.points import Consistency
from farshore_engine.vault.chain import list_slots, live_slots, read_base
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.records import Record, RecordKind, TombstoneBody, open_record


@dataclass
class Auditor:
    """Collects violations; the schedule ends at the first one."""

    world: World
    store: MemoryStore
    source: Source
    keep: timedelta = timedelta(seconds=12)
    violations: list[str] = field(default_factory=list)
    points: dict[str, tuple[int, float]] = field(default_factory=dict)  # seen ever: name → slot, time of the freeze
    expired: set[str] = field(default_factory=set)
    pinned: dict[str, int] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)  # of a vault that a person replaced
    newest: float = 0.0  # the latest freeze of which a point is visible
    checked: int = 0
    _vault: MachineVault | None = None

    def broken(self, text: str) -> None:
        """Note a violation."""
        self.world.note(f"VIOLATION {text}")
        self.violations.append(text)

    def spoiled(self, text: str) -> None:
        """A process server met a damaged map: nothing damages objects here, so that is a violation."""
        self.broken(f"damage although no object was damaged: {text}")

    def stopped(self, text: str) -> None:
        """A process server cannot go on without a person."""
        self.broken(f"a process server needs a person: {text}")

    # -- while it runs ---------------------------------------------------------------------------------------------

    def changed(self, operation: str, name: str, data: bytes) -> None:
        """The store has just changed."""
        tail = name.rpartition("/chain/")[2]
        if "/chain/" not in name or not tail.isdigit():
            return
        self.world.inline += 1
        try:
            slot = int(tail)
            if operation == "put":
                self._appended(slot)
            elif operation == "put_if":
                self._replaced(slot, data)
        except Fault as fault:
            self.broken(f"slot {tail} cannot be audited: {fault}")
        finally:
            self.world.inline -= 1

    def _appended(self, slot: int) -> None:
        vault = self._open()
        access = vault.access
        numbers = live_slots(list_slots(access), read_base(access))
        if slot not in numbers:
            return  # behind the base: it does not count
        if numbers[-1] != slot:
            self.broken(f"slot {slot} was put below the head {numbers[-1]}")
        record = self._record(slot)
        before = self._record(slot - 1) if slot - 1 in numbers else None
        if slot > 1 and before is None:
            self.broken(f"slot {slot} was put and slot {slot - 1} is not there")
        if before is not None:
            self._follows(record, before, slot)
        if record.header.kind is RecordKind.POINT:
            self._visible(vault, slot)

    def _follows(self, record: Record, before: Record, slot: int) -> None:
        header, previous = record.header, before.header
        if header.previous != before.digest:
            self.broken(f"slot {slot} does not follow the record in slot {slot - 1}")
        if header.epoch < previous.epoch:
            self.broken(f"slot {slot} has epoch {header.epoch}, slot {slot - 1} had {previous.epoch}")
        if header.kind is RecordKind.FENCE and header.claim != slot:
            self.broken(f"the fence in slot {slot} claims {header.claim}")
        if header.kind is not RecordKind.FENCE and header.claim != previous.claim:
            self.broken(f"slot {slot} is of claim {header.claim}, but slot {slot - 1} of claim {previous.claim}")

    def _visible(self, vault: MachineVault, slot: int) -> None:
        point = next(p for p in vault.catalogue(newest=1).points if p.slot == slot)
        name, time = point.manifest.name, point.manifest.time.timestamp()
        if name in self.points:
            self.broken(f"the point {name} appeared twice")
        self.points[name] = (slot, time)
        if time > self.newest:
            self.newest = time
        self.world.note(f"the point {name} is visible")
        self.check_point(vault, point)

    def _replaced(self, slot: int, data: bytes) -> None:
        record = open_record(self._open().access.keys, slot, data)
        if not isinstance(record.body, TombstoneBody):
            self.expired.discard(next((n for n, (s, _) in self.points.items() if s == slot), ""))
            return
        name = record.body.name
        if name not in self.points:
            self.broken(f"slot {slot} is a tombstone of {name}, which never was visible")
            return
        if self.newest - self.points[name][1] < self.keep.total_seconds() - 1e-6:
            self.broken(f"the point {name} was given up before its time")
        self.expired.add(name)

    def check_point(self, vault: MachineVault, point: StoredPoint) -> None:
        """Restore all disks of a point and compare them with the instant of the freeze."""
        name = point.manifest.name
        snapshot = self.source.snapshot_of(point.manifest.time.timestamp())
        if snapshot is None:
            self.broken(f"the point {name} has a time at which nothing was frozen")
            return
        if {d.id for d in point.manifest.disks} != set(snapshot.disks):
            self.broken(f"the point {name} holds {[d.id for d in point.manifest.disks]}")
            return
        reader = PointReader(vault, point)
        unmarked = point.manifest.consistency is Consistency.UNMARKED
        for disk in point.manifest.disks:
            try:
                data = reader.read_blocks(disk.id, 0, block_count(disk.size_bytes))
            except Fault as fault:
                self.broken(f"the point {name} does not restore: {fault}")
                return
            wrong = differences(snapshot, disk.id, data, unmarked)
            if wrong:
                self.broken(f"the point {name} differs from the freeze at blocks {wrong[:8]} of {disk.id}")
        self.checked += 1

    def committed(self, name: str) -> None:
        """The agent was told that a point is in the vault, and forgets what it carries."""
        if name not in self.points and name not in self.forgotten:
            self.broken(f"the agent was told of the point {name}, which is not in the vault")

    # -- at the end ------------------------------------------------------------------------------------------------

    def check_all(self) -> None:
        """Every point that should be there is, and restores; the chain is whole; pinned points are held."""
        self.world.inline += 1
        try:
            vault = self._fresh()
            catalogue = vault.catalogue()
            for damaged in catalogue.damaged:
                self.broken(f"slot {damaged.slot} is damaged: {damaged.why}")
            there = {p.manifest.name for p in catalogue.points}
            for name in sorted(set(self.points) - there - self.expired):
                self.broken(f"the point {name} has disappeared")
            for name in sorted(there - set(self.points)):
                self.broken(f"the point {name} is there and was never put")
            for name in sorted(set(self.pinned) - there):
                self.broken(f"the point {name} has disappeared although it is pinned")
            for point in catalogue.points:
                self.check_point(vault, point)
            vault.close()
        except Fault as fault:
            self.broken(f"the vault cannot be read: {fault}")
        finally:
            self.world.inline -= 1

    def forget_vault(self) -> None:
        """A person has replaced the vault by an empty one."""
        self._vault = None
        self.forgotten |= set(self.points)
        self.points.clear()
        self.expired.clear()
        self.pinned.clear()
        self.newest = 0.0

    def _open(self) -> MachineVault:
        if self._vault is None:
            self._vault = self._fresh()
        return self._vault

    def _fresh(self) -> MachineVault:
        return MachineVault.open(self.store, KEK, MACHINE_ID)  # type: ignore[arg-type]

    def _record(self, slot: int) -> Record:
        access = self._open().access
        return open_record(access.keys, slot, self.store.get(access.names.slot(slot))[0])
