"""Rounds of dirty blocks before a freeze, until little is left, and what they tell of churn and of the link."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from farshore_engine.agent.freezing import FreezeFailed
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.replicate import Replicator
from farshore_engine.blocks.grid import BLOCK_SIZE

log = logging.getLogger(LOGGER_NAME)

MAX_ROUNDS = 60  # while each leaves less than the one before
CONVERGING = 0.9  # a round helps when it leaves less than this share of the one before
MAX_STUCK = 3  # rounds in a row that do not: more of them would only load the link
FITTING = 0.8  # share of the buffer that may be filled when rounds no longer help


@dataclass(slots=True)
class Rates:
    """Bytes per second, 0.0 while unknown.

    Attributes:
        churn: of the distinct blocks that programs write: what has to be sent.
        link: at which blocks leave, under the policy's limit and the process server's back-pressure.
    """

    churn: float = 0.0
    link: float = 0.0


class ChurnOutrunsLink(FreezeFailed):
    """Rounds do not converge: the machine writes faster than that is sent."""

    def __init__(self, rounds: int, rest: int, rates: Rates) -> None:
        super().__init__(
            "ChurnOutrunsLink",
            f"churn outruns the link: {rates.churn / 2**20:.1f} MiB/s written, {rates.link / 2**20:.1f} MiB/s sent; "
            f"after {rounds} rounds {rest >> 20} MiB were left; raise the bandwidth or lengthen the interval",
        )
        self.rounds, self.rest = rounds, rest  # bytes


class PreCopy:
    """Sends rounds of dirty blocks, and measures.

    Args:
        capacity: bytes that the freeze can take.
        clock: seconds, monotonic.
    """

    def __init__(
        self, ledger: Ledger, disks: Iterable[str], capacity: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._disks = tuple(disks)
        self._capacity = capacity
        self._clock = clock
        self._cleared_at: float | None = None  # when the last dirty block was taken
        self.rates = Rates()

    def cleared(self) -> None:
        """Every dirty block has just been taken: the next count tells the churn since now."""
        self._cleared_at = self._clock()

    def interrupted(self) -> None:
        """The connection broke: blocks that are dirty now need not have been written since the last count."""
        self._cleared_at = None

    def run(
        self,
        point: str,
        settle: Callable[[], None],
        replicator: Replicator,
        target: int,
        until: Callable[[], bool] | None = None,
    ) -> int:
        """Send rounds until at most `target` bytes are left; returns the number of rounds.

        Args:
            settle: makes what programs have written reach the disks and the ledger; called before each count.
            until: ends the rounds early, whatever is left, once it returns True.

        Raises:
            ChurnOutrunsLink: more is left than the freeze can take, and rounds do not help.
        """
        settle()
        rest = self._waiting()
        if self._cleared_at is not None:
            self.rates.churn = rest / max(self._clock() - self._cleared_at, 0.001)
        target = min(target, int(self._capacity * FITTING))  # what the buffer cannot take is never little enough
        stuck = 0
        for done in range(MAX_ROUNDS):
            if rest <= target:
                return done
            log.debug("a round", extra={"fields": {"point": point, "round": done, "bytes": rest}})
            began, before = self._clock(), rest
            for disk in self._disks:
                replicator.send_waiting(Need.DIRTY, disk, until)
            if until is not None and until():
                return done + 1
            sent_in = max(self._clock() - began, 0.001)
            settle()
            rest = self._waiting()
            self.rates.link = before / sent_in
            self.rates.churn = rest / max(self._clock() - began, 0.001)
            self._cleared_at = None
            stuck = stuck + 1 if rest > before * CONVERGING else 0
            if done >= 2 and stuck and rest <= self._capacity * FITTING:
                return done + 1  # it gets no better, and it fits
            if stuck >= MAX_STUCK:
                raise ChurnOutrunsLink(done + 1, rest, self.rates)
        if rest <= self._capacity:
            return MAX_ROUNDS
        raise ChurnOutrunsLink(MAX_ROUNDS, rest, self.rates)

    def _waiting(self) -> int:
        return self._ledger.waiting(Need.DIRTY) * BLOCK_SIZE
