"""Walks the maps of a disk, point after point, and tells which blocks each point has lost. Goes on behind damage.

A subtree that a point shares with the one walked before is not walked again: what was lost in it is lost to both.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from farshore_engine.vault.blockmap import BlockMap, span_of
from farshore_engine.vault.chain import Access
from farshore_engine.vault.crypto import TAG_SIZE
from farshore_engine.vault.encoding import BLOCK_REF, REF, BlockRefs, Ref, Refs
from farshore_engine.vault.names import PackId
from farshore_engine.vault.node import FANOUT
from farshore_engine.vault.nodestore import MapSpoiled
from farshore_engine.vault.pack import PACK_HEADER
from farshore_engine.vault.packindex import MISSING


@dataclass(frozen=True, slots=True)
class Lost:
    """Blocks [first, first + count) that cannot be restored, the object that is to blame, and why."""

    first: int
    count: int
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A block's record that was read and does not verify."""

    pack: PackId
    offset: int
    why: str


class Packs(Protocol):
    """Tells what packs there are (`packindex.PackIndex`)."""

    def sizes(self, refs: Refs) -> npt.NDArray[np.int64]:
        """Return the size in bytes of the pack of each reference, MISSING where there is none."""
        ...


Bad = dict[tuple[str, int], list[BadRecord]]  # by disk and block
Fresh = Callable[[str, BlockRefs], None]


@dataclass
class DiskWalk:
    """The maps of one disk of a machine, walked in the order of the points or against it.

    Args:
        packs: what is there.
        bad: records of blocks that are known not to verify.
        fresh: is given the references of blocks that no map walked just before had, unless they are lost.
    """

    access: Access
    disk: str
    packs: Packs
    bad: Bad
    fresh: Fresh
    before: BlockMap | None = None
    lost: tuple[Lost, ...] = ()

    def walk(self, block_map: BlockMap) -> tuple[Lost, ...]:
        """Walk the next point's map and return what it has lost, by block."""
        if self.before is None:
            self.before = BlockMap(self.disk, block_map.blocks, None, block_map.nodes)
        level = max(self.before.level, block_map.level)
        pair = (self.before, block_map)
        found = list(self._child(level, 0, _top(self.before), _top(block_map), pair, _load(pair, level, 0)))
        clipped = (replace(one, count=min(one.count, block_map.blocks - one.first)) for one in found)
        self.lost = tuple(_merged(one for one in clipped if one.count > 0))
        self.before = block_map
        return self.lost

    def _child(
        self, level: int, index: int, was: Refs, now: Refs, maps: tuple[BlockMap, BlockMap], loaded: _Loaded
    ) -> Iterator[Lost]:
        """Look at one node, whose entries in both maps are loaded already."""
        before, after = loaded
        if level <= maps[1].level and int(now["length"]):
            self.packs.sizes(now.reshape(1))
        if isinstance(after, str):
            pack = Ref.of(now)
            name = self.access.names.pack(pack.pack) if pack is not None else ""
            yield Lost(index * span_of(level), span_of(level), name, after)
        elif level == 0:
            yield from self._leaf(index, before, after)
        else:
            yield from self._inner(level, index, before, after, maps)

    def _inner(
        self, level: int, index: int, before: Refs, after: Refs, maps: tuple[BlockMap, BlockMap]
    ) -> Iterator[Lost]:
        old, new = maps
        there = after["length"] != 0
        same = there & (before == after) if level - 1 <= min(old.level, new.level) else np.zeros(FANOUT, bool)
        fresh = there & ~same
        olds = _fetch(old, level - 1, index, before, fresh)
        news = _fetch(new, level - 1, index, after, fresh)
        for place in np.flatnonzero(there).tolist():
            child = index * FANOUT + place
            if same[place]:
                yield from self._carried(child * span_of(level - 1), (child + 1) * span_of(level - 1))
            else:
                was = olds.get(place)
                loaded = (_none() if was is None or isinstance(was, str) else was, news[place])
                yield from self._child(level - 1, child, before[place], after[place], maps, loaded)

    def _carried(self, first: int, end: int) -> Iterator[Lost]:
        low = bisect.bisect_left(self.lost, first, key=lambda one: one.first + one.count - 1)
        for one in self.lost[low:]:
            if one.first >= end:
                return
            start = max(one.first, first)
            yield replace(one, first=start, count=min(one.first + one.count, end) - start)

    def _leaf(self, index: int, before: Refs, after: Refs) -> Iterator[Lost]:
        places = np.flatnonzero(after["length"])
        refs = after[places]
        sizes = self.packs.sizes(refs)
        ends = refs["offset"].astype(np.int64) + refs["length"]
        whys: list[str] = [""] * places.size
        for at in np.flatnonzero((refs["offset"] < PACK_HEADER) | (refs["length"] <= TAG_SIZE)).tolist():
            whys[at] = "its map points to no record"
        for at in np.flatnonzero(ends > sizes).tolist():
            whys[at] = "the pack is missing" if sizes[at] == MISSING else f"the pack ends at byte {sizes[at]}"
        if self.bad:
            for at, place in enumerate(places.tolist()):
                whys[at] = whys[at] or self._read_why(index * FANOUT + place, refs[at])
        good = np.array([not why for why in whys], bool)
        differs = good & (before[places] != refs)
        if differs.any():
            found = np.zeros(int(differs.sum()), BLOCK_REF)
            found["index"], found["ref"] = places[differs] + index * FANOUT, refs[differs]
            self.fresh(self.disk, found)
        for at in np.flatnonzero(~good).tolist():
            pack = PackId(int(refs[at]["claim"]), int(refs[at]["random"]))
            yield Lost(index * FANOUT + int(places[at]), 1, self.access.names.pack(pack), whys[at])

    def _read_why(self, block: int, ref: Refs) -> str:
        where = (PackId(int(ref["claim"]), int(ref["random"])), int(ref["offset"]))
        return next((one.why for one in self.bad.get((self.disk, block), ()) if (one.pack, one.offset) == where), "")


