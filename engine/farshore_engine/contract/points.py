"""Recovery points as users see them, and the one pure function that turns a selector into a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.model import Status

LISTED = 5  # points that a fault names


class Consistency(StrEnum):
    """What a point promises; the values are those of the wire protocol."""

    CRASH = "crash"
    APP = "app"
    UNMARKED = "unmarked"


class Selector(StrEnum):
    """The selectors that are words; anything else is a point's name or an RFC 3339 time."""

    LATEST = "Latest"
    LATEST_PROCESSED = "LatestProcessed"
    LATEST_APP = "LatestAppConsistent"
    LATEST_CRASH = "LatestCrashConsistent"


class GroupCut(Status):
    """One instant at which all machines of a consistency group were frozen; the point of each carries it."""

    name: str
    """Name of the consistency group."""
    id: str
    """Id of this cut: the points of one instant have the same."""
    members: tuple[str, ...] = ()
    """Machine ids (`<namespace>.<name>`) of the machines that were cut, sorted."""


class RecoveryPoint(Status):
    """One recovery point. `time` is the instant of the freeze, in UTC; sizes in bytes."""

    name: str
    """Name of the point, unique in the machine's chain."""
    slot: int
    """Number of its slot in the chain."""
    time: datetime
    """Instant of the freeze, in UTC: what the disks held then is what the point restores."""
    consistency: Consistency
    """crash, app (application-consistent), or unmarked when neither can be promised."""
    notes: tuple[str, ...] = ()
    """What limits its consistency, and notes of drills."""
    bytes_changed: int = 0
    """Bytes in 64 KiB blocks that this point wrote, before compression."""
    bytes_stored: int = 0
    """Bytes that this point added to the vault."""
    disk_bytes: int = 0
    """Bytes of all its disks."""
    pins: tuple[str, ...] = ()
    """Runs, drills and exports that keep the point from being pruned."""
    locked_until: datetime | None = None
    """Until then nobody can delete the point; absent in a vault without immutability."""
    epoch: int = 0
    """Epoch of the writer."""
    writer: str = ""
    """Process server that wrote it."""
    group: GroupCut | None = None
    """The cut of its consistency group that it belongs to; absent for a point that the machine took alone."""

    @property
    def pinned(self) -> bool:
        """Whether a run, drill or export holds the point."""
        return bool(self.pins)


def point_name(time: datetime, slot: int) -> str:
    """Return the name of the point frozen at `time` in `slot`: readable, unique in its chain, sorted by time."""
    return f"p-{time.astimezone(UTC):%Y%m%dt%H%M%Sz}-{slot}"


def parse_time(text: str) -> datetime | None:
    """Return the RFC 3339 time in `text` in UTC, or None when it is none (a time without zone is none)."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo is not None and "T" in text.upper() else None


def resolve(selector: str, points: Sequence[RecoveryPoint], now: datetime) -> RecoveryPoint:
    """Return the point that `selector` means.

    `Latest` equals `LatestProcessed` here: committing what is left in a spool is done before. Newest means newest
    by time of the freeze, then by slot. A time means the newest point that is not after it. An app-consistent point
    is crash-consistent too.

    Raises:
        StopFault: nothing matches, the selector is not understood, or its time is in the future; the fault lists
            what exists.
    """
    ordered = sorted(points, key=lambda p: (p.time, p.slot))
    if not ordered:
        raise StopFault(
            f"the vault holds no recovery point, so {selector} matches nothing",
            "Wait until the initial replication has finished; check with `farshore points`",
            reason="NoRecoveryPoint",
        )
    if selector in (Selector.LATEST, Selector.LATEST_PROCESSED):
        return ordered[-1]
    if selector in (Selector.LATEST_APP, Selector.LATEST_CRASH):
        wanted = (Consistency.APP,) if selector == Selector.LATEST_APP else (Consistency.APP, Consistency.CRASH)
        matches = [p for p in ordered if p.consistency in wanted]
        return matches[-1] if matches else _nothing(f"no point is {wanted[-1].value}-consistent", ordered)
    for point in ordered:
        if point.name == selector:
            return point
    return _by_time(selector, ordered, now)


def newest_group_cut(points: Mapping[str, Sequence[RecoveryPoint]]) -> dict[str, RecoveryPoint] | None:
    """Return the points of the newest instant that all machines have, by machine id; None if there is none.

    `points` holds the visible points of each machine. A cut counts only if each machine given was in it, every member
    that it names is given, and each of their points is there: one that is missing was never committed, or pruned.
    """
    cuts: dict[str, dict[str, RecoveryPoint]] = {}
    for machine, its in points.items():
        for point in its:
            if point.group is not None:
                cuts.setdefault(point.group.id, {})[machine] = point
    whole = [found for found in cuts.values() if set(found) == set(points) and _whole(found)]
    return max(whole, key=lambda found: max((p.time, p.slot) for p in found.values()), default=None)


def _whole(found: Mapping[str, RecoveryPoint]) -> bool:
    return all(point.group is not None and set(point.group.members) == set(found) for point in found.values())


def _by_time(selector: str, ordered: list[RecoveryPoint], now: datetime) -> RecoveryPoint:
    time = parse_time(selector)
    if time is None:
        return _nothing(f"there is no recovery point named {selector!r}, and it is not an RFC 3339 time", ordered)
    if time > now:
        return _nothing(f"{selector} is in the future (it is {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ})", ordered)
    matches = [p for p in ordered if p.time <= time]
    return matches[-1] if matches else _nothing(f"no point is as old as {selector}", ordered)


def _nothing(message: str, ordered: list[RecoveryPoint]) -> RecoveryPoint:
    newest = ", ".join(f"{p.name} ({p.consistency.value})" for p in reversed(ordered[-LISTED:]))
    more = f" and {len(ordered) - LISTED} older ones back to {ordered[0].name}" if len(ordered) > LISTED else ""
    words = ", ".join(Selector)
    raise StopFault(message, f"Choose {words}, a time, or one of: {newest}{more}", reason="NoSuchRecoveryPoint")
