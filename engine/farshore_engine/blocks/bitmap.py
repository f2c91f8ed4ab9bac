"""Bitmaps of blocks: which blocks of a disk changed. One bit a block, so 2 MiB for each TiB of disk.

A bitmap is a plain uint8 array, least significant bit first, long enough for the disk's blocks; bits past the last
block are always clear. All functions are pure but for those named `mark_*` and `take`, which change their argument.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks.grid import Indexes, runs_of

Bits = npt.NDArray[np.uint8]
SCAN = 1 << 16  # bytes of bitmap that are unpacked at a time, to bound memory


def empty(blocks: int) -> Bits:
    """Return a bitmap of `blocks` clear bits."""
    return np.zeros(-(-blocks // 8), np.uint8)


def full(blocks: int) -> Bits:
    """Return a bitmap of `blocks` set bits."""
    bits = empty(blocks)
    mark_run(bits, 0, blocks)
    return bits


def mark_run(bits: Bits, first: int, count: int) -> None:
    """Set `count` bits from `first` on; what lies outside the bitmap's bytes is ignored."""
    end = min(first + count, bits.size * 8)
    first = max(first, 0)
    if first >= end:
        return
    head, tail = first >> 3, (end - 1) >> 3
    head_mask = (0xFF << (first & 7)) & 0xFF
    tail_mask = 0xFF >> (7 - ((end - 1) & 7))
    if head == tail:
        bits[head] |= head_mask & tail_mask
        return
    bits[head] |= head_mask
    bits[head + 1 : tail] = 0xFF
    bits[tail] |= tail_mask


def mark_indexes(bits: Bits, indexes: npt.NDArray[np.integer]) -> None:
    """Set the bits of the given blocks, in any order and with repetitions; each must lie inside the bitmap."""
    if indexes.size:
        places = indexes.astype(np.int64, copy=False)
        np.bitwise_or.at(bits, places >> 3, np.left_shift(np.uint8(1), (places & 7).astype(np.uint8)))


def mark_extents(bits: Bits, first: npt.NDArray[np.integer], last: npt.NDArray[np.integer], blocks: int) -> None:
    """Set the bits of many extents at once, each from block `first` to block `last` inclusive.

    Extents are clipped to `blocks`. Short extents, the usual case of a tracker, cost no Python loop.
    """
    first, last = first.astype(np.int64, copy=False), np.minimum(last.astype(np.int64, copy=False), blocks - 1)
    inside = (first <= last) & (first >= 0)
    first, last = first[inside], last[inside]
    mark_indexes(bits, first)
    mark_indexes(bits, last)
    for at in np.flatnonzero(last - first > 1):
        mark_run(bits, int(first[at]), int(last[at] - first[at]) + 1)


def clear_run(bits: Bits, first: int, count: int) -> None:
    """Clear `count` bits from `first` on."""
    gone = np.zeros_like(bits)
    mark_run(gone, first, count)
    np.bitwise_and(bits, np.bitwise_not(gone), out=bits)


def take(bits: Bits) -> Bits:
    """Return a copy and clear the bitmap: the mark must be gone before the data is read."""
    copy = bits.copy()
    bits[:] = 0
    return copy


def union(first: Bits, second: Bits) -> Bits:
    """Return the bits set in either; a shorter bitmap counts as clear behind its end."""
    longer, shorter = (first, second) if first.size >= second.size else (second, first)
    result = longer.copy()
    result[: shorter.size] |= shorter
    return result


def difference(first: Bits, second: Bits) -> Bits:
    """Return the bits set in the first and not in the second."""
    result = first.copy()
    common = min(first.size, second.size)
    result[:common] &= np.bitwise_not(second[:common])
    return result


def resized(bits: Bits, blocks: int) -> Bits:
    """Return the bitmap for a disk of another number of blocks: new bits are clear, those past the end are dropped."""
    result = empty(blocks)
    common = min(bits.size, result.size)
    result[:common] = bits[:common]
    if blocks & 7 and result.size:
        result[-1] &= 0xFF >> (8 - (blocks & 7))
    return result


def count(bits: Bits) -> int:
    """Return how many bits are set."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def indexes(bits: Bits) -> Indexes:
    """Return the numbers of the set bits, ascending (8 bytes for each)."""
    parts = [
        np.flatnonzero(np.unpackbits(bits[at : at + SCAN], bitorder="little")) + at * 8
        for at in range(0, bits.size, SCAN)
        if bits[at : at + SCAN].any()
    ]
    return np.concatenate(parts).astype(np.int64, copy=False) if parts else np.zeros(0, np.int64)


def iter_runs(bits: Bits, longest: int) -> Iterator[tuple[int, int]]:
    """Yield the (first, count) runs of set bits in order, none longer than `longest` blocks, in bounded memory."""
    pending: tuple[int, int] | None = None
    for at in range(0, bits.size, SCAN):
        found = np.flatnonzero(np.unpackbits(bits[at : at + SCAN], bitorder="little")) + at * 8
        for first, number in runs_of(found):
            if pending is not None and pending[0] + pending[1] == first:
                pending = (pending[0], pending[1] + number)
            else:
                if pending is not None:
                    yield from _split(pending, longest)
                pending = (first, number)
    if pending is not None:
        yield from _split(pending, longest)


def _split(run: tuple[int, int], longest: int) -> Iterator[tuple[int, int]]:
    first, number = run
    for start in range(first, first + number, longest):
        yield start, min(longest, first + number - start)


def from_indexes(blocks: int, numbers: npt.NDArray[np.integer]) -> Bits:
    """Return a bitmap of `blocks` bits with the given ones set; numbers past the end are dropped."""
    bits = empty(blocks)
    mark_indexes(bits, numbers[numbers < blocks])
    return bits
