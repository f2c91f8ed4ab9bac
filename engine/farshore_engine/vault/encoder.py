"""From plain blocks and map nodes to encrypted records in packs, in batches that leave Python's lock free.

One call handles up to 16 blocks at a time inside C (compression) and then encrypts into the pack's memory; several
threads do so at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import zstandard

from farshore_engine.blocks.content import DIGEST_SIZE, Digests, digest_block, zero_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, padded_blocks
from farshore_engine.vault.crypto import TAG_SIZE, MachineKeys, Place, nonce_at
from farshore_engine.vault.encoding import BLOCK_REF, BlockRefs, Ref, Refs
from farshore_engine.vault.pack import OpenPack, Packer

BATCH = 16  # blocks, 1 MiB: long enough to be in C, short enough for the cache
LEVEL = 1
SEGMENT = np.dtype([("offset", "<u8"), ("length", "<u8")])


class Encoder:
    """Encodes the blocks and nodes of one machine into the packs of a `Packer`. Thread-safe."""

    def __init__(self, keys: MachineKeys, packer: Packer) -> None:
        """Use the machine's keys, and the packs that `packer` opens."""
        self._machine = keys.machine
        self._digest_key = keys.digest_key
        self._packer = packer
        self._local = threading.local()

    def blocks(
        self, disk: str, indexes: Indexes, buffer: bytes | bytearray | memoryview, base: Refs | None = None
    ) -> BlockRefs:
        """Encode the blocks `indexes`, whose bytes lie one after another in `buffer`, and return their references.

        Zeros become holes. A block whose digest equals that of its reference in `base` (same length as `indexes`)
        is not stored again: its reference is the one in `base`. Only the buffer's last block may be short.
        """
        blocks = padded_blocks(buffer)
        if blocks.shape[0] != indexes.size:
            raise ValueError(f"{indexes.size} blocks announced, {blocks.shape[0]} given")
        refs = np.zeros(indexes.size, BLOCK_REF)
        refs["index"] = indexes
        place = Place(self._machine, disk)
        for at in range(0, indexes.size, BATCH):
            part = slice(at, at + BATCH)
            self._batch(place, refs[part], blocks[part], None if base is None else base[part])
        return refs

    def _batch(self, place: Place, refs: BlockRefs, blocks: npt.NDArray[np.uint8], base: Refs | None) -> None:
        flat = memoryview(blocks.reshape(-1))  # type: ignore[arg-type]
        keep = np.flatnonzero(~zero_blocks(flat))
        if keep.size == 0:
            return
        ref = refs["ref"]
        digests = _rows(
            digest_block(self._digest_key, flat[at : at + BLOCK_SIZE]) for at in (keep * BLOCK_SIZE).tolist()
        )
        if base is not None:
            same = (base["length"][keep] != 0) & (base["digest"][keep] == digests).all(axis=1)
            ref[keep[same]] = base[keep[same]]
            keep, digests = keep[~same], digests[~same]
            if keep.size == 0:
                return
        ref["digest"][keep] = digests
        plain = self._compressed(flat, keep)
        lengths = np.array([len(content) + TAG_SIZE for content in plain])
        pack, offset = self._packer.reserve(int(lengths.sum()))
        try:
            offsets = offset + np.cumsum(lengths) - lengths
            places = refs["index"][keep].tolist()
            for at, index, content in zip(offsets.tolist(), places, plain, strict=True):
                self._encrypt(pack, at, content, place.block(index))
        finally:
            self._packer.written(pack)
        ref["claim"][keep], ref["random"][keep] = pack.id.claim, pack.id.random
        ref["offset"][keep], ref["length"][keep] = offsets, lengths

    def _compressed(self, flat: memoryview, keep: npt.NDArray[np.int64]) -> list[bytes | memoryview]:
        """Return what to encrypt for each block: its frame, or the block itself where that is not longer."""
        segments = np.zeros(keep.size, SEGMENT)
        segments["offset"], segments["length"] = keep * BLOCK_SIZE, BLOCK_SIZE
        buffer = zstandard.BufferWithSegments(flat, segments.tobytes())
        frames = self._compressor().multi_compress_to_buffer(buffer, threads=0)
        return [
            frame.tobytes() if len(frame := frames[i]) < BLOCK_SIZE else flat[at : at + BLOCK_SIZE]
            for i, at in enumerate((keep * BLOCK_SIZE).tolist())
        ]

    def node(self, disk: str, level: int, index: int, content: bytes) -> Ref:
        """Encode one serialised node of the disk's map and return its reference."""
        frame = self._compressor().compress(content)
        pack, offset = self._packer.reserve(len(frame) + TAG_SIZE)
        try:
            length = self._encrypt(pack, offset, frame, Place(self._machine, disk).node(level, index))
        finally:
            self._packer.written(pack)
        return Ref(pack.id, offset, length, digest_block(self._digest_key, content))

    @staticmethod
    def _encrypt(pack: OpenPack, offset: int, content: bytes | memoryview, place: bytes) -> int:
        end = offset + len(content) + TAG_SIZE
        return pack.cipher.encrypt_into(nonce_at(offset), content, place, pack.buffer[offset:end])

    def _compressor(self) -> zstandard.ZstdCompressor:
        if not hasattr(self._local, "compressor"):
            self._local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        compressor: zstandard.ZstdCompressor = self._local.compressor
        return compressor


def _rows(digests: Iterable[bytes]) -> Digests:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_SIZE)
