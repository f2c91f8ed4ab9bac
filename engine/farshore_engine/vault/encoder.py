"""From blocks and map nodes to encrypted records in packs. Several threads encrypt into a pack's memory at once."""

from __future__ import annotations

import threading

import numpy as np
import zstandard

from farshore_engine.blocks.content import digest_block
from farshore_engine.blocks.encoded import LEVEL, Content, EncodedBlocks, encode
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes
from farshore_engine.vault.crypto import TAG_SIZE, MachineKeys, Place, nonce_at
from farshore_engine.vault.encoding import BlockRefs, Ref, Refs, holes
from farshore_engine.vault.pack import OpenPack, Packer

BATCH = 16  # blocks, 1 MiB: long enough to be in C, short enough for the cache
RESERVED = 64  # blocks that are placed in a pack at a time: 4 MiB at most


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
        """Compress and encode the blocks `indexes`, whose bytes lie one after another in `buffer`, as `encoded` does.

        Zeros become holes. Only the buffer's last block may be short.
        """
        count = -(-len(buffer) // BLOCK_SIZE)
        if count != indexes.size:
            raise ValueError(f"{indexes.size} blocks announced, {count} given")
        refs = holes(indexes)
        view = memoryview(buffer)
        for at in range(0, count, BATCH):
            part = slice(at, at + BATCH)
            zero, encoded = encode(self._digest_key, view[at * BLOCK_SIZE : (at + BATCH) * BLOCK_SIZE])
            refs[part][~zero] = self.encoded(
                disk, indexes[part][~zero], encoded, None if base is None else base[part][~zero]
            )
        return refs

    def encoded(self, disk: str, indexes: Indexes, blocks: EncodedBlocks, base: Refs | None = None) -> BlockRefs:
        """Encrypt the blocks `indexes` into packs and return their references.

        A block whose digest equals that of its reference in `base` (same length as `indexes`) is not stored again: its
        reference is the one in `base`.
        """
        if len(blocks) != indexes.size:
            raise ValueError(f"{indexes.size} blocks announced, {len(blocks)} given")
        refs = holes(indexes)
        if base is not None and base["length"].any():
            same = (base["length"] != 0) & (base["digest"] == blocks.digests).all(axis=1)
            if same.any():
                refs["ref"][same] = base[same]
                keep = np.flatnonzero(~same)
                refs[keep] = self.encoded(disk, indexes[keep], blocks.select(keep))
                return refs
        place = Place(self._machine, disk)
        for at in range(0, indexes.size, RESERVED):
            part = slice(at, at + RESERVED)
            self._stored(place, refs[part], blocks[part])
        return refs

    def _stored(self, place: Place, refs: BlockRefs, blocks: EncodedBlocks) -> None:
        lengths = np.fromiter(map(len, blocks.contents), np.int64, len(blocks)) + TAG_SIZE
        pack, offset = self._packer.reserve(int(lengths.sum()))
        offsets = offset + np.cumsum(lengths) - lengths
        try:
            for at, index, content in zip(offsets.tolist(), refs["index"].tolist(), blocks.contents, strict=True):
                self._encrypt(pack, at, content, place.block(index))
        finally:
            self._packer.written(pack)
        ref = refs["ref"]
        ref["digest"] = blocks.digests
        ref["claim"], ref["random"] = pack.id.claim, pack.id.random
        ref["offset"], ref["length"] = offsets, lengths

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
    def _encrypt(pack: OpenPack, offset: int, content: Content, place: bytes) -> int:
        end = offset + len(content) + TAG_SIZE
        return pack.cipher.encrypt_into(nonce_at(offset), content, place, pack.buffer[offset:end])

    def _compressor(self) -> zstandard.ZstdCompressor:
        if not hasattr(self._local, "compressor"):
            self._local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        compressor: zstandard.ZstdCompressor = self._local.compressor
        return compressor
