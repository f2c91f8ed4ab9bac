"""Bitmaps against sets of numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from farshore_engine.blocks import bitmap
from farshore_engine.blocks.content import digest_blocks, zero_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count, block_length, blocks_touched, padded_blocks, runs_of

BLOCKS = 100
extents = st.lists(st.tuples(st.integers(0, BLOCKS - 1), st.integers(0, 40)), max_size=20)


def members(bits: bitmap.Bits) -> set[int]:
    return {i for i in range(bits.size * 8) if bits[i >> 3] >> (i & 7) & 1}


def marked(runs: list[tuple[int, int]]) -> tuple[bitmap.Bits, set[int]]:
    bits = bitmap.empty(BLOCKS)
    model: set[int] = set()
    for first, count in runs:
        bitmap.mark_run(bits, first, min(count, BLOCKS - first))
        model |= set(range(first, min(first + count, BLOCKS)))
    return bits, model


@given(extents, extents)
def test_runs_union_difference(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    (a, in_a), (b, in_b) = marked(first), marked(second)
    assert members(a) == in_a
    assert members(bitmap.union(a, b)) == in_a | in_b
    assert members(bitmap.difference(a, b)) == in_a - in_b
    assert bitmap.count(a) == len(in_a)
    assert bitmap.indexes(a).tolist() == sorted(in_a)
    assert members(bitmap.from_indexes(BLOCKS, np.array(sorted(in_b), np.int64))) == in_b


@given(st.lists(st.tuples(st.integers(0, 150), st.integers(-1, 30)), max_size=20))
def test_many_extents_at_once(pairs: list[tuple[int, int]]) -> None:
    bits = bitmap.empty(BLOCKS)
    first = np.array([a for a, _ in pairs], np.int64)
    last = np.array([a + n for a, n in pairs], np.int64)
    bitmap.mark_extents(bits, first, last, BLOCKS)
    assert members(bits) == {i for a, n in pairs for i in range(a, a + n + 1) if i < BLOCKS}


@given(extents, st.integers(1, 9))
def test_runs_are_whole_and_not_too_long(runs: list[tuple[int, int]], longest: int) -> None:
    bits, model = marked(runs)
    found = list(bitmap.iter_runs(bits, longest))
    assert [i for first, count in found for i in range(first, first + count)] == sorted(model)
    assert all(count <= longest for _, count in found)
    whole = list(bitmap.iter_runs(bits, 1000))
    assert whole == runs_of(np.array(sorted(model), np.int64))


def test_a_run_across_the_scan_window_is_one_run() -> None:
    edge = bitmap.SCAN * 8
    bits = bitmap.empty(2 * edge)
    bitmap.mark_run(bits, edge - 5, 10)
    assert list(bitmap.iter_runs(bits, 1000)) == [(edge - 5, 10)]


@given(extents, extents)
def test_clear(runs: list[tuple[int, int]], gone: list[tuple[int, int]]) -> None:
    bits, model = marked(runs)
    for first, count in gone:
        bitmap.clear_run(bits, first, count)
        model -= set(range(first, first + count))
    assert members(bits) == model


@given(extents, st.integers(0, 200))
def test_resize(runs: list[tuple[int, int]], blocks: int) -> None:
    bits, model = marked(runs)
    assert members(bitmap.resized(bits, blocks)) == {i for i in model if i < blocks}


def test_take_leaves_nothing_behind() -> None:
    bits = bitmap.full(13)
    assert members(bitmap.take(bits)) == set(range(13))
    assert bitmap.count(bits) == 0


def test_the_grid() -> None:
    assert block_count(0) == 0
    assert block_count(BLOCK_SIZE + 1) == 2
    assert block_length(BLOCK_SIZE + 1, 1) == 1
    assert block_length(BLOCK_SIZE + 1, 2) == 0
    assert blocks_touched(BLOCK_SIZE - 1, 2) == (0, 2)
    assert blocks_touched(BLOCK_SIZE, BLOCK_SIZE) == (1, 1)
    assert blocks_touched(5, 0) == (0, 0)


def test_a_short_block_counts_as_padded() -> None:
    short = b"x" * (BLOCK_SIZE + 10)
    whole = short.ljust(2 * BLOCK_SIZE, b"\0")
    assert padded_blocks(short).tobytes() == whole
    assert (digest_blocks(b"k" * 32, short) == digest_blocks(b"k" * 32, whole)).all()


@given(st.lists(st.sampled_from(["zero", "data", "first", "middle", "last"]), min_size=1, max_size=12))
def test_zero_blocks(kinds: list[str]) -> None:
    blocks = {
        "zero": bytes(BLOCK_SIZE),
        "data": b"x" * BLOCK_SIZE,
        "first": b"\1".ljust(BLOCK_SIZE, b"\0"),
        "middle": (bytes(BLOCK_SIZE // 2) + b"\1").ljust(BLOCK_SIZE, b"\0"),
        "last": b"\1".rjust(BLOCK_SIZE, b"\0"),
    }
    found = zero_blocks(b"".join(blocks[k] for k in kinds))
    assert found.tolist() == [k == "zero" for k in kinds]
    digests = digest_blocks(b"k" * 32, b"".join(blocks[k] for k in kinds))
    assert (~digests.any(axis=1)).tolist() == found.tolist()
