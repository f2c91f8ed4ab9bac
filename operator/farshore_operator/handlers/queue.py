"""The work queue: a key is worked on by one worker at a time, and never twice for events that came together.

Level-triggered: an entry says that something about an object may have changed, not what. What fails is retried with
exponential backoff and jitter. Everything here runs in one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

BACKOFF_FIRST = 0.5
BACKOFF_LAST = 60.0
CONFLICT_CAP = 5.0


@dataclass(frozen=True, order=True)
class Key:
    """An object to be reconciled."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As messages spell it."""
        return f"{self.kind} {self.namespace}/{self.name}"


class WorkQueue:
    """A deduplicating queue with delays.

    Args:
        clock: monotonic seconds.
        jitter: returns a number in [0, 1), to spread retries.
    """

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._ready: dict[Key, float] = {}  # in order of arrival, with its time
        self._working: set[Key] = set()
        self._again: set[Key] = set()  # became ready while it was worked on
        self._later: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}  # the earliest delayed time of each key; others in the heap are stale
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Count what waits now, without what is delayed."""
        return len(self._ready) + len(self._again)

    def add(self, key: Key) -> None:
        """Let `key` be worked on as soon as a worker is free."""
        if key in self._working:
            self._again.add(key)
        else:
            self._ready.setdefault(key, self._clock())
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Let `key` be worked on in `seconds`, or earlier if it is due earlier."""
        due = self._clock() + max(0.0, seconds)
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, key))
        self._wake.set()

    def retry(self, key: Key, at_least: float | None = None) -> float:
        """Let a key that failed be worked on again after a growing delay; return the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(failures, 10)) * (0.5 + self._jitter())
        if at_least is not None:
            delay = max(at_least, min(delay, CONFLICT_CAP)) if failures < 5 else max(at_least, delay)
        self.add_after(key, delay)
        return delay

    def forgive(self, key: Key) -> None:
        """Forget the failures of a key that succeeded."""
        self._failures.pop(key, None)

    async def take(self) -> tuple[Key, float]:
        """Wait for a key; return it with the seconds that it waited. `done` must follow."""
        while True:
            self._promote()
            if self._ready:
                key = next(iter(self._ready))
                since = self._ready.pop(key)
                self._working.add(key)
                return key, self._clock() - since
            self._wake.clear()
            timeout = max(0.0, self._later[0][0] - self._clock()) if self._later else None
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Give the key back; it is ready again at once if it was added meanwhile."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        # Another worker may sleep on an event that this worker consumed.
        if self._ready:
            self._wake.set()

    def _promote(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
