"""The block map against a dictionary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farshore_engine.vault.blockmap import BlockMap, root_level
from farshore_engine.vault.encoding import BLOCK_REF, REF, BlockRefs, Ref, Refs
from farshore_engine.vault.mapdiff import diff, packs_of
from farshore_engine.vault.names import PackId
from farshore_engine.vault.node import Node, NodeDamaged, empty_node, node_of
from farshore_engine.vault.nodestore import NodeStore


class Shelf:
    """Keeps nodes in a list: writer and decoder of a NodeStore in one. Each node is a pack of its own."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.read = 0

    def node(self, disk: str, level: int, index: int, content: bytes) -> Ref:
        self.contents.append(content)
        return Ref(PackId(1, len(self.contents) - 1), 40, len(content), hashlib.sha256(content).digest())

    def fetch(self, refs: Refs, place: Callable[[int], bytes], limit: int) -> Iterator[tuple[int, bytes]]:
        for position in range(refs.size):
            self.read += 1
            yield position, self.contents[int(refs["random"][position])]


def new_map(blocks: int, cached: int = 0) -> tuple[BlockMap, Shelf]:
    shelf = Shelf()
    return BlockMap("sda", blocks, None, NodeStore("a.b", shelf, cached=cached)), shelf  # type: ignore[arg-type]


def refs_of(changes: dict[int, int]) -> BlockRefs:
    refs = np.zeros(len(changes), BLOCK_REF)
    for row, (index, value) in zip(refs, sorted(changes.items()), strict=True):
        row["index"] = index
        if value:
            row["ref"]["claim"], row["ref"]["random"] = 7, value
            row["ref"]["offset"], row["ref"]["length"] = value * 16, 100
            row["ref"]["digest"] = np.frombuffer(hashlib.sha256(str(value).encode()).digest(), np.uint8)
    return refs


def flat(runs: Iterator[BlockRefs]) -> dict[int, int]:
    return {int(i): int(r) for run in runs for i, r in zip(run["index"], run["ref"]["random"], strict=True)}


def content(block_map: BlockMap, indexes: list[int]) -> dict[int, int]:
    refs = block_map.lookup_indexes(np.array(sorted(indexes), np.int64))
    return {i: int(r["random"]) for i, r in zip(sorted(indexes), refs, strict=True) if int(r["length"])}


EDGES = [0, 1, 254, 255, 256, 257, 511, 512, 65534, 65535, 65536, 65537, 16_777_215, 16_777_216, 20_000_000]
changes = st.dictionaries(st.sampled_from(EDGES) | st.integers(0, 20_000_000), st.integers(0, 5), max_size=12)
sizes = st.sampled_from([1, 200, 256, 257, 65536, 65537, 70_000, 16_777_216, 16_777_217, 20_000_001])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(changes, sizes), min_size=1, max_size=6))
def test_any_series_of_updates_equals_a_dictionary(steps: list[tuple[dict[int, int], int]]) -> None:
    block_map, shelf = new_map(0)
    model: dict[int, int] = {}
    history: list[tuple[BlockMap, dict[int, int]]] = []
    for change, size in steps:
        change = {i: v for i, v in change.items() if i < size}
        block_map = block_map.updated(refs_of(change), shelf, size)
        model = {i: v for i, v in (model | change).items() if v and i < size}
        history.append((block_map, model))
    for old, expected in history:
        asked = [i for i in {*EDGES, *expected} if i < old.blocks]
        assert content(old, asked) == expected
        assert flat(old.runs()) == expected
        for first in (0, 250, 65530):
            refs = old.lookup(first, 20)
            assert {first + i: int(r["random"]) for i, r in enumerate(refs) if int(r["length"])} == {
                i: v for i, v in expected.items() if first <= i < first + 20
            }
        if not expected:
            assert old.root is None
    for old, before in history:
        for new, after in history:
            found = flat(diff(old, new))
            wanted = {
                i: after.get(i, 0) for i in {*before, *after} if before.get(i, 0) != after.get(i, 0) and i < new.blocks
            }
            assert found == wanted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(changes, sizes), min_size=1, max_size=5))
def test_the_packs_of_a_series_of_maps_are_found_by_what_differs(steps: list[tuple[dict[int, int], int]]) -> None:
    block_map, shelf = new_map(0)
    maps = []
    for change, size in steps:
        block_map = block_map.updated(refs_of({i: v for i, v in change.items() if i < size}), shelf, size)
        maps.append(block_map)
    found: set[PackId] = set()
    seen: BlockMap | None = None
    for each in reversed(maps):
        for packs in packs_of(each, seen):
            found |= packs
        seen = each
    assert found == set().union(*(_all_packs(m) for m in maps))


