"""Watches a ledger from outside its machine and keeps every transaction that it acknowledged: the truth to judge by."""

from __future__ import annotations

import bisect
import json
import socket
import threading
from typing import Any

PORT = 5555
FREEZE = 3.0
"""Seconds that it takes to freeze, at most, where nobody is busy: a point's time is before, and what is committed
meanwhile is in it."""


def ask(address: str, command: str, *, timeout: float = 60.0) -> dict[str, Any]:
    """Ask a ledger; raises OSError when nobody answers."""
    with socket.create_connection((address, PORT), timeout=timeout) as connection:
        connection.sendall(command.encode() + b"\n")
        answer: dict[str, Any] = json.loads(connection.makefile().readline())
        return answer


class Watcher:
    """Follows a ledger in a thread until it is closed; an unreachable ledger is no error, and is tried again.

    Numbers and times (seconds, epoch, by the ledger's clock, taken before the commit and when it had returned) of what
    was acknowledged are kept in the order in which they came.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._numbers: list[int] = []
        self._begun: list[float] = []
        self._done: list[float] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{address}", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> int:
        """The newest transaction that was acknowledged to us."""
        return self._numbers[-1] if self._numbers else 0

    def bounds(self, moment: float, following: float) -> tuple[int, int]:
        """Return what a copy as of `moment` must hold, at least and at most; the next point is as of `following`.

        What had returned before the freeze is in it; what was begun after it is not. However long the freeze took, the
        copy lacks something that the next point has.
        """
        at_least = self.acknowledged(moment)
        frozen = bisect.bisect_right(self._begun, min(moment + FREEZE, following))
        return at_least, max(self._numbers[frozen - 1] if frozen else 0, self.acknowledged(following) - 1)

    def acknowledged(self, moment: float) -> int:
        """Return the newest transaction that had returned by `moment`: every copy of then or later has it."""
        known = bisect.bisect_right(self._done, moment)
        return self._numbers[known - 1] if known else 0

    def close(self) -> None:
        """Stop following."""
        self._end.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._end.wait(0.2):
            try:
                self._follow()
            except (OSError, ValueError):
                continue

    def _follow(self) -> None:
        with socket.create_connection((self.address, PORT), timeout=2) as connection:
            connection.sendall(b"follow\n")
            rest = b""
            while not self._end.is_set():
                try:
                    more = connection.recv(65536)
                except TimeoutError:
                    continue  # a machine that is frozen, say, answers later
                if not more:
                    return
                *lines, rest = (rest + more).split(b"\n")
                for line in lines:
                    answer = json.loads(line)
                    self._begun.append(answer["at"])
                    self._done.append(answer["done"])
                    self._numbers.append(answer["last"])
