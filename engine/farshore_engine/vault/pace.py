"""Upkeep at a rate that does not disturb replication: a store whose reads and deletes are held to a pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.store import ObjectStore, Version

BYTES = 32 << 20  # a second that the upkeep of all machines of a process server reads
OPERATIONS = 400.0  # a second
BURST = 2.0  # seconds that may be saved up


class Pace:
    """A budget of bytes and operations a second, which several may share. Thread-safe.

    `stop` ends every wait of this one with a WaitFault, not of those that it shares the budget with.
    """

    def __init__(
        self,
        bytes_per_second: float = BYTES,
        operations_per_second: float = OPERATIONS,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Begin with nothing owed; `clock` is monotonic, in seconds, `sleep` waits so many seconds."""
        self._budget = _Budget(bytes_per_second, operations_per_second, clock)
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait

    def shared(self) -> Pace:
        """Return another user of the same budget."""
        other = Pace()
        other._budget = self._budget
        return other

    def take(self, size: int = 0) -> None:
        """Wait until one more operation that moves `size` bytes is within the pace; raises WaitFault once stopped."""
        if not self._stopped.is_set() and (wait := self._budget.owe(size)) > 0:
            self._sleep(wait)
        if self._stopped.is_set():
            raise WaitFault("the upkeep of the vault was stopped", reason="Closed")

    def stop(self) -> None:
        """End every wait, now and later."""
        self._stopped.set()


class _Budget:
    def __init__(self, bytes_per_second: float, operations_per_second: float, clock: Callable[[], float]) -> None:
        self._bytes = bytes_per_second
        self._operations = operations_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_at = clock()  # when everything taken so far is paid

    def owe(self, size: int) -> float:
        """Take one operation of `size` bytes; return the seconds to wait."""
        with self._lock:
            now = self._clock()
            self._paid_at = max(self._paid_at, now - BURST) + max(size / self._bytes, 1 / self._operations)
            return self._paid_at - now


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
