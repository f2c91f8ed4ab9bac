"""From plain blocks and map nodes to encrypted records in packs, in batches that leave Python's lock free.

One call handles up to 16 blocks at a time inside C (compression) and then encrypts into the pack's memory; several
threads do so at once.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import zstandard

from farshore_engine.blocks.content import digest_block, zero_blocks
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
        keep = []
        for at in np.flatnonzero(~zero_blocks(flat)):
            digest = digest_block(self._digest_key, flat[at * BLOCK_SIZE : (at + 1) * BLOCK_SIZE])
            if base is not None and base[at]["length"] and base[at]["digest"].tobytes() == digest:
                refs[at]["ref"] = base[at]
                continue
            refs[at]["ref"]["digest"] = np.frombuffer(digest, np.uint8)
            keep.append(int(at))
        if not keep:
            return
        segments = np.zeros(len(keep), SEGMENT)
        segments["offset"], segments["length"] = np.array(keep) * BLOCK_SIZE, BLOCK_SIZE
        frames = self._compressor().multi_compress_to_buffer(
            zstandard.BufferWithSegments(flat, segments.tobytes()), threads=0
        )
        plain = [
            frame.tobytes() if len(frame := frames[i]) < BLOCK_SIZE else flat[at * BLOCK_SIZE : (at + 1) * BLOCK_SIZE]
            for i, at in enumerate(keep)
        ]
        pack, offset = self._packer.reserve(sum(len(p) + TAG_SIZE for p in plain))
        try:
            for row, content in zip(keep, plain, strict=True):
                length = self._encrypt(pack, offset, content, place.block(int(refs[row]["index"])))
                _point_to(refs[row]["ref"], pack, offset, length)
                offset += length
        finally:
            self._packer.written(pack)

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


def _point_to(ref: Refs, pack: OpenPack, offset: int, length: int) -> None:
    ref["claim"], ref["random"] = pack.id.claim, pack.id.random
    ref["offset"], ref["length"] = offset, length