_Entries = Refs | str  # the 256 references of a node, or why it cannot be read
_Loaded = tuple[Refs, _Entries]


def _top(block_map: BlockMap) -> Refs:
    return block_map.root.record() if block_map.root is not None else np.zeros((), REF)


def _none() -> Refs:
    return np.zeros(FANOUT, REF)


def _load(maps: tuple[BlockMap, BlockMap], level: int, index: int) -> _Loaded:
    """Return the entries of the topmost node in both maps."""
    found = []
    for block_map in maps:
        top = _none()
        top[0] = _top(block_map)
        found.append(_fetch(block_map, level, index, top, top["length"] != 0).get(0, _none()))
    before, after = found
    return (_none() if isinstance(before, str) else before), after


def _fetch(
    block_map: BlockMap, level: int, parent: int, entries: Refs, chosen: npt.NDArray[np.bool_]
) -> dict[int, _Entries]:
    """Return the entries of the chosen children that exist, in as few requests as damage allows.

    Above its root a map has one child: itself.
    """
    places = np.flatnonzero(chosen & (entries["length"] != 0)).tolist()
    if level > block_map.level:
        return {place: _alone(entries[place]) if parent == place == 0 else _none() for place in places}
    wanted = [(parent * FANOUT + place, Ref.of(entries[place])) for place in places]
    known = [(index, ref) for index, ref in wanted if ref is not None]
    return dict(zip(places, _fetch_all(block_map, level, known), strict=True))


def _fetch_all(block_map: BlockMap, level: int, wanted: Sequence[tuple[int, Ref]]) -> list[_Entries]:
    try:
        return [node.entries for node in block_map.nodes.fetch(block_map.disk, level, wanted)]
    except MapSpoiled as error:
        if len(wanted) == 1:
            return [str(error)]
    middle = len(wanted) // 2
    return _fetch_all(block_map, level, wanted[:middle]) + _fetch_all(block_map, level, wanted[middle:])


def _alone(own: Refs) -> Refs:
    entries = _none()
    entries[0] = own
    return entries


def _merged(found: Iterator[Lost]) -> Iterator[Lost]:
    """Join neighbours with the same cause."""
    last: Lost | None = None
    for one in found:
        if last is not None and (last.name, last.why, last.first + last.count) == (one.name, one.why, one.first):
            last = replace(last, count=last.count + one.count)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last
