"""What every way of asking is given, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from farshore_engine.contract.assignment import DatabaseLogin, SSHCredentials
from farshore_engine.contract.tasks import ProbeSpec

ANSWER_LENGTH = 300
"""Characters of an answer that are kept."""


@dataclass(frozen=True)
class Place:
    """Where the machine answers, as this host reaches it."""

    address: str
    port: int

    def __str__(self) -> str:
        """Show it as people write it."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Logins:
    """With what a probe may log in: the machine's own credentials, and those of its databases by Secret."""

    ssh: SSHCredentials | None
    databases: dict[str, DatabaseLogin]


class Question(Protocol):
    """Asks once and returns the answer in words.

    Raises:
        WaitFault: no answer, or not the one that it should be: the machine may still be starting.
        StopFault: it was refused, and asking again for long is useless or harmful (a login).
    """

    def __call__(self, spec: ProbeSpec, place: Place, logins: Logins, seconds: float) -> str:
        """Ask; `seconds` bounds it."""
        ...


def brief(text: str) -> str:
    """Return an answer on one line, cut to what a status can hold."""
    line = " ".join(text.split())
    return line if len(line) <= ANSWER_LENGTH else f"{line[: ANSWER_LENGTH - 1]}…"
