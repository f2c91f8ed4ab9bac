"""The size of the spool, shared by all machines: who would overfill it waits, and its agent's socket is not read.

Half of the spool belongs to the machines in equal parts, the other half to whoever needs it. So one large first copy
may fill more than half, and is the first that must wait; the points of the others still find room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

STEP = 0.5  # seconds between looks at whether a waiter was cancelled


class Cancelled(Exception):
    """The wait for room was given up because the process or the machine's replication stops."""


class Room(Protocol):
    """Where bytes in the spool are counted."""

    @property
    def pressed(self) -> bool:
        """Whether somebody waits for room."""
        ...

    def add(self, count: int) -> None:
        """Count bytes that are there; negative when they leave."""
        ...

    def take(self, count: int, cancelled: Callable[[], bool]) -> None:
        """Wait until `count` bytes fit, then count them; raises Cancelled."""
        ...


class SpoolBudget:
    """Counts bytes in the spool against its size, for each machine. Thread-safe.

    A single reservation is always granted when nothing else is in the spool, whatever its size, so that a spool
    smaller than one pack is slow instead of stuck. Room that comes free goes first to the machine that has least.
    """

    def __init__(self, size: int) -> None:
        """Allow `size` bytes."""
        self._size = size
        self._held: dict[str, int] = {}  # machine → bytes
        self._waiting: dict[str, int] = {}  # machine → how many wait
        self._room = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes in the spool or promised to packs being made."""
        with self._room:
            return self._used()

    @property
    def size(self) -> int:
        """Bytes allowed."""
        return self._size

    @property
    def pressed(self) -> bool:
        """Whether somebody waits for room: open packs should be sealed so that they can leave."""
        return bool(self._waiting)

    def share(self, machine: str) -> SpoolShare:
        """Return the budget as a machine sees it; from now on a part of the spool is kept for it."""
        with self._room:
            self._held.setdefault(machine, 0)
        return SpoolShare(self, machine)

    def leave(self, machine: str) -> None:
        """A machine needs no part of its own any more; what it still holds stays counted."""
        with self._room:
            if self._held.get(machine) == 0 and machine not in self._waiting:
                del self._held[machine]
            self._room.notify_all()

    def held(self, machine: str) -> int:
        """Return the bytes that a machine has in the spool."""
        with self._room:
            return self._held.get(machine, 0)

    def waits(self, machine: str) -> bool:
        """Whether a machine waits for room."""
        return machine in self._waiting

    def resize(self, size: int) -> None:
        """Change the size; what is in the spool already may stay."""
        with self._room:
            self._size = size
            self._room.notify_all()

    def add(self, count: int, machine: str = "") -> None:
        """Count bytes that are there, whatever the size; negative when they leave."""
        with self._room:
            self._held[machine] = self._held.get(machine, 0) + count
            if count < 0:
                self._room.notify_all()

    def take(self, count: int, cancelled: Callable[[], bool], machine: str = "") -> None:
        """Wait until `count` bytes fit, then count them.

        Raises:
            Cancelled: `cancelled` returned True meanwhile.
        """
        with self._room:
            self._held.setdefault(machine, 0)
            self._waiting[machine] = self._waiting.get(machine, 0) + 1
            try:
                while not self._fits(count, machine):
                    if cancelled():
                        raise Cancelled
                    self._room.wait(STEP)
                self._held[machine] += count
            finally:
                self._waiting[machine] -= 1
                if not self._waiting[machine]:
                    del self._waiting[machine]
                    self._room.notify_all()  # somebody may have waited only because this one had less

    # -- inside; the lock is held ----------------------------------------------------------------------------------

    def _used(self) -> int:
        return sum(self._held.values())

    def _fits(self, count: int, machine: str) -> bool:
        used, held = self._used(), self._held[machine]
        if used == 0:
            return True
        if used + count > self._size or any(self._held[other] < held for other in self._waiting if other != machine):
            return False
        own = self._size // (2 * max(1, len(self._held)))
        beyond = sum(max(0, bytes_ - own) for other, bytes_ in self._held.items() if other != machine)
        mine = max(0, held + count - own)
        return mine == 0 or beyond + mine <= self._size - own * len(self._held)


class SpoolShare:
    """The budget as one machine sees it."""

    def __init__(self, budget: SpoolBudget, machine: str) -> None:
        self._budget = budget
        self._machine = machine

    @property
    def pressed(self) -> bool:
        """See SpoolBudget."""
        return self._budget.pressed

    @property
    def waits(self) -> bool:
        """Whether this machine waits for room now."""
        return self._budget.waits(self._machine)

    @property
    def used(self) -> int:
        """Bytes that this machine has in the spool."""
        return self._budget.held(self._machine)

    def add(self, count: int) -> None:
        """See SpoolBudget."""
        self._budget.add(count, self._machine)

    def take(self, count: int, cancelled: Callable[[], bool]) -> None:
        """See SpoolBudget."""
        self._budget.take(count, cancelled, self._machine)

    def close(self) -> None:
        """The machine's replication ends here."""
        self._budget.leave(self._machine)
