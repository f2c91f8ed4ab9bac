"""The agent's part in a point that several machines take at one instant: be ready, freeze, wait for the cut.

Whatever the process server says or does not say, the freeze ends within its own bound; a machine that had to thaw
before the cut makes no point.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from farshore_engine.agent.freezing import FreezeFailed
from farshore_engine.wire.barrier import Cut, FreezeNow, Frozen, PointReady
from farshore_engine.wire.message import Message

READY_SECONDS = 240.0  # for which a machine that is ready waits for the others
KEEP_EVERY = 1.0  # seconds between two looks at what was written while it waits
LOOK = 0.25


class Barrier:
    """One session's barrier; used from the session's thread.

    Args:
        send: sends a message.
        pump: handles what comes in, waiting at most the given seconds for it.
        check: raises FreezeFailed when the point was called off.
    """

    def __init__(
        self, send: Callable[[Message], None], pump: Callable[[float], None], check: Callable[[str], None]
    ) -> None:
        self._send = send
        self._pump = pump
        self._check = check
        self._point = ""  # that is taken together now
        self._freeze = self._cut = False

    def hear(self, message: FreezeNow | Cut) -> None:
        """Take note of what the process server says; of a point that was called off it means nothing."""
        if message.id != self._point:
            return
        if isinstance(message, FreezeNow):
            self._freeze = True
        else:
            self._cut = self._freeze

    def await_freeze(self, point: str, keep_ready: Callable[[], None]) -> None:
        """Say that this machine is ready, and return when all are; `keep_ready` sends what is written meanwhile.

        Raises:
            FreezeFailed: the point was called off, or the others were not ready in time.
        """
        self._point, self._freeze, self._cut = point, False, False
        self._send(PointReady(point))
        began = kept = time.monotonic()
        while not self._freeze:
            self._pump(LOOK)
            self._check(point)
            now = time.monotonic()
            if now - began > READY_SECONDS:
                raise FreezeFailed("GroupLate", "the other machines of the consistency group were not ready in time")
            if not self._freeze and now - kept >= KEEP_EVERY:
                keep_ready()
                kept = time.monotonic()

    def frozen(self, point: str) -> None:
        """Say that this machine is frozen."""
        self._send(Frozen(point))

    def await_cut(self, point: str, deadline: float) -> None:
        """Return when every machine is frozen; `deadline` is monotonic.

        Raises:
            FreezeFailed: the point was called off, or the others were not frozen in time.
        """
        while not self._cut:
            self._pump(min(LOOK, max(0.0, deadline - time.monotonic())))
            self._check(point)
            if not self._cut and time.monotonic() >= deadline:
                raise FreezeFailed("GroupLate", "the other machines of the group were not frozen within the bound")
