"""Is everything in the vault that its points need, and is it what was written? Names what is spoiled, and no more.

The fast check reads keys, chain and maps: it sees every object that is missing, cut short or not authentic in these,
and every pack that is missing or too short. With `read_data` every block is read and verified too.

It may run beside a writer and a pruner: a point that went away meanwhile is not reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from farshore_engine.blocks.grid import block_count
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.chain import is_below_base, list_slots, live_numbers, read_base, read_slot
from farshore_engine.vault.encoding import BlockRefs
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.mapcheck import Bad, DiskWalk, Fresh, Lost
from farshore_engine.vault.packindex import PackIndex
from farshore_engine.vault.recordcheck import RecordReader
from farshore_engine.vault.records import PointManifest

THREADS = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is spoiled.

    Attributes:
        name: the object in the store that is to blame.
        why: what is wrong with it.
        point, disk: what it spoils; empty if no point can be named.
        runs: the (first, count) runs of 64 KiB blocks of the disk that are lost.
    """

    name: str
    why: str
    point: str = ""
    disk: str = ""
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def blocks(self) -> int:
        """How many blocks are lost."""
        return sum(count for _, count in self.runs)


@dataclass(frozen=True, slots=True)
class CheckProgress:
    """How far it is: points walked of how many, bytes read of how many (0 unless data is read)."""

    points: int
    of_points: int
    read: int = 0
    of_bytes: int = 0


@dataclass(frozen=True)
class CheckReport:
    """What a check found. `spare_packs`: packs that no checked point needs, and their bytes: what a copy under way or
    a prune to come accounts for. None when only one point was checked."""

    machine: str
    points: tuple[str, ...]
    findings: tuple[Finding, ...]
    packs: int = 0
    spare_packs: tuple[int, int] | None = None
    read: int = 0
    notes: tuple[str, ...] = ()

    @property
    def spoiled(self) -> tuple[str, ...]:
        """The points that cannot be restored in full, in the order of the chain."""
        bad = {finding.point for finding in self.findings}
        return tuple(point for point in self.points if point in bad)


def silent(_: CheckProgress) -> None:
    """Report nothing."""


@dataclass
class _Check:
    vault: MachineVault
    points: tuple[StoredPoint, ...]  # in the order of the walk
    report: Callable[[CheckProgress], None]
    packs: PackIndex
    total: int = 0
    read: int = 0
    walked: int = 0

    def walk(self, bad: Bad, fresh: Fresh) -> dict[tuple[int, str], tuple[Lost, ...]]:
        """Walk the maps of every point; return what is lost by slot and disk."""
        walks: dict[str, DiskWalk] = {}
        lost: dict[tuple[int, str], tuple[Lost, ...]] = {}
        for number, point in enumerate(self.points):
            for disk in point.manifest.disks:
                root = disk.root.ref() if disk.root is not None else None
                block_map = BlockMap(disk.id, block_count(disk.size_bytes), root, self.vault.nodes)
                walk = walks.setdefault(disk.id, DiskWalk(self.vault.access, disk.id, self.packs, bad, fresh))
                if found := walk.walk(block_map):
                    lost[point.slot, disk.id] = found
            self.walked = number + 1
            self.tell()
        return lost

    def count(self, _: str, refs: BlockRefs) -> None:
        self.total += int(refs["ref"]["length"].astype(np.int64).sum())

    def tell(self, read: int = 0) -> None:
        self.read += read
        self.report(CheckProgress(self.walked, len(self.points), self.read, self.total))


