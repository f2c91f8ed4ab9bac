"""What blocks hold: which are zeros, and their keyed digests. Agent and vault compute both, and must agree.

A digest is 32 bytes of BLAKE3, keyed with the machine's digest key, over the block padded to BLOCK_SIZE. A block of
zeros is a hole: its digest stands as 32 zero bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from farshore_engine.blocks.grid import BLOCK_SIZE, padded_blocks

DIGEST_SIZE = 32
Digests = npt.NDArray[np.uint8]


def zero_blocks(buffer: bytes | bytearray | memoryview) -> npt.NDArray[np.bool_]:
    """Return for each block of the buffer whether it holds zeros only."""
    words = padded_blocks(buffer).view(np.uint64)
    zero = words[:, 0] == 0  # most blocks that hold data are told apart by their first word
    zero &= words[:, -1] == 0
    candidates = np.flatnonzero(zero)
    if candidates.size == words.shape[0]:
        return np.asarray(np.bitwise_or.reduce(words, axis=1) == 0)
    for at in candidates:
        zero[at] = not words[at].any()
    return np.asarray(zero)


def digest_block(key: bytes, block: memoryview | bytes) -> bytes:
    """Return the digest of one block of BLOCK_SIZE bytes, whatever it holds."""
    digest: bytes = blake3(block, key=key).digest()
    return digest


def digest_blocks(key: bytes, buffer: bytes | bytearray | memoryview) -> Digests:
    """Return the digests of the buffer's blocks, shape (n, 32); zeros where a block holds zeros only."""
    blocks = padded_blocks(buffer)
    digests = np.zeros((blocks.shape[0], DIGEST_SIZE), np.uint8)
    flat = memoryview(blocks.reshape(-1))  # type: ignore[arg-type]
    for at in np.flatnonzero(~zero_blocks(buffer)):
        start = int(at) * BLOCK_SIZE
        digests[at] = np.frombuffer(digest_block(key, flat[start : start + BLOCK_SIZE]), np.uint8)
    return digests
