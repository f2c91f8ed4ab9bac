"""What a process server keeps in memory of a machine's points: the newest few, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass

from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.processserver.schedule import Asked

RECENT = 5


@dataclass(frozen=True)
class Points:
    """What is known of the machine's points."""

    count: int = 0
    recent: tuple[RecoveryPoint, ...] = ()  # newest first
    last_app: RecoveryPoint | None = None
    oldest: RecoveryPoint | None = None

    def with_new(self, point: RecoveryPoint) -> Points:
        """Return the state after another point became visible."""
        app = point if point.consistency is Consistency.APP else self.last_app
        return Points(self.count + 1, (point, *self.recent)[:RECENT], app, self.oldest or point)

    @classmethod
    def of(cls, points: list[RecoveryPoint]) -> Points:
        """Return the state of a chain, `points` oldest first."""
        apps = [p for p in points if p.consistency is Consistency.APP]
        newest_first = tuple(reversed(points[-RECENT:]))
        return cls(len(points), newest_first, apps[-1] if apps else None, points[0] if points else None)

    @property
    def asked(self) -> Asked:
        """Return when points were last taken, as the schedule needs it."""
        return Asked(self.recent[0].time if self.recent else None, self.last_app.time if self.last_app else None)
