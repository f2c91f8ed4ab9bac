"""The sealed record: a readable JSON header, authenticated, and an encrypted body. Slots and journal records are these.

magic   8 bytes  "FSRECv01"
length  u32      of the header, big-endian
header  JSON     sorted keys; the fields that the reader must know before it has a key, and `salt`
body    zstd, then AES-256-GCM under a key of its own (salt), nonce zero; the header's bytes, magic and length
        included, are the associated data
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import zstandard
from cryptography.exceptions import InvalidTag

from farshore_engine.vault.crypto import SALT_SIZE, TAG_SIZE, ZERO_NONCE, MachineKeys, Purpose, new_salt
from farshore_engine.vault.jsontext import parse_object

MAGIC = b"FSRECv01"
LENGTH = struct.Struct(">I")
MAX_HEADER = 64 << 10
MAX_BODY = 16 << 20  # bytes after decompression
MAX_RECORD = MAX_BODY + MAX_HEADER + 1024


class RecordDamaged(Exception):
    """The record does not verify; the text says why."""


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A parsed record whose header is not yet authenticated: `open_body` does that."""

    header: dict[str, Any]
    prefix: bytes  # everything before the ciphertext
    ciphertext: bytes


def seal(keys: MachineKeys, purpose: Purpose, header: dict[str, Any], body: bytes, salt: bytes | None = None) -> bytes:
    """Return the record's bytes. `salt` is given by test vectors only: it must never repeat."""
    if len(body) > MAX_BODY:
        raise ValueError(f"record body of {len(body)} bytes is over {MAX_BODY}")
    salt = salt or new_salt()
    text = json.dumps({**header, "salt": salt.hex()}, sort_keys=True, separators=(",", ":")).encode()
    prefix = MAGIC + LENGTH.pack(len(text)) + text
    packed = zstandard.ZstdCompressor(level=3).compress(body)
    return prefix + keys.cipher(purpose, salt).encrypt(ZERO_NONCE, packed, prefix)


def parse(data: bytes) -> SealedRecord:
    """Take a record apart without a key; raises RecordDamaged."""
    start = len(MAGIC) + LENGTH.size
    if len(data) > MAX_RECORD:
        raise RecordDamaged("it is too large")
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise RecordDamaged("it is not a record")
    (length,) = LENGTH.unpack(data[len(MAGIC) : start])
    if length > MAX_HEADER or len(data) < start + length + TAG_SIZE:
        raise RecordDamaged("it is cut short")
    try:
        header = parse_object(data[start : start + length])
    except ValueError as error:
        raise RecordDamaged("its header is not a JSON object") from error
    return SealedRecord(header, data[: start + length], data[start + length :])


def open_body(keys: MachineKeys, purpose: Purpose, record: SealedRecord) -> bytes:
    """Authenticate header and body and return the body; raises RecordDamaged."""
    try:
        salt = bytes.fromhex(record.header["salt"])
        if len(salt) != SALT_SIZE:
            raise RecordDamaged("its salt has a wrong length")
        packed = keys.cipher(purpose, salt).decrypt(ZERO_NONCE, record.ciphertext, record.prefix)
        return unzstd(packed, MAX_BODY)
    except (InvalidTag, KeyError, TypeError, ValueError) as error:
        raise RecordDamaged("it does not open with this machine's key") from error
    except zstandard.ZstdError as error:
        raise RecordDamaged("its body does not decompress") from error


def unzstd(packed: bytes, limit: int) -> bytes:
    """Decompress one frame that states its size; raises ZstdError for more than `limit` bytes, before they are made."""
    size = zstandard.frame_content_size(packed)
    if not 0 < size <= limit:  # 0 also stands for a frame to be skipped, however long it says that it is
        raise zstandard.ZstdError(f"a frame of {size} bytes, at most {limit} are allowed")
    return zstandard.ZstdDecompressor(max_window_size=1 << 24).decompress(
        packed, max_output_size=limit, allow_extra_data=False
    )
