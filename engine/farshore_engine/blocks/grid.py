"""The grid: how bytes of a disk map to blocks. Agent, process server and vault must agree on it to the bit.

Block i covers bytes [i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE). The last block of a disk may be short; wherever a block
is hashed or stored it is first padded with zeros to BLOCK_SIZE, so that growth of a disk needs no special case.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK_SHIFT = 16
BLOCK_SIZE = 1 << BLOCK_SHIFT  # bytes

Indexes = npt.NDArray[np.int64]


def block_count(size: int) -> int:
    """Return how many blocks a disk of `size` bytes has."""
    return -(-size // BLOCK_SIZE)


def block_length(size: int, index: int) -> int:
    """Return how many bytes of block `index` lie on a disk of `size` bytes."""
    return max(0, min(BLOCK_SIZE, size - index * BLOCK_SIZE))


def blocks_touched(offset: int, length: int) -> tuple[int, int]:
    """Return (first block, count) of the blocks that the bytes [offset, offset + length) touch."""
    if length <= 0:
        return offset >> BLOCK_SHIFT, 0
    first = offset >> BLOCK_SHIFT
    return first, ((offset + length - 1) >> BLOCK_SHIFT) - first + 1


def padded_blocks(buffer: bytes | bytearray | memoryview) -> npt.NDArray[np.uint8]:
    """Return the buffer as an array of shape (n, BLOCK_SIZE), its last block padded with zeros.

    The array shares memory with the buffer unless padding is needed.
    """
    flat = np.frombuffer(buffer, np.uint8)
    short = -flat.size % BLOCK_SIZE
    if short:
        flat = np.concatenate([flat, np.zeros(short, np.uint8)])
    return flat.reshape(-1, BLOCK_SIZE)


def runs_of(indexes: Indexes) -> list[tuple[int, int]]:
    """Return the (first, count) runs of consecutive numbers in sorted distinct `indexes`."""
    if indexes.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(indexes) != 1) + 1
    starts = np.concatenate([[0], breaks])
    ends = np.concatenate([breaks, [indexes.size]])
    return [(int(indexes[a]), int(b - a)) for a, b in zip(starts, ends, strict=True)]
