"""Retention: which points are kept, and why. Pure, so that a person can see the reasons before anything is deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from farshore_engine.contract.assignment import Retention
from farshore_engine.contract.points import Consistency, RecoveryPoint


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """What to keep. A point is kept if any rule says so.

    keep_all: every point younger than this.
    at_least: never fewer than this many of the newest points, however old (the newest one is always kept).
    at_most: of the points that only `keep_all` holds, no more than this many of the newest; None for no limit.
    hourly, daily, weekly: the newest point of each of the last so many hours, days (UTC) and ISO weeks that have any,
        and beside it the newest application-consistent one.
    """

    keep_all: timedelta = timedelta(hours=24)
    at_least: int = 1
    at_most: int | None = None
    hourly: int = 0
    daily: int = 0
    weekly: int = 0

    @classmethod
    def of(cls, policy: Retention) -> RetentionRules:
        """Return the rules of a replication policy."""
        return cls(policy.keep_all, hourly=policy.hourly, daily=policy.daily, weekly=policy.weekly)


Bucket = Callable[[datetime], tuple[int, ...]]
TIERS: dict[str, Bucket] = {
    "hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "daily": lambda t: (t.year, t.month, t.day),
    "weekly": lambda t: tuple(t.isocalendar())[:2],
}


def retain(points: Sequence[RecoveryPoint], rules: RetentionRules, now: datetime) -> dict[int, list[str]]:
    """Return for the slot of every point the reasons to keep it; an empty list means that it has expired.

    Age is counted back from the newest point, or from `now` if that is earlier: while replication stands still,
    and when a clock jumps ahead, the points that there are stay. A lock ends at its time by `now`.
    """
    newest_first = sorted(points, key=lambda p: (p.time, p.slot), reverse=True)
    reasons: dict[int, list[str]] = {p.slot: [] for p in newest_first}
    if not newest_first:
        return reasons
    reference = min(now, newest_first[0].time)
    young = [p for p in newest_first if p.time > reference - rules.keep_all]
    for place, point in enumerate(newest_first):
        if point.pinned:
            reasons[point.slot].append("pinned by " + ", ".join(point.pins))
        if point.locked_until is not None and point.locked_until > now:
            reasons[point.slot].append(f"locked until {point.locked_until.astimezone(UTC):%Y-%m-%d %H:%M UTC}")
        if place == 0:
            reasons[point.slot].append("newest")
        elif place < rules.at_least:
            reasons[point.slot].append(f"one of the newest {rules.at_least}")
    for point in young[: rules.at_most]:
        reasons[point.slot].append(f"younger than {rules.keep_all}")
    for tier, limit in (("hourly", rules.hourly), ("daily", rules.daily), ("weekly", rules.weekly)):
        app = [p for p in newest_first if p.consistency is Consistency.APP]
        _keep_tier(newest_first, tier, limit, tier, reasons)
        _keep_tier(app, tier, limit, f"{tier} application-consistent", reasons)
    return reasons


def _keep_tier(
    newest_first: Sequence[RecoveryPoint], tier: str, limit: int, name: str, reasons: Mapping[int, list[str]]
) -> None:
    seen: set[tuple[int, ...]] = set()
    for point in newest_first:
        bucket = TIERS[tier](point.time.astimezone(UTC))
        if bucket not in seen and len(seen) < limit:
            seen.add(bucket)
            reasons[point.slot].append(f"{name} {len(seen)}")
