"""How a selector becomes a point, and what a person reads when it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import Consistency, RecoveryPoint, point_name, resolve

NOON = datetime(2025, 3, 10, 12, 0, tzinfo=UTC)
CRASH, APP, UNMARKED = Consistency.CRASH, Consistency.APP, Consistency.UNMARKED


def make(minute: int, slot: int, consistency: Consistency) -> RecoveryPoint:
    time = NOON + timedelta(minutes=minute)
    return RecoveryPoint(name=point_name(time, slot), slot=slot, time=time, consistency=consistency)


POINTS = [make(0, 1, CRASH), make(5, 2, APP), make(10, 3, CRASH), make(15, 5, UNMARKED)]
NOW = NOON + timedelta(minutes=20)


def test_a_name_is_readable_and_sorts_by_time() -> None:
    assert point_name(datetime(2025, 3, 10, 13, 0, 1, 999999, tzinfo=UTC), 42) == "p-20250310t130001z-42"
    names = [p.name for p in POINTS]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("selector", "slot"),
    [
        ("Latest", 5),
        ("LatestProcessed", 5),
        ("LatestCrashConsistent", 3),
        ("LatestAppConsistent", 2),
        ("p-20250310t120500z-2", 2),
        ("2025-03-10T12:14:59Z", 3),
        ("2025-03-10T12:10:00Z", 3),
        ("2025-03-10T14:09:59.5+02:00", 2),
    ],
)
def test_what_a_selector_means(selector: str, slot: int) -> None:
    for points in (POINTS, POINTS[::-1]):
        assert resolve(selector, points, NOW).slot == slot


def test_an_app_consistent_point_is_crash_consistent_too() -> None:
    assert resolve("LatestCrashConsistent", POINTS[:2], NOW).slot == 2


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        pytest.param("p-20250310t120500z-9", "no recovery point named", id="a name that is not there"),
        pytest.param("latest", "no recovery point named", id="a word in the wrong case"),
        pytest.param("2025-03-10T11:59:59Z", "no point is as old as", id="before the oldest"),
        pytest.param("2025-03-10T12:20:01Z", "in the future", id="a time to come"),
        pytest.param("2025-03-10T12:10:00", "no recovery point named", id="a time without zone"),
        pytest.param("2025-03-10", "no recovery point named", id="a day"),
    ],
)
def test_what_matches_nothing_says_what_exists(selector: str, says: str) -> None:
    with pytest.raises(StopFault, match=says) as caught:
        resolve(selector, POINTS, NOW)
    assert "p-20250310t121500z-5 (unmarked)" in caught.value.remedy
    assert "LatestAppConsistent" in caught.value.remedy
    assert caught.value.reason == "NoSuchRecoveryPoint"


def test_many_points_are_not_all_named() -> None:
    many = [make(m, m + 1, CRASH) for m in range(15)]
    with pytest.raises(StopFault, match="no point is app-consistent") as caught:
        resolve("LatestAppConsistent", many, NOW)
    assert "and 10 older ones back to p-20250310t120000z-1" in caught.value.remedy


def test_without_points_it_says_to_wait() -> None:
    with pytest.raises(StopFault) as caught:
        resolve("Latest", [], NOW)
    assert caught.value.reason == "NoRecoveryPoint"
