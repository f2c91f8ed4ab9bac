"""The last point of a machine before it is powered off, as the process server sees it: asked for, committed, held.

From the commit on the machine is frozen and waits for its power to go. `until` is the moment (monotonic) up to which
that is certain: the agent counts from a freeze that began after it was asked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from farshore_engine.contract.points import RecoveryPoint


@dataclass
class LastPoint:
    """One attempt; guarded by the replica's lock.

    Attributes:
        hold: seconds for which the machine stays frozen.
        power_off: whether the machine cuts its own power once the point is committed.
        asked: when the agent was asked (monotonic), None before.
        point: once it is committed.
        over: why the machine is not held any more, "" while it is.
    """

    hold: float
    power_off: bool
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    asked: float | None = None
    point: RecoveryPoint | None = None
    over: str = ""
    reason: str = ""  # the agent's word for it, if it gave up

    @property
    def until(self) -> float:
        """Return until when (monotonic) the machine is certainly frozen if its agent lives; 0 before it was asked."""
        return self.asked + self.hold * 0.9 if self.asked is not None else 0.0


@dataclass(frozen=True)
class HeldPoint:
    """What a task is given once the last point is committed: the point, and the machine held frozen.

    Attributes:
        seconds_left: → for how long it certainly stays frozen; 0 once it does not.
        release: (why) → thaws it, so that it goes on; harmless when it is off.
        over: → why it is not held any more, "" while it is.
        alive: → whether its agent has been heard of since: then it goes on, and was not powered off.
    """

    point: RecoveryPoint
    seconds_left: Callable[[], float]
    release: Callable[[str], None]
    over: Callable[[], str]
    alive: Callable[[], bool] = lambda: False
