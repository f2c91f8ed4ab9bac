"""The values of Secrets that a process server needs, in memory only, and read again from time to time.

While the API is away the last values stay good, so that replication goes on.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping

from farshore_engine.contract.faults import Fault, WaitFault
from farshore_operator.kube.client import Client
from farshore_operator.kube.faults import Forbidden
from farshore_operator.kube.resources import SECRET

FRESH = 30.0
FRESH_WHEN_MISSING = 3.0

Values = Mapping[str, bytes]


class SecretValues:
    """Looks Secrets up by name. Thread-safe."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Values | None]] = {}

    def forget(self) -> None:
        """Let every Secret be read again."""
        with self._lock:
            self._known = {name: (0.0, values) for name, (_, values) in self._known.items()}

    def get(self, name: str) -> Values | None:
        """Return the data of a Secret, None if it does not exist.

        Raises:
            WaitFault: it cannot be read (yet), and never could.
        """
        with self._lock:
            known = self._known.get(name)
        now = time.monotonic()
        if known is not None and now - known[0] < (FRESH if known[1] is not None else FRESH_WHEN_MISSING):
            return known[1]
        try:
            body = self._client.get(SECRET, self._namespace, name)
        except Forbidden as fault:
            raise WaitFault(
                f"this process server may not read Secret {self._namespace}/{name} yet",
                "The operator grants it to the process server that is assigned; that takes some seconds",
                reason="SecretForbidden",
            ) from fault
        except Fault:
            if known is not None:
                return known[1]
            raise
        values = None if body is None else {k: base64.b64decode(v) for k, v in (body.get("data") or {}).items()}
        with self._lock:
            self._known[name] = (now, values)
        return values
