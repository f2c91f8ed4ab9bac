"""Holds the sender to the policy's bandwidth limit."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_SECONDS = 0.25


class TokenBucket:
    """Tokens are bytes; they come at `limit` a second, and a quarter of a second's worth may be saved up.

    Args:
        limit: bytes per second, 0 for none.
        clock: seconds, monotonic.
    """

    def __init__(self, limit: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit = 0
        self._level = 0.0
        self._filled_at = clock()
        self.set_limit(limit)

    def set_limit(self, limit: int) -> None:
        """Change the limit; what was saved up is kept within the new bound."""
        self._limit = limit
        self._level = min(self._level, limit * BURST_SECONDS)
        self._filled_at = self._clock()

    def take(self, size: int) -> float:
        """Take `size` tokens and return how many seconds to wait before sending them; debts are allowed."""
        if self._limit <= 0:
            return 0.0
        now = self._clock()
        self._level = min(self._limit * BURST_SECONDS, self._level + (now - self._filled_at) * self._limit)
        self._filled_at = now
        self._level -= size
        return max(0.0, -self._level / self._limit)
