"""From records in packs back to plain blocks and nodes: nothing leaves before its tag and its digest were verified.

Reads are coalesced: records of one pack that lie near each other come in one request.
"""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from farshore_engine.blocks.content import digest_block
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.vault.crypto import SALT_SIZE, TAG_SIZE, MachineKeys, Purpose, nonce_at
from farshore_engine.vault.encoding import Refs
from farshore_engine.vault.names import MachineNames, PackId
from farshore_engine.vault.pack import PACK_HEADER, PACK_MAGIC, PACK_MAX
from farshore_engine.vault.store import ObjectNotFound, ObjectStore

GAP = 256 << 10  # bytes that are read in vain rather than asking again
SPAN = 8 << 20  # bytes of one request, at most
RECORDS = 4096  # of one request, at most
KEYS = 4096  # ciphers of packs that are kept
RAW_RECORD = BLOCK_SIZE + TAG_SIZE
Buffer = Any  # bytes, or a segment of zstandard's with the buffer protocol


class RecordSpoiled(Exception):
    """The record at `offset` of `pack` does not verify, or none does (`lost`); the text says why."""

    def __init__(self, pack: PackId, why: str, *, offset: int | None = None) -> None:
        super().__init__(f"pack {pack} {why}")
        self.pack = pack
        self.offset = offset

    @property
    def lost(self) -> bool:
        """Whether the whole pack is gone."""
        return self.offset is None


class _Different(Exception):
    """Some record of a span is not what its reference says."""


@dataclass(frozen=True, slots=True)
class Span:
    """One request: `length` bytes from `offset` of a pack, for the records at `positions` of the references."""

    pack: PackId
    offset: int
    length: int
    positions: tuple[int, ...]


def plan_spans(refs: Refs, *, gap: int = GAP, span: int = SPAN, records: int = RECORDS) -> list[Span]:
    """Return the requests that fetch all references that are not holes, grouped by pack and coalesced.

    A request reads past at most `gap` bytes that nobody wants, and holds at most `span` bytes and `records` records.
    """
    wanted = np.flatnonzero(refs["length"])
    order = wanted[np.lexsort((refs["offset"][wanted], refs["random"][wanted], refs["claim"][wanted]))]
    sorted_refs = refs[order]
    claims, randoms = sorted_refs["claim"].tolist(), sorted_refs["random"].tolist()
    starts, lengths = sorted_refs["offset"].tolist(), sorted_refs["length"].tolist()
    spans: list[Span] = []
    begin = 0
    for at in range(1, len(starts) + 1):
        end = starts[at - 1] + lengths[at - 1]
        if (
            at < len(starts)
            and (claims[at], randoms[at]) == (claims[begin], randoms[begin])
            and starts[at] - end <= gap
            and starts[at] + lengths[at] - starts[begin] <= span
            and at - begin < records
        ):
            continue
        pack = PackId(claims[begin], randoms[begin])
        spans.append(Span(pack, starts[begin], end - starts[begin], tuple(order[begin:at].tolist())))
        begin = at
    return spans


