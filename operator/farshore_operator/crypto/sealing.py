"""Seals a token to a process server's X25519 key, so that whoever can read its status learns nothing.

X25519 with an ephemeral key, HKDF-SHA256 over both public keys, AES-256-GCM. The name of the process server is
authenticated, so that a sealed token cannot be moved to another's status.
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from farshore_engine.contract.faults import StopFault

_KEY = 32
_NONCE = 12
_PURPOSE = b"farshore.dev/sealed-token/v1"


def public_key(private: X25519PrivateKey) -> str:
    """Return the base64 public key to report."""
    return base64.b64encode(_raw(private.public_key())).decode()


def seal(token: str, to: str, owner: str) -> str:
    """Seal `token` to the base64 X25519 key `to` of the process server `owner` ("<namespace>/<name>").

    Raises:
        StopFault: `to` is no X25519 public key.
    """
    try:
        recipient = X25519PublicKey.from_public_bytes(base64.b64decode(to, validate=True))
    except ValueError as error:
        raise StopFault(
            f"the public key that process server {owner} reported is no X25519 key",
            "Register the process server again with an empty state directory",
            reason="BadPublicKey",
        ) from error
    ephemeral = X25519PrivateKey.generate()
    mine, theirs = _raw(ephemeral.public_key()), _raw(recipient)
    nonce = os.urandom(_NONCE)
    sealed = AESGCM(_derive(ephemeral.exchange(recipient), mine, theirs)).encrypt(nonce, token.encode(), owner.encode())
    return base64.b64encode(mine + nonce + sealed).decode()


def unseal(sealed: str, private: X25519PrivateKey, owner: str) -> str:
    """Open what `seal` made.

    Raises:
        StopFault: it was sealed to another key or owner, or is damaged.
    """
    try:
        data = base64.b64decode(sealed, validate=True)
        theirs, nonce, box = data[:_KEY], data[_KEY : _KEY + _NONCE], data[_KEY + _NONCE :]
        shared = private.exchange(X25519PublicKey.from_public_bytes(theirs))
        key = _derive(shared, theirs, _raw(private.public_key()))
        return AESGCM(key).decrypt(nonce, box, owner.encode()).decode()
    except (ValueError, InvalidTag) as error:
        raise StopFault(
            f"the token sealed for process server {owner} cannot be opened with the key in its state directory",
            "Delete the ProcessServer and register it again, or restore its state directory",
            reason="SealedTokenUnreadable",
        ) from error


def _derive(shared: bytes, ephemeral: bytes, recipient: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE + ephemeral + recipient).derive(shared)


def _raw(key: X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
