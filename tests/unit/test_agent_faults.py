"""What the agent does when a part of it, or the other side, fails again and again."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from farshore_engine.agent import agent as module
from farshore_engine.agent import watchdog
from farshore_engine.agent.agent import Agent
from farshore_engine.agent.freezing import FreezeFailed, Freezer, Opened
from farshore_engine.agent.hooks import Hooks
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.parts import Identity
from farshore_engine.agent.point import PointMaker, PointOrder
from farshore_engine.agent.watchdog import Watchdog, WatchdogGone
from farshore_engine.wire.frames import PeerClosed
from farshore_engine.wire.messages import Consistency


def test_sessions_that_end_at_once_are_begun_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process server that drops every session behind its Welcome was dialled twice a second by every machine."""
    waits: list[float] = []

    class Stop:
        def is_set(self) -> bool:
            return len(waits) >= 12

        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    class Ended:
        def __init__(self, *_: object) -> None:
            pass

        def run(self) -> None:
            raise PeerClosed("replication is being opened")

        def close(self) -> None:
            pass

    monkeypatch.setattr(module, "dial", lambda server, context: Ended())
    monkeypatch.setattr(module, "Session", Ended)
    agent = object.__new__(Agent)
    server = type("Server", (), {"host": "ps", "port": 9443})
    agent._config = cast(Any, type("Config", (), {"servers": (server,)}))
    agent._reread, agent._stop = None, cast(threading.Event, Stop())
    identity = Identity("demo.vm", "s1", "boot", welcomed=True)
    parts = type("Parts", (), {"ledger": type("Ledger", (), {"acked": 0})})
    agent._keep_connected(cast(Any, None), identity, cast(Any, None), cast(Any, parts))
    assert waits[0] < 1
    assert min(waits[-3:]) >= 15


def test_a_watchdog_that_answers_late_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its late answer was taken for that to the next question, and so on: no point was ever made again."""
    guard = Watchdog((sys.executable,))
    monkeypatch.setattr(watchdog, "ANSWER_SECONDS", 0.2)
    guard.start()
    first = guard.pid
    assert first is not None
    subprocess.run(["kill", "-STOP", str(first)], check=True)
    with pytest.raises(WatchdogGone):
        guard.arm([], 1.0)
    monkeypatch.setattr(watchdog, "ANSWER_SECONDS", 60.0)
    guard.start()
    try:
        assert guard.pid not in (None, first)
        guard.arm([], 300.0)
        assert guard.disarm() is False
    finally:
        guard.stop()


class LosingTracker:
    """Loses an event between the last two barriers: that of a write in the freeze."""

    name, exact = "losing", True

    def __init__(self, ledger: Ledger, at: int) -> None:
        self.ledger, self.at, self.barriers = ledger, at, 0

    def barrier(self) -> None:
        self.barriers += 1
        if self.barriers == self.at:
            self.ledger.lost("a", "the trace buffer overflowed")


class NoFreeze:
    def open(self, mounts: list[object]) -> Opened:
        return Opened([], [])

    def flush(self, opened: Opened) -> None: ...

    def freeze(self, opened: Opened, bound: float) -> None: ...

    def thaw(self, opened: Opened) -> None: ...

    def close(self, opened: Opened) -> None: ...


@pytest.mark.parametrize("at", [1, 2, 3], ids=["before the freeze", "at its begin", "in it"])
def test_no_point_is_made_when_events_were_lost(at: int) -> None:
    """Lost inside the freeze they went unnoticed: what cannot be frozen may have written under the reads."""
    ledger = Ledger({"a": 8})
    tracker = LosingTracker(ledger, at)

    class Outlet:
        def check_point(self, point: str) -> None:
            if ledger.waiting(Need.UNVERIFIED):
                raise FreezeFailed("ResyncRequired", "writes may have gone unseen")

    with ThreadPoolExecutor(1) as workers:
        maker = PointMaker(
            ledger, cast(Any, tracker), {}, cast(Freezer, NoFreeze()), workers, (1 << 16, 1 << 16), cast(Hooks, None)
        )
        with pytest.raises(FreezeFailed, match="unseen"):
            maker.make(PointOrder("p", Consistency.CRASH, [], 10.0, 1 << 16), cast(Any, None), cast(Any, Outlet()))
