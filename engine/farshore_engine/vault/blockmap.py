"""The block map of a disk at a point: a persistent Merkle tree from block numbers to references into packs.

Leaves cover 256 blocks (16 MiB), inner nodes 256 nodes. A subtree of holes has no node. A map never changes: `updated`
returns another one that shares every node that the change did not touch, so a point costs what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks.content import Digests
from farshore_engine.vault.encoding import BLOCK_REF, REF, BlockRefs, Ref, Refs, in_packs
from farshore_engine.vault.names import PackId
from farshore_engine.vault.node import FANOUT, Node, empty_node, node_of
from farshore_engine.vault.nodestore import NodeStore, NodeWriter


@dataclass(frozen=True)
class _Target:
    """Where changed nodes go, and the packs that nothing on the way is left in."""

    writer: NodeWriter
    away: frozenset[PackId] = frozenset()

    def leaves(self, refs: Refs) -> npt.NDArray[np.bool_]:
        """Return which references are of records in a pack that is to be left."""
        if not self.away:
            return np.zeros(refs.size, bool)
        return in_packs(refs, self.away)


def span_of(level: int) -> int:
    """Return how many blocks a node of the level covers."""
    return int(FANOUT ** (level + 1))


def root_level(blocks: int) -> int:
    """Return the level of the root of a map of `blocks` blocks."""
    level = 0
    while span_of(level) < blocks:
        level += 1
    return level


@dataclass(frozen=True)
class BlockMap:
    """The map of one disk. `blocks` is the disk's size on the grid, `root` None when every block is a hole.

    Every method that reads raises MapSpoiled for the first node that does not verify.
    """

    disk: str
    blocks: int
    root: Ref | None
    nodes: NodeStore

    @property
    def level(self) -> int:
        """The level of the root."""
        return root_level(self.blocks)

    def lookup(self, first: int, count: int) -> Refs:
        """Return the references of blocks [first, first + count), holes included and past the end too."""
        refs = np.zeros(count, REF)
        for start, entries in self._leaves(first, first + count):
            low, high = max(first, start), min(first + count, start + FANOUT)
            refs[low - first : high - first] = entries[low - start : high - start]
        return refs

    def lookup_indexes(self, indexes: npt.NDArray[np.integer]) -> Refs:
        """Return the references of blocks in ascending order, each leaf read once."""
        refs = np.zeros(indexes.size, REF)
        if indexes.size == 0 or self.root is None:
            return refs
        wanted = np.unique(indexes.astype(np.int64) // FANOUT)
        for start, entries in self._leaves(int(indexes[0]), int(indexes[-1]) + 1, wanted):
            low, high = np.searchsorted(indexes, [start, start + FANOUT])
            refs[low:high] = entries[indexes[low:high].astype(np.int64) - start]
        return refs

    def digests_of(self, first: int, count: int) -> tuple[Digests, npt.NDArray[np.bool_]]:
        """Return the digests, shape (count, 32), zeros for holes, and whether each block is a hole."""
        refs = self.lookup(first, count)
        return np.ascontiguousarray(refs["digest"]), refs["length"] == 0

    def runs(self, first: int = 0, count: int | None = None) -> Iterator[BlockRefs]:
        """Yield the blocks that are no holes, in order, leaf by leaf."""
        end = self.blocks if count is None else min(self.blocks, first + count)
        for start, entries in self._leaves(first, end):
            at = np.flatnonzero(entries["length"])
            at = at[(at + start >= first) & (at + start < end)]
            if at.size:
                yield _block_refs(at + start, entries[at])

    def updated(
        self,
        refs: BlockRefs,
        writer: NodeWriter,
        blocks: int | None = None,
        *,
        away: frozenset[PackId] = frozenset(),
    ) -> BlockMap:
        """Return the map with the given blocks replaced, and with another number of blocks if one is given.

        `refs` is sorted by index without repetitions, inside the new size. A block with the digest that it has
        already keeps its place, unless that is in a pack of `away`. Nodes on the way to the given blocks that are in
        such a pack are written anew, also if nothing in them changes. After growth the blocks from the old end on are
        holes until they are given.
        """
        size = self.blocks if blocks is None else blocks
        base = self._resized(size, writer) if size != self.blocks else self
        if refs.size == 0:
            return base
        numbers = refs["index"].astype(np.int64)
        if int(numbers[-1]) >= size or (numbers.size > 1 and not (np.diff(numbers) > 0).all()):
            raise ValueError("block references must ascend and lie on the disk")
        top = Ref.record(base.root) if base.root is not None else np.zeros((), REF)
        root = base._apply(base.level, 0, top, (numbers, refs["ref"]), _Target(writer, away))
        return replace(base, root=Ref.of(root))

    def _apply(
        self, level: int, index: int, own: Refs, change: tuple[npt.NDArray[np.int64], Refs], target: _Target
    ) -> Refs:
        """Return the reference of this node after the change, `own` itself if nothing changed."""
        numbers, refs = change
        old = self._node(level, index, own)
        new = old.entries.copy()
        if level == 0:
            places = numbers - index * FANOUT
            differs = (new["digest"][places] != refs["digest"]).any(axis=1)
            differs |= (new["length"][places] == 0) != (refs["length"] == 0)
            differs |= target.leaves(new[places])
            new[places[differs]] = refs[differs]
        else:
            children = numbers // span_of(level - 1)
            self._warm(level - 1, np.unique(children), old, index)
            bounds = np.flatnonzero(np.diff(children)) + 1
            for part in np.split(np.arange(numbers.size), bounds):
                child = int(children[part[0]])
                place = child - index * FANOUT
                cut = slice(int(part[0]), int(part[-1]) + 1)
                new[place] = self._apply(level - 1, child, old.entries[place], (numbers[cut], refs[cut]), target)
        return self._stored(level, index, own, old, new, target)

    def _stored(self, level: int, index: int, own: Refs, old: Node, new: Refs, target: _Target) -> Refs:
        if new.tobytes() == old.entries.tobytes() and not target.leaves(own.reshape(1))[0]:
            return own
        node = node_of(level, new)
        if node.empty:
            return np.zeros((), REF)
        return self.nodes.put(target.writer, self.disk, index, node).record()

    def _node(self, level: int, index: int, own: Refs) -> Node:
        ref = Ref.of(own)
        return empty_node(level) if ref is None else self.nodes.fetch(self.disk, level, [(index, ref)])[0]

    def _warm(self, level: int, children: npt.NDArray[np.int64], parent: Node, parent_index: int) -> None:
        """Bring the children into the cache in few requests."""
        wanted = [
            (int(child), ref)
            for child in children
            if (ref := Ref.of(parent.entries[int(child) - parent_index * FANOUT])) is not None
        ]
        self.nodes.fetch(self.disk, level, wanted)

    def _resized(self, blocks: int, writer: NodeWriter) -> BlockMap:
        own = self.root.record() if self.root is not None else np.zeros((), REF)
        level, target = self.level, root_level(blocks)
        if blocks < self.blocks:
            own = self._cut(level, 0, own, blocks, _Target(writer))
        while level > target:  # everything behind the first child is gone by now
            own = self._node(level, 0, own).entries[0]
            level -= 1
        while level < target and int(own["length"]):
            level += 1
            entries = np.zeros(FANOUT, REF)
            entries[0] = own
            own = self.nodes.put(writer, self.disk, 0, node_of(level, entries)).record()
        return replace(self, blocks=blocks, root=Ref.of(own))

    def _cut(self, level: int, index: int, own: Refs, blocks: int, target: _Target) -> Refs:
        """Make everything from block `blocks` on a hole."""
        if not int(own["length"]) or (index + 1) * span_of(level) <= blocks:
            return own
        old = self._node(level, index, own)
        new = old.entries.copy()
        child = span_of(level - 1) if level else 1
        kept = -(-max(0, blocks - index * span_of(level)) // child)
        new[kept:] = np.zeros((), REF)
        if level and kept:
            last = index * FANOUT + kept - 1
            new[kept - 1] = self._cut(level - 1, last, old.entries[kept - 1], blocks, target)
        return self._stored(level, index, own, old, new, target)

    def _leaves(self, first: int, end: int, wanted: npt.NDArray[np.int64] | None = None) -> Iterator[tuple[int, Refs]]:
        """Yield (first block, entries) of the leaves that touch [first, end) and exist, in order."""
        if self.root is not None and first < end:
            yield from self._descend(self.level, [(0, self.root)], first, end, wanted)

    def _descend(
        self,
        level: int,
        nodes: list[tuple[int, Ref]],
        first: int,
        end: int,
        wanted: npt.NDArray[np.int64] | None,
    ) -> Iterator[tuple[int, Refs]]:
        for (index, _), node in zip(nodes, self.nodes.fetch(self.disk, level, nodes), strict=True):
            if level == 0:
                yield index * FANOUT, node.entries
                continue
            span = span_of(level - 1)
            below = [
                (child, ref)
                for place in np.flatnonzero(node.entries["length"])
                if (child := index * FANOUT + int(place)) * span < end and (child + 1) * span > first
                if wanted is None or _any_leaf(wanted, child, level - 1)
                if (ref := Ref.of(node.entries[place])) is not None
            ]
            if below:
                yield from self._descend(level - 1, below, first, end, wanted)


def _any_leaf(wanted: npt.NDArray[np.int64], node: int, level: int) -> bool:
    leaves = span_of(level) // FANOUT
    low, high = np.searchsorted(wanted, [node * leaves, (node + 1) * leaves])
    return bool(low < high)


def _block_refs(indexes: npt.NDArray[np.int64], refs: Refs) -> BlockRefs:
    result = np.zeros(indexes.size, BLOCK_REF)
    result["index"], result["ref"] = indexes, refs
    return result
