"""Retention as a table, and its promises for any points and rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farshore_engine.contract.assignment import Retention
from farshore_engine.contract.points import Consistency, RecoveryPoint, point_name
from farshore_engine.vault.retention import TIERS, RetentionRules, retain

NOW = datetime(2025, 3, 10, 12, 0, tzinfo=UTC)
NONE = timedelta(0)


def point(minutes_ago: float, slot: int, *, app: bool = False, pins: tuple[str, ...] = ()) -> RecoveryPoint:
    time = NOW - timedelta(minutes=minutes_ago)
    consistency = Consistency.APP if app else Consistency.CRASH
    return RecoveryPoint(name=point_name(time, slot), slot=slot, time=time, consistency=consistency, pins=pins)


def series(minutes: list[float]) -> list[RecoveryPoint]:
    return [point(m, len(minutes) - n) for n, m in enumerate(minutes)]


def kept(points: list[RecoveryPoint], rules: RetentionRules, now: datetime = NOW) -> set[int]:
    return {slot for slot, reasons in retain(points, rules, now).items() if reasons}


@pytest.mark.parametrize(
    ("minutes", "rules", "expected"),
    [
        pytest.param([], RetentionRules(), set(), id="nothing"),
        pytest.param([0, 10, 20, 61], RetentionRules(timedelta(hours=1)), {4, 3, 2}, id="younger than an hour"),
        pytest.param([0, 60], RetentionRules(timedelta(hours=1)), {2}, id="exactly an hour old has expired"),
        pytest.param([5000], RetentionRules(NONE), {1}, id="the newest stays whatever its age"),
        pytest.param([5000, 5010, 6000], RetentionRules(timedelta(hours=1)), {3, 2}, id="age counts from the newest"),
        pytest.param([0, 1, 2, 3], RetentionRules(NONE, at_least=3), {4, 3, 2}, id="at least three"),
        pytest.param([0, 1, 2, 3], RetentionRules(timedelta(hours=1), at_most=2), {4, 3}, id="at most two"),
        pytest.param([0, 10, 70, 80, 130, 190], RetentionRules(NONE, hourly=3), {6, 5, 4}, id="three hours"),
        pytest.param(
            [0, 1440, 1500, 2880, 10000],
            RetentionRules(NONE, daily=3),
            {5, 4, 2},
            id="three days that have any",
        ),
        pytest.param([0, 60 * 24 * 7, 60 * 24 * 8], RetentionRules(NONE, weekly=2), {3, 2}, id="two weeks"),
    ],
)
def test_what_is_kept(minutes: list[float], rules: RetentionRules, expected: set[int]) -> None:
    assert kept(series(minutes), rules) == expected


def test_the_reasons_are_told() -> None:
    points = [point(0, 3), point(30, 2, pins=("run-1",)), point(500, 1, app=True)]
    assert retain(points, RetentionRules(timedelta(hours=1), hourly=1), NOW) == {
        3: ["newest", "younger than 1:00:00", "hourly 1"],
        2: ["pinned by run-1", "younger than 1:00:00"],
        1: ["hourly application-consistent 1"],
    }


def test_application_consistent_points_count_on_their_own() -> None:
    points = [point(0, 5), point(5, 4, app=True), point(10, 3), point(70, 2), point(75, 1, app=True)]
    assert kept(points, RetentionRules(NONE, hourly=2)) == {5, 4, 1}  # hours 12 and 11 of all, 11 and 10 of these


def test_a_clock_that_jumps_ahead_loses_nothing() -> None:
    points = series([0, 10, 20])
    assert kept(points, RetentionRules(timedelta(hours=1)), NOW + timedelta(days=3650)) == {1, 2, 3}


def test_a_point_from_the_future_does_not_age_the_others() -> None:
    points = [*series([0, 10, 20]), point(-60 * 24 * 365, 9)]
    assert kept(points, RetentionRules(timedelta(hours=1))) == {1, 2, 3, 9}


def test_the_policy_is_taken_over() -> None:
    policy = Retention(keep_all=timedelta(hours=3), hourly=1, daily=2, weekly=3)
    assert RetentionRules.of(policy) == RetentionRules(timedelta(hours=3), hourly=1, daily=2, weekly=3)


points = st.lists(
    st.tuples(st.integers(0, 100_000), st.booleans(), st.booleans()), min_size=1, max_size=30, unique_by=lambda t: t[0]
).map(
    lambda rows: [
        point(minutes, slot + 1, app=app, pins=("p",) if pinned else ())
        for slot, (minutes, app, pinned) in enumerate(sorted(rows, reverse=True))
    ]
)
rules = st.builds(
    RetentionRules,
    keep_all=st.integers(0, 5000).map(lambda m: timedelta(minutes=m)),
    at_least=st.integers(0, 5),
    at_most=st.none() | st.integers(0, 10),
    hourly=st.integers(0, 5),
    daily=st.integers(0, 5),
    weekly=st.integers(0, 3),
)


@given(points, rules, st.integers(-5000, 100_000))
def test_promises(points: list[RecoveryPoint], rules: RetentionRules, later: int) -> None:
    now = NOW + timedelta(minutes=later)
    stay = kept(points, rules, now)
    assert max(points, key=lambda p: (p.time, p.slot)).slot in stay
    assert {p.slot for p in points if p.pinned} <= stay
    assert len(stay) >= min(rules.at_least, len(points))
    survivors = [p for p in points if p.slot in stay]
    assert kept(survivors, rules, now) == stay  # a second prune at once takes nothing more


@given(points, rules, st.integers(0, 100_000))
def test_application_consistent_points_are_never_displaced_by_others(
    points: list[RecoveryPoint], rules: RetentionRules, later: int
) -> None:
    """What is kept of them as one an hour, a day and a week is the same whatever other points there are."""
    now = NOW + timedelta(minutes=later)
    app = [p for p in points if p.consistency is Consistency.APP]

    def tiers(some: list[RecoveryPoint]) -> dict[int, list[str]]:
        found = {
            slot: [r for r in why if "application-consistent" in r] for slot, why in retain(some, rules, now).items()
        }
        return {slot: why for slot, why in found.items() if why}

    assert tiers(points) == tiers(app)


@given(points, rules, st.integers(0, 100_000))
def test_of_each_bucket_the_newest_is_kept(points: list[RecoveryPoint], rules: RetentionRules, later: int) -> None:
    reasons = retain(points, rules, NOW + timedelta(minutes=later))
    for tier, limit in (("hourly", rules.hourly), ("daily", rules.daily), ("weekly", rules.weekly)):
        buckets: dict[tuple[int, ...], RecoveryPoint] = {}
        for one in points:
            bucket = TIERS[tier](one.time)
            buckets[bucket] = max(buckets.get(bucket, one), one, key=lambda p: (p.time, p.slot))
        newest = sorted(buckets.values(), key=lambda p: (p.time, p.slot), reverse=True)[:limit]
        held = [slot for slot, why in reasons.items() if any(r.startswith(f"{tier} ") and "app" not in r for r in why)]
        assert sorted(held) == sorted(p.slot for p in newest)


def test_a_locked_point_stays_until_its_lock_ends() -> None:
    until = NOW + timedelta(minutes=10)
    points = [point(0, 2), point(500, 1).model_copy(update={"locked_until": until})]
    assert retain(points, RetentionRules(NONE), NOW)[1] == ["locked until 2025-03-10 12:10 UTC"]
    assert retain(points, RetentionRules(NONE), until)[1] == []
