"""The last point of a planned failover: taken with services stopped, and held frozen until the machine is powered off.

What was acknowledged to anybody is in the point, because nothing can be written any more once it is taken: either the
machine's power goes while it is still frozen, or the attempt is called off, everything thaws, services start again, and
the machine goes on as if nothing had been.

    stop.d hooks "stop" -> rounds -> freeze -> read -> send -> PointEnd -> Committed -> power off
                                                                or called off, connection lost, bound passed:
                                                                   -> thaw -> stop.d hooks "start"
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from farshore_engine.agent.freezing import FreezeFailed
from farshore_engine.agent.hooks import Hooks
from farshore_engine.agent.logs import LOGGER_NAME

log = logging.getLogger(LOGGER_NAME)

LONGEST = 900.0  # seconds that a planned freeze may last, whatever the process server asks for
STOP_SECONDS = 300.0  # for one stop or start hook: a database may take long to write its memory back
SHARE = 0.95  # of the bound after which the agent thaws by itself, before the watchdog does
TICK = 0.1
PHASES = ("stop", "start")
NOTE = "the machine's last point: taken with its services stopped, and held frozen until its power was to go"

PowerOff = Callable[[], None]


def no_power_off() -> None:
    """Refuse: only the agent's own program knows that it runs in a machine of its own."""
    raise OSError("this agent may not power its machine off")


class Hold:
    """Keeps one point frozen until it is decided. `pump` handles messages for at most so many seconds.

    Attributes:
        bound: seconds that the freeze lasts at most.
        committed, called_off: set by the session as messages come in.
    """

    def __init__(self, bound: float, pump: Callable[[float], None], power_off: PowerOff | None) -> None:
        """`power_off`: how the machine goes off once the point is committed; None when somebody else sees to that."""
        self.bound = min(bound, LONGEST)
        self.committed = False
        self.called_off = False
        self._pump = pump
        self._power_off = power_off

    def wait(self, began: float) -> str:
        """Wait, frozen since `began` (monotonic), for the end of the machine; returns why it goes on instead."""
        while True:
            self._pump(TICK)
            if self.called_off:
                return "the process server called it off"
            if self.committed and self._power_off is not None:
                try:
                    self._power_off()
                except OSError as error:
                    return f"the machine cannot be powered off: {error}"
                self._power_off = None  # it was asked; it may take a moment
            if time.monotonic() - began > self.bound * SHARE:
                return f"its power was still on after {self.bound * SHARE:.0f} s"


@contextmanager
def services_stopped(hooks: Hooks) -> Iterator[None]:
    """Stop services by the machine's hooks, and start them again at the end, which a machine that is off never sees.

    Raises:
        FreezeFailed: a hook failed; what was stopped runs again.
    """
    order = hooks.owe("final")
    try:
        for hook in hooks.find(()):
            problem = hook.refused or hooks.run_pre(order, hook, STOP_SECONDS)
            if problem:
                raise FreezeFailed("StopHookFailed", f"services cannot be stopped: the hook {hook.name} {problem}")
        yield
    finally:
        for problem in hooks.run_posts(order, STOP_SECONDS):
            log.error("services were not started again", extra={"fields": {"problem": problem}})
