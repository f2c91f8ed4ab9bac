"""What the operator knows of Secrets: which keys exist and how long their values are, never the values."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from farshore_operator.decide.keys import key_bytes
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.resources import SECRET

FRESH = timedelta(seconds=3)
"""How long an answer is good: far below the time in which a reference heals."""


@dataclass(frozen=True)
class SecretKeys:
    """The keys of a Secret with the bytes of each value, and which of them could encrypt a vault."""

    lengths: Mapping[str, int]
    encryption_keys: frozenset[str]
    type: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None


class Secrets:
    """Looks Secrets up, and remembers the answer for some seconds. Thread-safe."""

    def __init__(self, client: Client, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[datetime, SecretKeys | None]] = {}

    def keys(self, namespace: str, name: str) -> SecretKeys | None:
        """Return what a Secret holds, None if it does not exist.

        Raises:
            Fault: the API is away or refuses.
        """
        now = self._now()
        with self._lock:
            known = self._known.get((namespace, name))
        if known is not None and now - known[0] < FRESH:
            return known[1]
        body = self._client.get(SECRET, namespace, name)
        facts = None if body is None else _facts(body)
        with self._lock:
            self._known = {place: entry for place, entry in self._known.items() if now - entry[0] < FRESH}
            self._known[(namespace, name)] = (now, facts)
        return facts


def _facts(body: Json) -> SecretKeys:
    lengths: dict[str, int] = {}
    usable = set()
    for key, text in (body.get("data") or {}).items():
        try:
            value = base64.b64decode(text)
        except (ValueError, binascii.Error):
            continue
        lengths[key] = len(value)
        if key_bytes(value) is not None:
            usable.add(key)
    meta = body["metadata"]
    return SecretKeys(
        lengths, frozenset(usable), body.get("type", ""), meta.get("labels") or {}, meta.get("annotations") or {}
    )
