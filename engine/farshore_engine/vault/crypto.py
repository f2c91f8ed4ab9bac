"""Keys and authenticated encryption of a vault.

    key-encryption key (32 bytes, kept by the customer)
      wraps data key (32 random bytes, one for each machine, in key.json)
        HKDF-SHA256(data key, salt = 32 random bytes in the object's header, info = purpose)
          key of one pack, one chain record or one journal record

No key encrypts more than one object, so a nonce need only be unique inside it: in a pack it is the record's offset,
in a record it is zero. Every record is bound by its associated data to machine, kind and place.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import struct
from dataclasses import dataclass
from enum import StrEnum

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from farshore_engine.contract.faults import StopFault

KEY_SIZE = 32
SALT_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
ZERO_NONCE = bytes(NONCE_SIZE)


class Purpose(StrEnum):
    """What a derived key is for; the value is HKDF's info."""

    PACK = "farshore/1 pack"
    CHAIN = "farshore/1 chain record"
    JOURNAL = "farshore/1 journal record"
    DIGEST = "farshore/1 block digest"
    REPORT = "farshore/1 report record"
    REPORT_SIGNATURE = "farshore/1 report signature"


@dataclass(frozen=True)
class MachineKeys:
    """The opened keys of one machine. Its repr shows no key."""

    machine: str
    _data_key: bytes

    def __repr__(self) -> str:
        """Show whose keys these are and nothing else."""
        return f"MachineKeys({self.machine!r})"

    @property
    def data_key(self) -> bytes:
        """The data key itself, for the modules that wrap it."""
        return self._data_key

    def derive(self, purpose: Purpose, salt: bytes) -> bytes:
        """Return the 32-byte key of one object."""
        return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=salt, info=purpose.encode()).derive(self._data_key)

    @property
    def digest_key(self) -> bytes:
        """The key of the machine's block digests; its agent gets it too, to compare blocks without sending them."""
        return self.derive(Purpose.DIGEST, b"")

    def cipher(self, purpose: Purpose, salt: bytes) -> AESGCM:
        """Return the cipher of one object."""
        return AESGCM(self.derive(purpose, salt))


def parse_kek(secret: bytes) -> bytes:
    """Return the 32 bytes of a key-encryption key given raw, in hex or in base64 (white space around it is ignored).

    Raises:
        StopFault: it is not a 256-bit key.
    """
    if len(secret) == KEY_SIZE:
        return secret
    text = secret.strip()
    for decode in (binascii.unhexlify, lambda t: base64.b64decode(t, validate=True)):
        try:
            key = decode(text)
        except binascii.Error:
            continue
        if len(key) == KEY_SIZE:
            return key
    raise StopFault(
        f"the key-encryption key is {len(secret)} bytes long and is not a 256-bit key",
        "Make one with `openssl rand -base64 32` and keep a copy outside the cluster",
        reason="BadKey",
    )


def kek_id(kek: bytes) -> str:
    """Return the public name of a key-encryption key: 16 hex digits that tell keys apart and reveal nothing."""
    return str(blake3(kek, derive_key_context="farshore.dev 2025 key-encryption key id").hexdigest()[:16])


def new_data_key() -> bytes:
    """Return a fresh random data key."""
    return secrets.token_bytes(KEY_SIZE)


def new_salt() -> bytes:
    """Return a fresh salt for one object."""
    return secrets.token_bytes(SALT_SIZE)


def nonce_at(offset: int) -> bytes:
    """Return the nonce of the record at an offset of a pack: the offset as 96 bits, big-endian."""
    return offset.to_bytes(NONCE_SIZE, "big")


class Place:
    """Builds associated data: machine, kind and disk once, then the place of each record."""

    def __init__(self, machine: str, disk: str) -> None:
        who = b"".join(len(part).to_bytes(2, "big") + part for part in (machine.encode(), disk.encode()))
        self._block = b"FSB1" + who
        self._node = b"FSN1" + who

    def block(self, index: int) -> bytes:
        """Bind to a block of the disk."""
        return self._block + struct.pack(">Q", index)

    def node(self, level: int, index: int) -> bytes:
        """Bind to a node of the disk's map."""
        return self._node + struct.pack(">BQ", level, index)
