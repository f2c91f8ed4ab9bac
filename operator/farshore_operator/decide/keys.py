"""How a key-encryption key is written in a Secret: 32 random bytes, raw or in base64."""

from __future__ import annotations

import base64
import binascii

KEY_BYTES = 32


def key_bytes(value: bytes) -> bytes | None:
    """Return the key in a Secret's value, None if it is none.

    A final line break, which editors add, does not matter in base64.
    """
    if len(value) == KEY_BYTES:
        return value
    try:
        decoded = base64.b64decode(value.strip(), validate=True)
    except (ValueError, binascii.Error):
        return None
    return decoded if len(decoded) == KEY_BYTES else None
