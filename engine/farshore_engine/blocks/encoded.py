"""Blocks as they travel and as packs hold them: compressed once, where they are read, and told apart by their digests.

The payload of a Data frame of n blocks::

    lengths   u32 each, little-endian: of each block's content, 1 to BLOCK_SIZE
    digests   32 bytes each
    contents  one after another: a zstd frame of the block, or the block itself where that is not longer

Blocks that hold zeros only never travel this way.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from farshore_engine.blocks.content import DIGEST_SIZE, Digests, digest_block, zero_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, padded_blocks

LEVEL = 1
SEGMENT = np.dtype([("offset", "<u8"), ("length", "<u8")])
LENGTH = np.dtype("<u4")
OVERHEAD = LENGTH.itemsize + DIGEST_SIZE  # bytes of a payload for each block, beside its content
MAX_WINDOW = 1 << 24
Content = Any  # bytes, a view of them, or a segment of zstandard's: with the buffer protocol

_local = threading.local()


@dataclass(frozen=True, slots=True)
class EncodedBlocks:
    """Digests, shape (n, 32), and contents of n blocks; the memory behind the contents must not change."""

    digests: Digests
    contents: Sequence[Content]

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.contents)

    def __getitem__(self, part: slice) -> EncodedBlocks:
        """Return some of the blocks."""
        return EncodedBlocks(self.digests[part], self.contents[part])

    def select(self, positions: npt.NDArray[np.int64]) -> EncodedBlocks:
        """Return the blocks at these positions."""
        return EncodedBlocks(self.digests[positions], [self.contents[at] for at in positions.tolist()])

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(map(len, self.contents)) + OVERHEAD * len(self)


def encode(key: bytes, buffer: bytes | bytearray | memoryview) -> tuple[npt.NDArray[np.bool_], EncodedBlocks]:
    """Digest and compress the blocks of a buffer, of which only the last may be short.

    Returns:
        which blocks hold zeros only, shape (n,), and the others, encoded. Contents may be views of the buffer.
    """
    flat = memoryview(padded_blocks(buffer).reshape(-1))  # type: ignore[arg-type]
    zero = zero_blocks(flat)
    starts = np.flatnonzero(~zero) * BLOCK_SIZE
    digests = b"".join(digest_block(key, flat[at : at + BLOCK_SIZE]) for at in starts.tolist())
    return zero, EncodedBlocks(np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_SIZE), _compressed(flat, starts))


def payload_of(parts: Sequence[EncodedBlocks]) -> bytes:
    """Return the payload of a frame that holds these blocks one after another."""
    contents = [content for part in parts for content in part.contents]
    lengths = np.fromiter(map(len, contents), LENGTH, len(contents))
    return b"".join((lengths.tobytes(), *(part.digests.tobytes() for part in parts), *contents))


def parse_payload(payload: memoryview, count: int) -> EncodedBlocks:
    """Return the `count` blocks of a payload, as views of it; raises ValueError when they cannot be that."""
    table = count * OVERHEAD
    if len(payload) < table:
        raise ValueError(f"a payload of {len(payload)} bytes for {count} blocks")
    lengths = np.frombuffer(payload[: count * LENGTH.itemsize], LENGTH)
    digests = np.frombuffer(payload[count * LENGTH.itemsize : table], np.uint8).reshape(-1, DIGEST_SIZE)
    ends = table + np.cumsum(lengths, dtype=np.int64)
    if count and (lengths.min() == 0 or lengths.max() > BLOCK_SIZE or ends[-1] != len(payload)):
        raise ValueError(f"the lengths of {count} blocks do not fit a payload of {len(payload)} bytes")
    if not digests.any(axis=1).all():
        raise ValueError("a block of zeros is sent as data")
    places = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    return EncodedBlocks(digests, [payload[start:end] for start, end in places])


def decode(key: bytes, encoded: EncodedBlocks, position: int) -> bytes:
    """Return one block in plain, BLOCK_SIZE bytes; raises ValueError when it is not what its digest says."""
    content = encoded.contents[position]
    try:
        plain = bytes(content) if len(content) == BLOCK_SIZE else _expanded(content)
    except zstandard.ZstdError as error:
        raise ValueError(f"a block does not decompress: {error}") from error
    if digest_block(key, plain) != encoded.digests[position].tobytes():
        raise ValueError("a block is not what its digest says")
    return plain


def _expanded(content: Content) -> bytes:
    if zstandard.frame_content_size(content) != BLOCK_SIZE:
        raise ValueError("a block has another size than a block")
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    plain: bytes = _local.decompressor.decompress(content, max_output_size=BLOCK_SIZE)
    return plain


def _compressed(flat: memoryview, starts: npt.NDArray[np.int64]) -> list[Content]:
    if starts.size == 0:
        return []
    segments = np.zeros(starts.size, SEGMENT)
    segments["offset"], segments["length"] = starts, BLOCK_SIZE
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    buffer = zstandard.BufferWithSegments(flat, segments.tobytes())
    frames = _local.compressor.multi_compress_to_buffer(buffer, threads=0)  # in C for all of them, without the GIL
    return [
        frame if len(frame := frames[number]) < BLOCK_SIZE else flat[at : at + BLOCK_SIZE]
        for number, at in enumerate(starts.tolist())
    ]
