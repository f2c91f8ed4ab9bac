"""Watches the ledger from outside the machine and remembers what it acknowledged and when: the truth to judge by."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

PORT = 5555


def ask(address: str, command: str, *, timeout: float = 20.0) -> dict[str, Any]:
    """Ask a ledger; raises OSError when nobody answers."""
    with socket.create_connection((address, PORT), timeout=timeout) as connection:
        connection.sendall(command.encode() + b"\n")
        answer: dict[str, Any] = json.loads(connection.makefile().readline())
        return answer


@dataclass(frozen=True)
class Sighting:
    """The ledger had acknowledged transaction `last` some time between `asked` and `answered` (seconds, epoch)."""

    asked: float
    answered: float
    last: int


class Watcher:
    """Polls a ledger four times a second in a thread until it is closed; an unreachable ledger is no error."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._sightings: list[Sighting] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def newest(self) -> int:
        """The newest transaction that was seen."""
        return self._sightings[-1].last if self._sightings else 0

    def bounds(self, moment: float) -> tuple[int, int | None]:
        """Return what a copy as of `moment` must hold: at least and at most this transaction (None: not known)."""
        before = [one.last for one in self._sightings if one.answered <= moment]
        after = [one.last for one in self._sightings if one.asked >= moment]
        return (before[-1] if before else 0), (after[0] if after else None)

    def close(self) -> None:
        """Stop polling."""
        self._end.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._end.wait(0.25):
            asked = time.time()
            try:
                answer = ask(self._address, "last", timeout=2)
            except (OSError, ValueError):
                continue
            self._sightings.append(Sighting(asked, time.time(), answer["last"]))
