"""How long an agent that owes something has said nothing. Pings do not count: a hanging session answers them still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Silence:
    """Counts from the last word, or from the end of the last wait of this side.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._listening = True

    def broken(self) -> None:
        """The agent said something, or something was asked of it."""
        self._since = self._clock()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """What the agent said is being taken in, which may take as long as the spool is full: it cannot say more."""
        self._listening = False
        try:
            yield
        finally:
            self._listening = True
            self.broken()

    def seconds(self, *, owes: bool) -> float:
        """Return for how long the agent has been silent; 0 while it owes nothing, or is not listened to."""
        if not owes or not self._listening:
            self.broken()
        return self._clock() - self._since
