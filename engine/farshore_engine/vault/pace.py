"""Upkeep at a rate that does not disturb replication: a store whose reads and deletes are held to a pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.store import ObjectStore, Version

BYTES = 16 << 20  # read a second by the upkeep of one machine
OPERATIONS = 100.0  # a second
BURST = 1.0  # seconds that may be saved up


class Pace:
    """A budget of bytes and operations a second. Thread-safe; `stop` ends every wait with a WaitFault."""

    def __init__(
        self,
        bytes_per_second: float = BYTES,
        operations_per_second: float = OPERATIONS,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Begin with nothing owed; `clock` is monotonic, in seconds, `sleep` waits so many seconds."""
        self._rates = (bytes_per_second, operations_per_second)
        self._clock = clock
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._lock = threading.Lock()
        self._free_at = clock()  # when everything taken so far is paid

    def take(self, size: int = 0) -> None:
        """Wait until one more operation that moves `size` bytes is within the pace; raises WaitFault once stopped."""
        if self._stopped.is_set():
            raise WaitFault("the upkeep of the vault was stopped", reason="Closed")
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - BURST) + max(size / self._rates[0], 1 / self._rates[1])
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)

    def stop(self) -> None:
        """End every wait, now and later."""
        self._stopped.set()


class PacedStore:
    """An `ObjectStore` that passes everything on, each operation when the pace allows it."""

    def __init__(self, inner: ObjectStore, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        """See ObjectStore."""
        self._pace.take()
        return self._inner.put(name, data, create_only=create_only)

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        """See ObjectStore."""
        self._pace.take()
        return self._inner.put_if(name, data, version)

    def get(self, name: str) -> tuple[bytes, Version]:
        """See ObjectStore."""
        self._pace.take()
        return self._inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ObjectStore."""
        self._pace.take(length)
        return self._inner.get_range(name, offset, length)

    def head(self, name: str) -> int:
        """See ObjectStore."""
        self._pace.take()
        return self._inner.head(name)

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        self._pace.take()
        return self._inner.list(prefix)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See ObjectStore."""
        self._pace.take()
        return self._inner.sizes(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        self._pace.take()
        return self._inner.folders(prefix)

    def delete(self, name: str) -> None:
        """See ObjectStore."""
        self._pace.take()
        self._inner.delete(name)
