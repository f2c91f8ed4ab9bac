"""Waits for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from farshore_engine.contract.faults import WaitFault

PATIENCE = 150.0
"""Seconds that a wait may take: less than the operator's resync, which would hide that something was missed."""


def eventually(test: Callable[[], bool], otherwise: str, within: float = PATIENCE) -> None:
    """Wait until `test` holds. An API server that does not answer in time is asked again."""
    deadline = time.monotonic() + within
    while True:
        with suppress(WaitFault):
            if test():
                return
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)
