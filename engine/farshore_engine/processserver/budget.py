"""The size of the spool, shared by all machines: who would overfill it waits, and its agent's socket is not read."""

from __future__ import annotations

import threading
from collections.abc import Callable

STEP = 0.5  # seconds between looks at whether a waiter was cancelled


class Cancelled(Exception):
    """The wait for room was given up because the process or the machine's replication stops."""


class SpoolBudget:
    """Counts bytes in the spool against its size. Thread-safe.

    A single reservation is always granted when nothing else is in the spool, whatever its size, so that a spool
    smaller than one pack is slow instead of stuck.
    """

    def __init__(self, size: int) -> None:
        """Allow `size` bytes."""
        self._size = size
        self._used = 0
        self._waiting = 0
        self._room = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes in the spool or promised to packs being made."""
        return self._used

    @property
    def size(self) -> int:
        """Bytes allowed."""
        return self._size

    @property
    def pressed(self) -> bool:
        """Whether somebody waits for room: open packs should be sealed so that they can leave."""
        return self._waiting > 0

    def resize(self, size: int) -> None:
        """Change the size; what is in the spool already may stay."""
        with self._room:
            self._size = size
            self._room.notify_all()

    def add(self, count: int) -> None:
        """Count bytes that are there, whatever the size; negative when they leave."""
        with self._room:
            self._used += count
            if count < 0:
                self._room.notify_all()

    def take(self, count: int, cancelled: Callable[[], bool]) -> None:
        """Wait until `count` bytes fit, then count them.

        Raises:
            Cancelled: `cancelled` returned True meanwhile.
        """
        with self._room:
            self._waiting += 1
            try:
                while self._used > 0 and self._used + count > self._size:
                    if cancelled():
                        raise Cancelled
                    self._room.wait(STEP)
            finally:
                self._waiting -= 1
            self._used += count
