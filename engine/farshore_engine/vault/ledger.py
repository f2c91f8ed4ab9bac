"""What each pack is needed for, kept up to date from point to point instead of being searched anew each time.

For the newest point the bytes of each pack that it reaches; for each older point the packs of what it has and the next
newer one has not. Together they name every pack that any point needs. A new point costs the walk of what it changed,
a point that goes costs the walk of what its neighbours differ in; only the first look walks a whole map.

Memory: about 200 bytes a pack, 4 bytes for each pack that an older point holds on to, and the nodes of one walk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.encoding import Refs
from farshore_engine.vault.mapdiff import blank, replaced
from farshore_engine.vault.names import PackId
from farshore_engine.vault.nodestore import MapSpoiled, NodeStore
from farshore_engine.vault.sketch import PointSketch, Root

Numbers = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A point whose map cannot be read in full: what it needs is not known. It needs no pack of a later claim."""

    slot: int
    error: MapSpoiled


@dataclass(frozen=True, slots=True)
class _Held:
    follower: int  # slot of the next newer point
    packs: Numbers


class PackLedger:
    """The ledger of one machine. Not thread-safe. What fails half-way (WaitFault) is taken up again by `update`."""

    def __init__(self, nodes: NodeStore) -> None:
        """Read maps through `nodes`, whose cache bounds the memory of a walk."""
        self._nodes = nodes
        self._numbers: dict[PackId, int] = {}
        self._packs: list[PackId] = []
        self._newest: PointSketch | None = None
        self._live: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        self.spoiled: tuple[Spoiled, ...] = ()

    def update(self, points: Sequence[PointSketch]) -> None:
        """Take over the points that there are now, in the order of their slots."""
        slots = {point.slot for point in points}
        self._held = {slot: held for slot, held in self._held.items() if slot in slots}
        spoiled = []
        if not points:
            self._newest, self._live, self._held = None, {}, {}
        else:
            spoiled += self._advance(points[-1], slots)
        for point, follower in zip(reversed(points[:-1]), reversed(points[1:]), strict=True):
            held = self._held.get(point.slot)
            if held is not None and held.follower == follower.slot:
                continue
            try:
                self._held[point.slot] = _Held(follower.slot, self._only_in(point, follower))
            except MapSpoiled as error:
                self._held.pop(point.slot, None)
                spoiled.append(Spoiled(point.slot, error))
        self.spoiled = tuple(spoiled)

    def needed(self) -> set[PackId]:
        """Return the packs that some point reaches, as far as the maps could be read."""
        found = {number for number, size in self._live.items() if size > 0}
        for held in self._held.values():
            found.update(held.packs.tolist())
        return {self._packs[number] for number in found}

    def live(self) -> dict[PackId, int]:
        """Return the bytes of each pack that the newest point reaches."""
        return {self._packs[number]: size for number, size in self._live.items() if size > 0}

    def held_by_older(self) -> set[PackId]:
        """Return the packs in which an older point reaches what the newest one does not."""
        found: set[int] = set()
        for held in self._held.values():
            found.update(held.packs.tolist())
        return {self._packs[number] for number in found}

    def forget(self, gone: Collection[PackId]) -> None:
        """Make room when packs were deleted; numbers in use stay what they are."""
        if len(gone) * 2 < len(self._packs) or not gone:
            return
        live = {number for number, size in self._live.items() if size > 0}
        keep = sorted(live.union(*(held.packs.tolist() for held in self._held.values())))
        moved = {old: new for new, old in enumerate(keep)}
        self._packs = [self._packs[old] for old in keep]
        self._numbers = {pack: number for number, pack in enumerate(self._packs)}
        self._live = {moved[n]: size for n, size in self._live.items() if size > 0}
        self._held = {
            slot: _Held(held.follower, np.array([moved[n] for n in held.packs.tolist()], np.uint32))
            for slot, held in self._held.items()
        }

    def _advance(self, newest: PointSketch, slots: set[int]) -> list[Spoiled]:
        """Bring the bytes of the newest point up to date; all or nothing."""
        before = self._newest
        if before is not None and before.slot == newest.slot:
            return []
        changes: dict[int, int] = {}
        gone: list[Numbers] = []
        try:
            for old, new in self._maps(before, newest):
                for was, now in replaced(old, new):
                    if was.size:
                        gone.append(self._count(changes, was, -1))
                    self._count(changes, now, 1)
        except MapSpoiled as error:
            self._newest, self._live = None, {}
            return [Spoiled(newest.slot, error)]
        for number, size in changes.items():
            left = self._live.get(number, 0) + size
            if left:
                self._live[number] = left
            else:
                self._live.pop(number, None)
        self._newest = newest
        if before is not None and before.slot in slots:
            self._held[before.slot] = _Held(newest.slot, _distinct(gone))
        return []

    def _only_in(self, point: PointSketch, follower: PointSketch) -> Numbers:
        found: list[Numbers] = []
        for old, new in self._maps(point, follower):
            for was, _ in replaced(old, new):
                found.append(self._numbers_of(was)[0])
                if len(found) > 4096:
                    found = [_distinct(found)]
        return _distinct(found)

    def _maps(self, old: PointSketch | None, new: PointSketch) -> list[tuple[BlockMap, BlockMap]]:
        """Pair the maps of each disk; a disk that one of the points has not is a disk of holes there."""
        before = {root.disk: self._map(root) for root in (old.roots if old is not None else ())}
        after = {root.disk: self._map(root) for root in new.roots}
        pairs = []
        for disk in [*after, *(disk for disk in before if disk not in after)]:
            was, now = before.get(disk), after.get(disk)
            pairs.append((was or blank(after[disk]), now or blank(before[disk])))
        return pairs

    def _map(self, root: Root) -> BlockMap:
        return BlockMap(root.disk, root.blocks, root.root, self._nodes)

    def _count(self, changes: dict[int, int], refs: Refs, sign: int) -> Numbers:
        numbers, sizes = self._numbers_of(refs)
        for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
            changes[number] = changes.get(number, 0) + sign * size
        return numbers

    def _numbers_of(self, refs: Refs) -> tuple[Numbers, npt.NDArray[np.int64]]:
        """Return the numbers of the packs that are referred to, each once, and the bytes in each."""
        if refs.size == 0:
            return np.zeros(0, np.uint32), np.zeros(0, np.int64)
        pairs, inverse = np.unique(refs[["claim", "random"]], return_inverse=True)
        sizes = np.bincount(inverse.reshape(-1), refs["length"].astype(np.float64)).astype(np.int64)
        return np.array([self._number(PackId(*pair)) for pair in pairs.tolist()], np.uint32), sizes

    def _number(self, pack: PackId) -> int:
        number = self._numbers.get(pack)
        if number is None:
            number = self._numbers[pack] = len(self._packs)
            self._packs.append(pack)
        return number


def _distinct(parts: list[Numbers]) -> Numbers:
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint32)
