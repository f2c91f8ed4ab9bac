"""When the next recovery point is due, and of which kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from farshore_engine.contract.assignment import Policy
from farshore_engine.wire.messages import Consistency


@dataclass(frozen=True)
class Asked:
    """When the last points were asked for; None while there was none."""

    any: datetime | None = None
    app: datetime | None = None

    def after(self, consistency: Consistency, now: datetime) -> Asked:
        """Return the state after a point was asked for at `now`."""
        return Asked(now, now if consistency is Consistency.APP else self.app)


def due(policy: Policy, asked: Asked, now: datetime) -> Consistency | None:
    """Return which kind of point should be asked for now, None if it is not time yet."""
    wants_app = policy.app_consistent_interval is not None
    if asked.any is None:
        return Consistency.APP if wants_app else Consistency.CRASH
    if policy.app_consistent_interval is not None and _passed(asked.app, policy.app_consistent_interval, now):
        return Consistency.APP
    return Consistency.CRASH if _passed(asked.any, policy.crash_consistent_interval, now) else None


def _passed(last: datetime | None, interval: timedelta, now: datetime) -> bool:
    return last is None or now - last >= interval or last > now
