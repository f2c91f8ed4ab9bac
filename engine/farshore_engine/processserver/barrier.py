"""One attempt to cut the machines of a consistency group at one instant. Pure: events go in, what to tell comes out.

    asked -> every member says PointReady -> FreezeNow to all -> every member says Frozen -> Cut to all -> PointEnds

Every member that says PointEnd has been frozen from its Frozen until it had received Cut, so all of them were frozen
when Cut was sent. Before the cut, one member that fails or is late calls the attempt off for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum

READY_SECONDS = 180.0  # from the first member's order to the last one's PointReady
SHORT_READY_SECONDS = 45.0  # the same for a group that failed again and again: the others must not wait long for it


class Stage(StrEnum):
    """Where the attempt is."""

    GATHERING = "gathering"
    FREEZING = "freezing"
    CUT = "cut"  # the instant is over; the machines send what they read
    DONE = "done"
    CALLED_OFF = "called off"


class Word(Enum):
    """What is to be told to all members."""

    NOTHING = 0
    FREEZE = 1
    CUT = 2
    CALL_OFF = 3


@dataclass
class Barrier:
    """The attempt `id` of `members`, begun at `began`; times are monotonic seconds, but for the instant of the cut.

    Attributes:
        ready_seconds: how long the members may take until all are ready.
        freeze_seconds: how long a member may be frozen at most; by then all must be.
        failed: the members that failed, and why.
        cut_at: the instant at which all were frozen.
    """

    id: str
    members: frozenset[str]
    began: float
    freeze_seconds: float
    ready_seconds: float = READY_SECONDS
    stage: Stage = Stage.GATHERING
    asked: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    cut_at: datetime | None = None
    _freezing_since: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing more can happen."""
        return self.stage in (Stage.DONE, Stage.CALLED_OFF)

    def on_ready(self, member: str, now: float) -> Word:
        """A member can freeze at once."""
        if self.stage is not Stage.GATHERING or member not in self.members:
            return Word.NOTHING
        self.ready.add(member)
        if self.ready != self.members:
            return Word.NOTHING
        self.stage, self._freezing_since = Stage.FREEZING, now
        return Word.FREEZE

    def on_frozen(self, member: str, now: datetime) -> Word:
        """A member is frozen; `now` becomes the instant of the cut if it is the last."""
        if self.stage is not Stage.FREEZING or member not in self.members:
            return Word.NOTHING
        self.frozen.add(member)
        if self.frozen != self.members:
            return Word.NOTHING
        self.stage, self.cut_at = Stage.CUT, now
        return Word.CUT

    def on_end(self, member: str) -> bool:
        """A member sent all of its point; returns whether that point belongs to the cut."""
        if self.stage is not Stage.CUT or member not in self.members or member in self.failed:
            return False
        self.ended.add(member)
        self._finish()
        return True

    def on_failure(self, member: str, why: str) -> Word:
        """A member gave up, or is gone. After the cut that is its own loss: the cut is then never whole."""
        if self.over or member not in self.members or member in self.ended:
            return Word.NOTHING
        self.failed.setdefault(member, why)
        if self.stage is Stage.CUT:
            self._finish()
            return Word.NOTHING
        self.stage = Stage.CALLED_OFF
        return Word.CALL_OFF

    def on_time(self, now: float) -> Word:
        """Call the attempt off when a stage before the cut takes too long."""
        if self.stage is Stage.GATHERING and now - self.began > self.ready_seconds:
            return self._late(self.members - self.ready, f"it was not ready within {self.ready_seconds:.0f} s")
        if self.stage is Stage.FREEZING and now - self._freezing_since > self.freeze_seconds:
            return self._late(self.members - self.frozen, f"it was not frozen within {self.freeze_seconds:.0f} s")
        return Word.NOTHING

    def _late(self, members: Iterable[str], why: str) -> Word:
        for member in members:
            self.failed.setdefault(member, why)
        self.stage = Stage.CALLED_OFF
        return Word.CALL_OFF

    def _finish(self) -> None:
        if self.ended | self.failed.keys() == self.members:
            self.stage = Stage.CALLED_OFF if self.failed else Stage.DONE
