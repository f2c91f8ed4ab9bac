"""Compaction: the live blocks of packs that are mostly dead are carried into the next point, so that the packs can go.

A pack lasts as long as any point reaches one record of it. Once most of it is dead, and no older point holds on to
what the newest one has not, its live records are read, verified and stored anew with the next point; when the older
points that share them have expired, prune deletes the pack. Nothing in the format is needed for it: a crash at any
moment leaves at most packs that nobody reaches, which prune deletes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field

import numpy as np

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.crypto import Place
from farshore_engine.vault.decoder import Decoder, RecordSpoiled
from farshore_engine.vault.encoder import Encoder
from farshore_engine.vault.encoding import BLOCK_REF, BlockRefs, Ref, Refs, in_packs
from farshore_engine.vault.names import PackId
from farshore_engine.vault.node import FANOUT

DEAD_SHARE = 0.5  # of a pack from which on it is worth carrying the rest
LEAST_GAIN = 64 << 10  # dead bytes below which a pack is let be
PER_POINT = 16 << 20  # bytes of blocks, before compression, that one point carries; they wait in memory
PLANNED = 64  # times that much is looked for in one walk of the maps


@dataclass(frozen=True, slots=True)
class Carried:
    """What one point is asked to carry of a disk.

    Attributes:
        disk: the disk.
        refs: the blocks, ascending, as the newest map has them; one that has changed by then is left alone.
        content: their bytes, verified, BLOCK_SIZE each.
        touched: numbers of blocks, ascending, whose map nodes are in one of the packs.
        away: the packs that are to be left.
    """

    disk: str
    refs: BlockRefs
    content: bytes
    touched: tuple[int, ...]
    away: frozenset[PackId]


@dataclass
class _Residents:
    """What the newest map of a disk has in chosen packs."""

    disk: str
    blocks: list[BlockRefs] = field(default_factory=list)
    touched: dict[PackId, list[int]] = field(default_factory=dict)


def choose(sizes: Mapping[PackId, int], live: Mapping[PackId, int], held: Set[PackId], budget: int) -> list[PackId]:
    """Return the packs whose live records are worth carrying, the deadest first, with at most `budget` live bytes.

    Args:
        sizes: bytes of every pack that is there.
        live: bytes of each pack that the newest point reaches.
        held: packs in which an older point has something that the newest one has not: carrying would free nothing.
        budget: bytes; one pack is chosen however large it is.
    """
    worth = [
        (size / sizes[pack], pack)
        for pack, size in live.items()
        if pack in sizes and pack not in held
        if size <= sizes[pack] * (1 - DEAD_SHARE) and sizes[pack] - size >= LEAST_GAIN
    ]
    chosen: list[PackId] = []
    for _, pack in sorted(worth):
        if chosen and budget < live[pack]:
            break
        budget -= live[pack]
        chosen.append(pack)
    return chosen


class CompactionPlan:
    """The packs that are being emptied and where their live records are; handed out point by point."""

    def __init__(self, packs: Iterable[PackId], maps: Iterable[BlockMap]) -> None:
        """Walk the newest maps for what is in `packs`; raises MapSpoiled."""
        self._packs = list(packs)
        wanted = frozenset(self._packs)
        self._residents = [found for one in maps if (found := _residents(one, wanted)) is not None]

    def __len__(self) -> int:
        """Return how many packs are left."""
        return len(self._packs)

    def next(self, machine: str, decoder: Decoder, budget: int = PER_POINT) -> list[Carried]:
        """Take packs (one at least) off the plan with at most `budget` bytes of blocks, and read what is to be carried.

        A block that cannot be read stays where it is, and so does its pack.
        """
        taken: set[PackId] = set()
        room = budget // BLOCK_SIZE
        while self._packs and (not taken or room > 0):
            pack = self._packs[0]
            room -= sum(int(in_packs(refs["ref"], {pack}).sum()) for r in self._residents for refs in r.blocks)
            if taken and room < 0:
                break
            taken.add(self._packs.pop(0))
        carried = [self._read(found, frozenset(taken), machine, decoder) for found in self._residents]
        return [one for one in carried if one.refs.size or one.touched]

    @staticmethod
    def _read(found: _Residents, packs: frozenset[PackId], machine: str, decoder: Decoder) -> Carried:
        parts = [refs[in_packs(refs["ref"], packs)] for refs in found.blocks]
        refs = np.concatenate(parts) if parts else np.zeros(0, BLOCK_REF)
        touched = sorted({number for pack in packs for number in found.touched.get(pack, ())})
        place, numbers = Place(machine, found.disk), refs["index"].tolist()
        content: dict[int, bytes] = {}
        for one in packs:
            mine = np.flatnonzero(in_packs(refs["ref"], {one}))
            wanted = np.ascontiguousarray(refs["ref"][mine])
            try:
                for at, plain in decoder.fetch(wanted, _placed(place, [numbers[m] for m in mine]), BLOCK_SIZE):
                    content[int(mine[at])] = plain
            except RecordSpoiled:
                continue
        good = sorted(content)
        return Carried(found.disk, refs[good], b"".join(bytes(content[at]) for at in good), tuple(touched), packs)


def carry(base: BlockMap, carried: Carried, encoder: Encoder) -> BlockMap:
    """Return the map with what is carried stored anew, where it is still what was planned; raises MapSpoiled."""
    numbers = carried.refs["index"].astype(np.int64)
    same = np.flatnonzero(base.lookup_indexes(numbers) == carried.refs["ref"])
    content = memoryview(carried.content)
    parts = [content[at * BLOCK_SIZE : (at + 1) * BLOCK_SIZE] for at in same.tolist()]
    fresh = encoder.blocks(carried.disk, numbers[same], b"".join(parts)) if parts else np.zeros(0, BLOCK_REF)
    touched = np.setdiff1d(np.array(carried.touched, np.int64), numbers[same])
    stay = np.zeros(touched.size, BLOCK_REF)
    stay["index"], stay["ref"] = touched, base.lookup_indexes(touched)
    stay = stay[stay["ref"]["length"] != 0]
    refs = np.concatenate([fresh, stay])
    return base.updated(refs[np.argsort(refs["index"])], encoder, away=carried.away)


def _placed(place: Place, numbers: list[int]) -> Callable[[int], bytes]:
    return lambda at: place.block(numbers[at])


def _residents(block_map: BlockMap, packs: frozenset[PackId]) -> _Residents | None:
    found = _Residents(block_map.disk)
    if block_map.root is not None:
        _descend(block_map, block_map.level, 0, block_map.root.record(), packs, found)
    return found if found.blocks or found.touched else None


def _descend(
    block_map: BlockMap, level: int, index: int, own: Refs, packs: frozenset[PackId], found: _Residents
) -> int:
    """Collect what a subtree has in the packs; return the number of its first block that is no hole."""
    ref = Ref.of(own)
    assert ref is not None
    entries = block_map.nodes.fetch(block_map.disk, level, [(index, ref)])[0].entries
    places = np.flatnonzero(entries["length"])
    first = index * FANOUT + int(places[0]) if places.size else -1
    if level == 0:
        mine = np.flatnonzero(in_packs(entries, packs))
        if mine.size:
            refs = np.zeros(mine.size, BLOCK_REF)
            refs["index"], refs["ref"] = index * FANOUT + mine, entries[mine]
            found.blocks.append(refs)
    else:
        children = [(index * FANOUT + int(place), ref) for place in places if (ref := Ref.of(entries[place]))]
        block_map.nodes.fetch(block_map.disk, level - 1, children)
        first = -1
        for place in places:
            below = _descend(block_map, level - 1, index * FANOUT + int(place), entries[place], packs, found)
            first = below if first < 0 else first
    if ref.pack in packs and first >= 0:
        found.touched.setdefault(ref.pack, []).append(first)
    return first
