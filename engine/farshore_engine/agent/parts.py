"""What a session is given: the machine, the agent's long-lived parts and memory, and the ways in which it ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from farshore_engine.agent.final import PowerOff, no_power_off
from farshore_engine.agent.hooks import Hooks
from farshore_engine.agent.ledger import Ledger
from farshore_engine.agent.mounts import Mount
from farshore_engine.agent.pacing import TokenBucket
from farshore_engine.agent.point import PointMaker
from farshore_engine.agent.sampling import SampleCursor
from farshore_engine.agent.source import Reader
from farshore_engine.agent.tracker.interface import Tracker
from farshore_engine.wire.messages import DiskInfo, Refuse


class Refused(Exception):
    """The process server will not talk now."""

    def __init__(self, refuse: Refuse) -> None:
        super().__init__(f"{refuse.reason}: {refuse.message}")
        self.retry_after = refuse.retry_after


class Stopping(Exception):
    """The agent is asked to end."""


class DisksChanged(Exception):
    """A disk has another size, or other disks are there: everything begins anew."""


@dataclass(slots=True)
class Identity:
    """What the agent is and remembers from one connection to the next."""

    machine_id: str
    session: str
    boot_id: str
    spool: str = ""
    welcomed: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """What a session works on.

    `mounts` returns the file systems of the protected disks now, `describe` the machine description, `refresh` sets
    the excluded blocks (swap) anew, and `changed` says whether the disks are no longer those of the ledger.
    """

    disks: tuple[DiskInfo, ...]
    readers: dict[str, Reader]
    tracker: Tracker
    tracker_reason: str
    mounts: Callable[[], list[Mount]]
    describe: Callable[[], dict[str, Any]]
    refresh: Callable[[], None]
    changed: Callable[[], bool]


@dataclass(slots=True)
class Parts:
    """The agent's long-lived parts that a session uses."""

    ledger: Ledger
    points: PointMaker
    workers: Executor
    unacknowledged_limit: int
    freeze_bound: float
    stopping: Callable[[], bool]
    pace: TokenBucket = field(default_factory=TokenBucket)
    sampled: SampleCursor = field(default_factory=SampleCursor)
    services: Hooks | None = None  # that stop them for a last point
    power_off: PowerOff = no_power_off
