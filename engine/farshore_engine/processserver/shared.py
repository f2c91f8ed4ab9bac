"""What all machines of a process server share, and what is known of a machine's agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from farshore_engine.contract.replication import Disk
from farshore_engine.processserver.bandwidth import FairBucket
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.encoders import FairEncoders
from farshore_engine.processserver.groups import Groups
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.vault.pace import Pace
from farshore_engine.wire.messages import Hello, SyncMode


@dataclass(frozen=True)
class Shared:
    """What all machines of a process server share. `freeze_bound` in seconds."""

    name: str
    budget: SpoolBudget
    encoders: Executor
    metrics: Metrics
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    upload_threads: int = 3
    freeze_bound: float = 10.0
    bandwidth_limit: Callable[[], int] = lambda: 0  # the appliance's, bytes per second, 0 for none

    @cached_property
    def bandwidth(self) -> FairBucket:
        """What holds all machines together to the appliance's limit."""
        return FairBucket(self.bandwidth_limit, self.monotonic)

    @cached_property
    def pace(self) -> Pace:
        """What holds the upkeep of all machines' vaults to a rate that does not disturb replication."""
        return Pace(clock=self.monotonic)

    @cached_property
    def groups(self) -> Groups:
        """The consistency groups."""
        return Groups(self.monotonic, self.now)

    def encoders_of(self, machine_id: str) -> Executor:
        """Return the encoders as one machine uses them: no machine keeps another from them."""
        return self.encoders.lane(machine_id) if isinstance(self.encoders, FairEncoders) else self.encoders

    def note_uploaded(self, machine_id: str, size: int) -> None:
        """Count bytes that reached the vault."""
        self.metrics.uploaded.labels(machine_id).inc(size)


@dataclass(frozen=True)
class Link:
    """The agent's side as last seen."""

    connected: bool = False
    version: str = ""
    tracker: str = ""
    tracker_reason: str = ""
    last_seen: datetime | None = None
    disks: tuple[Disk, ...] = ()
    mode: SyncMode | None = None  # the heaviest mode in which a disk is being brought up to date
    synced: bool = False
    resync_reason: str = ""
    clock_skew: float = 0.0  # seconds that the agent's clock is ahead

    @classmethod
    def of(cls, hello: Hello, mode: SyncMode | None, resync_reason: str, now: datetime, waited: float = 0.0) -> Link:
        """Return what a Hello tells; it was written at most `waited` seconds before `now`, or the clocks differ."""
        return cls(
            connected=True,
            version=hello.agent_version,
            tracker=hello.tracker,
            tracker_reason=hello.tracker_reason,
            last_seen=now,
            disks=tuple(Disk(id=d.id, name=d.name, size_bytes=d.size) for d in hello.disks),
            mode=mode,
            resync_reason=resync_reason,
            clock_skew=skew(hello.clock, now.timestamp(), waited),
        )


def skew(clock: float, now: float, waited: float) -> float:
    """Return by how many seconds a clock that showed `clock` up to `waited` seconds before `now` is ahead, at least.

    A process that was stalled between a message and its answer must not take the time that it lost for a difference.
    """
    earliest = now - waited
    return clock - now if clock > now else min(0.0, clock - earliest)
