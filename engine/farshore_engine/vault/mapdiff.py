"""What differs between two maps of a disk, found by descending only where the digests of the nodes differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from farshore_engine.vault.blockmap import BlockMap, span_of
from farshore_engine.vault.encoding import BLOCK_REF, REF, BlockRefs, Ref, Refs
from farshore_engine.vault.names import PackId
from farshore_engine.vault.node import FANOUT


def diff(old: BlockMap, new: BlockMap) -> Iterator[BlockRefs]:
    """Yield, in order, the blocks of `new` whose content differs from `old`, with their references in `new`.

    Only the blocks of `new` count; where `old` is shorter it holds holes. Costs the nodes that differ.
    """
    level = max(old.level, new.level)
    for start, was, now in _changed_leaves(level, 0, _top(old), _top(new), (old, new)):
        differs = np.flatnonzero((was["digest"] != now["digest"]).any(axis=1))
        differs = differs[differs + start < new.blocks]
        if differs.size:
            refs = np.zeros(differs.size, BLOCK_REF)
            refs["index"], refs["ref"] = differs + start, now[differs]
            yield refs


def replaced(old: BlockMap, new: BlockMap) -> Iterator[tuple[Refs, Refs]]:
    """Yield what only one of the maps refers to, nodes and blocks alike: (references of `old`, references of `new`).

    Compared by reference, not by digest: the same content may be stored in two packs. Every record is yielded at most
    once for each map, in parts of at most 256. Costs the nodes that differ.
    """
    yield from _replaced(max(old.level, new.level), 0, _top(old), _top(new), (old, new))


def packs_of(new: BlockMap, seen: BlockMap | None) -> Iterator[set[PackId]]:
    """Yield the packs that `new` reaches, with its nodes and blocks, leaving out what it shares with `seen`."""
    for _, refs in replaced(seen or blank(new), new):
        if refs.size:
            pairs = np.unique(refs[["claim", "random"]])
            yield {PackId(int(c), int(r)) for c, r in pairs.tolist()}


def blank(like: BlockMap) -> BlockMap:
    """Return a map of holes to compare a map with."""
    return BlockMap(like.disk, like.blocks, None, like.nodes)


def _top(block_map: BlockMap) -> Refs:
    """Return the root's reference, which also stands for the map at the levels above its root."""
    return block_map.root.record() if block_map.root is not None else np.zeros((), REF)


def _entries(block_map: BlockMap, level: int, index: int, own: Refs) -> Refs:
    """Return the 256 references of a node. Above the root a map has one child: itself."""
    if level > block_map.level:
        entries = np.zeros(FANOUT, REF)
        if index == 0:
            entries[0] = own
        return entries
    ref = Ref.of(own)
    if ref is None:
        return np.zeros(FANOUT, REF)
    return block_map.nodes.fetch(block_map.disk, level, [(index, ref)])[0].entries


def _changed_leaves(
    level: int, index: int, was: Refs, now: Refs, maps: tuple[BlockMap, BlockMap]
) -> Iterator[tuple[int, Refs, Refs]]:
    old, new = maps
    if index * span_of(level) >= new.blocks:
        return
    before, after = _entries(old, level, index, was), _entries(new, level, index, now)
    if level == 0:
        yield index * FANOUT, before, after
        return
    differs = (before["length"] != 0) | (after["length"] != 0)
    if level - 1 <= min(old.level, new.level):  # below both roots equal digests mean equal content
        differs &= (before["digest"] != after["digest"]).any(axis=1)
    _warm(old, level - 1, index, before, differs)
    _warm(new, level - 1, index, after, differs)
    for place in np.flatnonzero(differs):
        yield from _changed_leaves(level - 1, index * FANOUT + int(place), before[place], after[place], maps)


def _replaced(
    level: int, index: int, was: Refs, now: Refs, maps: tuple[BlockMap, BlockMap]
) -> Iterator[tuple[Refs, Refs]]:
    old, new = maps
    shared = level <= min(old.level, new.level)
    if shared and was.tobytes() == now.tobytes():
        return
    yield _one(was, level <= old.level), _one(now, level <= new.level)
    before, after = _entries(old, level, index, was), _entries(new, level, index, now)
    comparable = level - 1 <= min(old.level, new.level)  # below both roots equal references mean equal subtrees
    differs = before != after if comparable else np.ones(FANOUT, bool)
    if level == 0:
        yield before[differs & (before["length"] != 0)], after[differs & (after["length"] != 0)]
        return
    differs &= (before["length"] != 0) | (after["length"] != 0)
    _warm(old, level - 1, index, before, differs)
    _warm(new, level - 1, index, after, differs)
    for place in np.flatnonzero(differs):
        yield from _replaced(level - 1, index * FANOUT + int(place), before[place], after[place], maps)


def _one(ref: Refs, counts: bool) -> Refs:
    """Return a node's own reference as an array, empty for a hole and for what only stands in for a node."""
    return ref.reshape(1) if counts and int(ref["length"]) else np.zeros(0, REF)


def _warm(block_map: BlockMap, level: int, parent: int, entries: Refs, chosen: npt.NDArray[np.bool_]) -> None:
    """Bring the chosen children of a node into the cache in few requests."""
    if level > block_map.level:
        return
    places = np.flatnonzero(chosen & (entries["length"] != 0))
    wanted = [(parent * FANOUT + int(p), ref) for p in places if (ref := Ref.of(entries[p])) is not None]
    block_map.nodes.fetch(block_map.disk, level, wanted)