def check_machine(
    vault: MachineVault,
    *,
    read_data: bool = False,
    point: StoredPoint | None = None,
    threads: int = THREADS,
    report: Callable[[CheckProgress], None] = silent,
) -> CheckReport:
    """Check a machine, or one point of it.

    Args:
        vault: the machine, freshly opened: what it has in memory is believed.
        read_data: read and verify every block, not only what leads to it.
        point: check this point only.
        threads: requests at once while data is read.
        report: is told how far it is, in the calling thread.

    Raises:
        WaitFault: the store is away: nothing can be told.
    """
    catalogue = vault.catalogue()
    points = (point,) if point is not None else tuple(reversed(catalogue.points))
    check = _Check(vault, points, report, PackIndex(vault.access))  # behind the catalogue: a point's packs come first
    lost = check.walk({}, check.count)
    notes: list[str] = []
    if read_data:
        reader = RecordReader(vault, threads=threads, report=check.tell)
        try:
            check.walk({}, reader)
            reader.flush()
        finally:
            reader.close()
        if reader.bad:
            lost = check.walk(reader.bad, lambda disk, refs: None)
        if reader.full:
            notes.append("there is so much damage that not all of the data was read")
    findings = _Findings(vault)
    if point is None:
        findings.chain()
        notes += findings.base()
        findings.journals()
        findings.reports()
        findings.claims(check.packs)
        notes += [f"{name} does not belong in a vault" for name in check.packs.unknown]
    for one in reversed(points):
        findings.losses(one, {disk.id: lost.get((one.slot, disk.id), ()) for disk in one.manifest.disks})
    return CheckReport(
        machine=vault.access.names.machine,
        points=tuple(one.manifest.name for one in reversed(points)),
        findings=tuple(findings.found),
        packs=len(check.packs),
        spare_packs=check.packs.unused() if point is None else None,
        read=check.read,
        notes=tuple(notes),
    )


@dataclass
class _Findings:
    vault: MachineVault
    found: list[Finding] = field(default_factory=list)

    def chain(self) -> None:
        """Slots that are missing or damaged."""
        access = self.vault.access
        for damaged in self.vault.catalogue().damaged:
            if is_below_base(access, damaged.slot):
                continue  # it was pruned while we read
            self.found.append(Finding(access.names.slot(damaged.slot), damaged.why))

    def base(self) -> list[str]:
        """Return what is wrong with the base; readers see through it, so it spoils nothing."""
        access = self.vault.access
        base, numbers = read_base(access), list_slots(access)
        if base and base not in numbers:
            return [f"{access.names.base} names slot {base}, which is not there"]
        hidden = [number for number in live_numbers(access) if number < base]
        if hidden:
            return [f"{access.names.base} names slot {base}, but the chain begins with slot {hidden[0]}"]
        return []

    def journals(self) -> None:
        """Journals of runs that cannot be read."""
        journal, names = self.vault.journal, self.vault.access.names
        for run in journal.runs():
            try:
                journal.entries(run)
            except StopFault as fault:
                self.found.append(Finding(f"{names.journals}{run}/", fault.message))

    def reports(self) -> None:
        """Reports of runs that cannot be read, or that this machine's key did not sign."""
        reports, names = self.vault.reports, self.vault.access.names
        for run in reports.runs():
            for number in reports.numbers(run):
                try:
                    reports.read(run, number)
                except StopFault as fault:
                    self.found.append(Finding(names.report(run, number), fault.message))

    def claims(self, packs: PackIndex) -> None:
        """Packs tell of claims: one that the chain does not reach means that the chain lost its end."""
        access, claim = self.vault.access, packs.highest_claim()
        head = max(list_slots(access), default=0)
        if claim > max(head, read_base(access)):
            why = f"the chain ends at slot {head}, but packs were made under the claim in slot {claim}: its end is lost"
            self.found.append(Finding(access.names.slot(claim), why))

    def losses(self, point: StoredPoint, lost: dict[str, tuple[Lost, ...]]) -> None:
        """What a point lost, joined by object; nothing if the point went away meanwhile."""
        if not any(lost.values()) or not self._still_there(point):
            return
        for disk, runs in lost.items():
            causes: dict[tuple[str, str], list[tuple[int, int]]] = {}
            for one in runs:
                causes.setdefault((one.name, one.why), []).append((one.first, one.count))
            for (name, why), blocks in causes.items():
                self.found.append(Finding(name, why, point.manifest.name, disk, tuple(blocks)))

    def _still_there(self, point: StoredPoint) -> bool:
        slot = read_slot(self.vault.access, point.slot)
        return (
            slot.record is not None
            and slot.record.digest == point.record.digest
            and (isinstance(slot.record.body, PointManifest) or bool(point.pins))
        )