def _all_packs(block_map: BlockMap) -> set[PackId]:
    """Walk every node, sharing nothing."""
    found: set[PackId] = set()

    def walk(level: int, index: int, ref: Ref | None) -> None:
        if ref is None:
            return
        found.add(ref.pack)
        if level < 0:
            return
        node = block_map.nodes.fetch(block_map.disk, level, [(index, ref)])[0]
        for place in range(256):
            walk(level - 1, index * 256 + place, Ref.of(node.entries[place]))

    walk(block_map.level, 0, block_map.root)
    return found


def test_one_block_rewrites_one_node_of_each_level() -> None:
    block_map, shelf = new_map(20_000_001, cached=10_000)
    block_map = block_map.updated(refs_of({i: i + 1 for i in range(0, 20_000_000, 50_000)}), shelf)
    written, shelf.read = len(shelf.contents), 0
    changed = block_map.updated(refs_of({10_000_000: 3}), shelf)
    assert len(shelf.contents) - written == root_level(20_000_001) + 1 == 4
    block_map.nodes._limit = 0
    block_map.nodes._keep([])
    shelf.read = 0
    assert len(list(diff(block_map, changed))) == 1
    assert shelf.read <= 2 * 2 * 4  # both paths, once to warm and once to read where nothing is cached


def test_what_does_not_change_writes_nothing() -> None:
    block_map, shelf = new_map(1000)
    block_map = block_map.updated(refs_of({5: 1, 700: 2}), shelf)
    written = len(shelf.contents)
    same = block_map.updated(refs_of({5: 1, 6: 0, 700: 2}), shelf)
    assert same.root == block_map.root
    assert len(shelf.contents) == written


def test_the_same_content_elsewhere_keeps_its_place() -> None:
    block_map, shelf = new_map(1000)
    block_map = block_map.updated(refs_of({5: 1}), shelf)
    moved = refs_of({5: 1})
    moved["ref"]["random"] = 99
    assert block_map.updated(moved, shelf).root == block_map.root


def test_digests_come_as_an_array() -> None:
    block_map, shelf = new_map(600)
    block_map = block_map.updated(refs_of({255: 1, 256: 2}), shelf)
    digests, hole = block_map.digests_of(254, 4)
    assert digests.shape == (4, 32)
    assert hole.tolist() == [True, False, False, True]
    assert digests[1].tobytes() == hashlib.sha256(b"1").digest()
    assert not digests[0].any()


@pytest.mark.parametrize(
    "refs",
    [
        pytest.param(refs_of({5: 1})[[0, 0]], id="a block twice"),
        pytest.param(refs_of({5: 1, 6: 1})[::-1], id="descending"),
        pytest.param(refs_of({1000: 1}), id="behind the disk's end"),
    ],
)
def test_a_wrong_update_is_refused(refs: BlockRefs) -> None:
    block_map, shelf = new_map(1000)
    with pytest.raises(ValueError, match="ascend"):
        block_map.updated(refs, shelf)


@given(st.dictionaries(st.integers(0, 255), st.integers(1, 2**31), max_size=256), st.integers(0, 5))
def test_a_node_survives_encoding(entries: dict[int, int], level: int) -> None:
    refs = np.zeros(256, REF)
    for place, value in entries.items():
        refs[place] = (value, value * 3, value % 2**24, value, np.full(32, value % 256))
    node = node_of(level, refs)
    again = Node.decode(node.encode(), level)
    assert again.entries.tobytes() == refs.tobytes()
    assert node.empty == (not entries)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda d: b"", id="nothing"),
        pytest.param(lambda d: d[:-1], id="cut"),
        pytest.param(lambda d: d + b"x", id="too long"),
        pytest.param(lambda d: b"XXXX" + d[4:], id="another magic"),
        pytest.param(lambda d: d[:4] + b"\x05" + d[5:], id="another level"),
        pytest.param(lambda d: d[:6] + b"\xff\x00" + d[8:], id="another count"),
        pytest.param(lambda d: d[:8] + b"\xff" + d[9:], id="another bitmap"),
    ],
)
def test_a_damaged_node_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    refs = np.zeros(256, REF)
    refs["length"][:3] = 7
    with pytest.raises(NodeDamaged):
        Node.decode(spoil(node_of(0, refs).encode()), 0)
    assert empty_node(0).empty