class Decoder:
    """Reads and verifies records of one machine's packs. Thread-safe.

    `threads` requests are made at once by `fetch`; 0 makes them one after another in the caller's thread.
    """

    def __init__(self, store: ObjectStore, names: MachineNames, keys: MachineKeys, *, threads: int = 0) -> None:
        """Read from `store` with the machine's keys."""
        self._store = store
        self._names = names
        self._keys = keys
        self._digest_key = keys.digest_key
        self._ciphers: OrderedDict[PackId, AESGCM] = OrderedDict()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(threads, "vault-read") if threads else None

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def fetch(self, refs: Refs, place: Callable[[int], bytes], limit: int) -> Iterator[tuple[int, bytes]]:
        """Yield (position, plain content) of every reference that is not a hole, in no particular order.

        `place(position)` is the associated data; no content is larger than `limit` bytes.

        Raises:
            RecordSpoiled: for the first record that does not verify.
        """
        spans = plan_spans(refs)
        loaded = self._pool.map(self.load, spans) if self._pool and len(spans) > 1 else map(self.load, spans)
        for span, (cipher, data) in zip(spans, loaded, strict=True):
            for position in span.positions:
                yield position, self.open(span, cipher, data, refs[position], place(position), limit)

    def load(self, span: Span) -> tuple[AESGCM, memoryview]:
        """Fetch a span's bytes and the cipher of its pack."""
        if span.offset + span.length > PACK_MAX:
            raise RecordSpoiled(span.pack, "cannot be as large as its map says")
        cipher = self._cached(span.pack)
        head = span.offset if cipher is None and span.offset <= GAP else 0  # the header comes along if it is near
        try:
            data = self._store.get_range(self._names.pack(span.pack), span.offset - head, span.length + head)
            if cipher is None:
                header = (
                    data[:PACK_HEADER] if head else self._store.get_range(self._names.pack(span.pack), 0, PACK_HEADER)
                )
                cipher = self._open_pack(span.pack, header)
        except ObjectNotFound as error:
            raise RecordSpoiled(span.pack, "is missing") from error
        return cipher, memoryview(data)[head:]

    def open(self, span: Span, cipher: AESGCM, data: memoryview, ref: Refs, place: bytes, limit: int) -> bytes:
        """Decrypt, decompress and verify one record of a loaded span; raises RecordSpoiled."""
        offset, length = int(ref["offset"]), int(ref["length"])
        record = data[offset - span.offset : offset - span.offset + length]
        if len(record) != length or length <= TAG_SIZE or offset + length > PACK_MAX:
            raise RecordSpoiled(span.pack, f"is cut short at offset {offset}", offset=offset)
        try:
            plain = cipher.decrypt(nonce_at(offset), record, place)
            if length != RAW_RECORD or limit != BLOCK_SIZE:
                plain = self._expand(plain, limit)
        except InvalidTag as error:
            why = f"holds a record at offset {offset} that does not verify"
            raise RecordSpoiled(span.pack, why, offset=offset) from error
        except zstandard.ZstdError as error:
            why = f"holds a record at offset {offset} that does not decompress"
            raise RecordSpoiled(span.pack, why, offset=offset) from error
        if not hmac.compare_digest(digest_block(self._digest_key, plain), ref["digest"].tobytes()):
            why = f"holds a valid but wrong record at offset {offset}: its digest is not the map's"
            raise RecordSpoiled(span.pack, why, offset=offset)
        return plain

    def open_blocks(
        self, span: Span, cipher: AESGCM, data: memoryview, refs: Refs, place: Callable[[int], bytes]
    ) -> Sequence[Buffer]:
        """Return the blocks of a loaded span, in the order of its positions, each of BLOCK_SIZE bytes and verified.

        The same as `open` for each, at half the cost: frames are decompressed in one call, outside the interpreter's
        lock. What does not verify there is opened one by one, to tell which record it is. `place` as for `fetch`.

        Raises:
            RecordSpoiled: for the first record that does not verify.
        """
        mine = refs[list(span.positions)]
        try:
            plain = self._decrypted(span, cipher, data, mine, place)
            return self._inflated(plain, mine)
        except (InvalidTag, zstandard.ZstdError, _Different):
            return [self.open(span, cipher, data, refs[at], place(at), BLOCK_SIZE) for at in span.positions]

    def _decrypted(
        self, span: Span, cipher: AESGCM, data: memoryview, mine: Refs, place: Callable[[int], bytes]
    ) -> list[bytes]:
        found = []
        where = zip(span.positions, mine["offset"].tolist(), mine["length"].tolist(), strict=True)
        for position, offset, length in where:
            record = data[offset - span.offset : offset - span.offset + length]
            if len(record) != length or length <= TAG_SIZE or offset + length > PACK_MAX:
                raise _Different
            found.append(cipher.decrypt(nonce_at(offset), record, place(position)))
        return found

    def _inflated(self, records: list[bytes], mine: Refs) -> Sequence[Buffer]:
        raw = mine["length"] == RAW_RECORD
        frames: list[bytes | bytearray | memoryview] = [
            record for record, whole in zip(records, raw, strict=True) if not whole
        ]
        if any(zstandard.frame_content_size(frame) != BLOCK_SIZE for frame in frames):
            raise _Different
        blocks: list[Buffer] = list(records)
        if frames:
            sizes = np.full(len(frames), BLOCK_SIZE, np.uint64).tobytes()
            inflated = self._decompressor().multi_decompress_to_buffer(frames, decompressed_sizes=sizes)
            for number, at in enumerate(np.flatnonzero(~raw)):
                blocks[at] = inflated[number]
        for block, digest in zip(blocks, mine["digest"], strict=True):
            if digest_block(self._digest_key, block) != digest.tobytes():
                raise _Different
        return blocks

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        if not hasattr(self._local, "decompressor"):
            self._local.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 24)
        found: zstandard.ZstdDecompressor = self._local.decompressor
        return found

    def _expand(self, frame: bytes, limit: int) -> bytes:
        size = zstandard.frame_content_size(frame)
        if not 0 < size <= limit:
            raise zstandard.ZstdError(f"a frame of {size} bytes")
        return self._decompressor().decompress(frame, max_output_size=limit)

    def _cached(self, pack: PackId) -> AESGCM | None:
        with self._lock:
            cipher = self._ciphers.get(pack)
            if cipher is not None:
                self._ciphers.move_to_end(pack)
            return cipher

    def _open_pack(self, pack: PackId, header: bytes) -> AESGCM:
        if len(header) != PACK_HEADER or header[: len(PACK_MAGIC)] != PACK_MAGIC:
            raise RecordSpoiled(pack, "is not a pack")
        cipher = self._keys.cipher(Purpose.PACK, header[len(PACK_MAGIC) : len(PACK_MAGIC) + SALT_SIZE])
        with self._lock:
            self._ciphers[pack] = cipher
            if len(self._ciphers) > KEYS:
                self._ciphers.popitem(last=False)
        return cipher
