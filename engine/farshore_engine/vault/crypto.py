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
import json
import secrets
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from farshore_engine.contract.faults import StopFault

KEY_SIZE = 32
SALT_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
KEY_FORMAT = 1
ZERO_NONCE = bytes(NONCE_SIZE)


class Purpose(StrEnum):
    """What a derived key is for; the value is HKDF's info."""

    PACK = "farshore/1 pack"
    CHAIN = "farshore/1 chain record"
    JOURNAL = "farshore/1 journal record"
    DIGEST = "farshore/1 block digest"


class WrongKey(StopFault):
    """The key-encryption key does not open this machine's data key."""

    def __init__(self, machine: str, wanted: str, given: str) -> None:
        super().__init__(
            f"the key-encryption key (id {given}) does not open the data of {machine}: key id {wanted} wrapped it",
            "Give the key with which the vault was first used; without it the data cannot be read by anybody",
            reason="WrongKey",
        )


@dataclass(frozen=True)
class MachineKeys:
    """The opened keys of one machine. Its repr shows no key."""

    machine: str
    _data_key: bytes

    def __repr__(self) -> str:
        """Show whose keys these are and nothing else."""
        return f"MachineKeys({self.machine!r})"

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


def _wrap_binding(machine: str) -> bytes:
    return b"farshore/1 data key\0" + machine.encode()


def wrap_data_key(data_key: bytes, kek: bytes, machine: str, nonce: bytes | None = None) -> bytes:
    """Return the content of key.json. `nonce` is given by test vectors only."""
    nonce = nonce or secrets.token_bytes(NONCE_SIZE)
    wrap = {
        "kek": kek_id(kek),
        "algorithm": "A256GCM",
        "nonce": base64.b64encode(nonce).decode(),
        "wrapped": base64.b64encode(AESGCM(kek).encrypt(nonce, data_key, _wrap_binding(machine))).decode(),
    }
    return json.dumps({"format": KEY_FORMAT, "machine": machine, "wraps": [wrap]}, indent=1).encode()


def unwrap_data_key(document: bytes, kek: bytes, machine: str) -> MachineKeys:
    """Open key.json.

    Raises:
        WrongKey: another key-encryption key wrapped it.
        StopFault: the document is damaged, of a newer format, or belongs to another machine.
    """
    try:
        content: dict[str, Any] = json.loads(document)
        form, owner = content["format"], content["machine"]
        wraps = {w["kek"]: (base64.b64decode(w["nonce"]), base64.b64decode(w["wrapped"])) for w in content["wraps"]}
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged_key(machine, "it is not a key document") from error
    if form != KEY_FORMAT:
        raise StopFault(f"key.json of {machine} has format {form}", "Upgrade Farshore to read it", reason="NewerFormat")
    if owner != machine:
        raise _damaged_key(machine, f"it belongs to {owner}")
    mine = kek_id(kek)
    if mine not in wraps:
        raise WrongKey(machine, " or ".join(wraps), mine)
    nonce, wrapped = wraps[mine]
    try:
        return MachineKeys(machine, AESGCM(kek).decrypt(nonce, wrapped, _wrap_binding(machine)))
    except (InvalidTag, ValueError) as error:
        raise _damaged_key(machine, "its tag does not verify") from error


def _damaged_key(machine: str, why: str) -> StopFault:
    return StopFault(
        f"key.json of {machine} is damaged: {why}",
        "Restore key.json from a copy of the vault; the machine's points cannot be read without it",
        reason="KeyDamaged",
    )


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
