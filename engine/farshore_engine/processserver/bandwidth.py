"""The appliance's bandwidth limit, shared fairly: a machine's first copy leaves room for the others' points.

Machines that want to receive at once get equal shares, in bytes: who has been given least goes next. A frame is not
read from its connection before its turn, so that TCP holds the agent back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from farshore_engine.processserver.budget import Cancelled

BURST_SECONDS = 0.25
STEP = 0.5  # seconds between looks at whether a waiter was cancelled, or the limit changed


class FairBucket:
    """Thread-safe.

    Args:
        limit: returns bytes per second, 0 for none; asked at each turn, so that a schedule takes effect at once.
        clock: seconds, monotonic.
    """

    def __init__(self, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._level = 0.0
        self._filled_at = clock()
        self._given: dict[str, float] = {}  # machine → bytes, on a scale that starts with whoever has least
        self._waiting: dict[str, int] = {}  # machine → its waiters
        self._floor = 0.0
        self._turn = threading.Condition()

    def take(self, machine: str, size: int, cancelled: Callable[[], bool]) -> None:
        """Wait until the machine may receive `size` bytes.

        Raises:
            Cancelled: `cancelled` returned True meanwhile.
        """
        with self._turn:
            if self._limit() <= 0 and not self._waiting:
                return
            self._enter(machine)
            try:
                while not self._may_go(machine):
                    if cancelled():
                        raise Cancelled
                    self._turn.wait(self._pause())
                self._level -= size
                self._floor = self._given[machine]
                self._given[machine] += size
            finally:
                self._leave(machine)

    # -- inside; the lock is held ----------------------------------------------------------------------------------

    def _enter(self, machine: str) -> None:
        """A machine that was quiet starts level with the others: it neither owes nor is owed."""
        self._given[machine] = max(self._given.get(machine, 0.0), self._floor)
        self._waiting[machine] = self._waiting.get(machine, 0) + 1

    def _leave(self, machine: str) -> None:
        self._waiting[machine] -= 1
        if not self._waiting[machine]:
            del self._waiting[machine]
        if not self._waiting:
            behind = [m for m, given in self._given.items() if given <= self._floor]
            for m in behind:
                del self._given[m]
        self._turn.notify_all()

    def _may_go(self, machine: str) -> bool:
        limit = self._limit()
        now = self._clock()
        if limit <= 0:
            self._level, self._filled_at = 0.0, now
            return True
        self._level = min(limit * BURST_SECONDS, self._level + (now - self._filled_at) * limit)
        self._filled_at = now
        return self._level >= 0 and machine == min(self._waiting, key=lambda m: (self._given[m], m))

    def _pause(self) -> float:
        limit = self._limit()
        return min(STEP, max(0.001, -self._level / limit)) if limit > 0 and self._level < 0 else STEP
