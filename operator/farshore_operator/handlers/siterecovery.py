"""Runs the driver of Site Recovery beside the reconcilers: a look every few seconds, each in a thread of the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import structlog

from farshore_engine.contract.faults import Fault

LONGEST = timedelta(minutes=5)
"""How long Azure is left alone at most, whatever it asks for."""

log = structlog.get_logger(__name__)


class Looker(Protocol):
    """Looks at all vaults once, and returns the seconds for which Azure asks to be left alone."""

    def look(self) -> float | None:
        """Look."""
        ...


async def drive(driver: Looker, ready: asyncio.Event, in_thread: Callable[..., Any], every: timedelta) -> None:
    """Look again and again, from when everything was listed once; a fault of the control plane waits for the next."""
    await ready.wait()
    while True:
        pause = None
        try:
            pause = await in_thread(driver.look)
        except Fault as fault:
            log.warning("site recovery could not be driven", cause=str(fault))
        except Exception:
            # A defect that one vault brings out must not end the operator's part for all others.
            log.exception("the driver of site recovery broke")
        await asyncio.sleep(min(LONGEST.total_seconds(), max(every.total_seconds(), pause or 0.0)))
