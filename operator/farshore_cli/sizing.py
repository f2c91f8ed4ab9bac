"""What protecting a machine takes, from how fast its disks change: link, spool, storage and cost. Pure.

Every number follows from what was measured and from the assumptions, which are shown beside it. Prices are the
reader's; without one there is no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from farshore_engine.contract.assignment import Retention

DAY = 86400.0
MONTH = 30 * DAY
TIERS = (("hourly", 3600.0), ("daily", DAY), ("weekly", 7 * DAY))


@dataclass(frozen=True)
class Sample:
    """What changed in a stretch of time: `seconds` long, `written` bytes.

    `stored` is what that took in the vault, None where nothing was stored.
    """

    seconds: float
    written: int
    stored: int | None = None


@dataclass(frozen=True)
class Prices:
    """Prices in one currency: of a GiB stored for a month, of a GiB sent. None for one that is not known."""

    gib_month: float | None = None
    gib_sent: float | None = None
    currency: str = ""


@dataclass(frozen=True)
class Assumptions:
    """What is not measured.

    Attributes:
        interval: between two points.
        ratio: bytes stored for a byte that changed; None takes the measured one, or 1 where there is none.
        outage: how long the vault may be out of reach before the spool is full.
        first_copy: how long the first copy may take.
        headroom: factor on the link, for what is not measured.
        link: bytes per second that there are; None to be told what is needed only.
    """

    interval: timedelta = timedelta(minutes=5)
    retention: Retention = field(default_factory=Retention)
    ratio: float | None = None
    outage: timedelta = timedelta(hours=4)
    first_copy: timedelta = timedelta(hours=24)
    headroom: float = 1.25
    link: int | None = None
    prices: Prices = Prices()


@dataclass(frozen=True)
class Sizing:
    """The answer. Rates in bytes per second, sizes in bytes; what cannot be told is None.

    Attributes:
        average, busiest: rate of changes over all, and in the busiest stretch.
        link_average, link_busiest, link_first: that the link must carry, headroom included.
        rpo_seconds: age of the newest point at worst, with the link that there is.
        first_seconds: that the first copy takes with it.
        storage: of the first copy and of all points that are kept, at most.
        monthly_sent: bytes that a month sends, without the first copy.
        cost_month: storage and what is sent, in the currency of the prices.
    """

    average: float
    busiest: float
    ratio: float
    measured_seconds: float
    link_average: float
    link_busiest: float
    link_first: float
    rpo_seconds: float | None
    first_seconds: float | None
    spool: int
    storage: int
    storage_first: int
    monthly_sent: int
    cost_month: float | None
    notes: tuple[str, ...] = ()


def size(samples: Sequence[Sample], disk_bytes: int, given: Assumptions) -> Sizing:
    """Return what the machine takes. Without samples it is sized as one that never changes.

    Args:
        disk_bytes: of all replicated disks; no stretch of time changes more of them than that.
    """
    seconds = sum(one.seconds for one in samples)
    average = sum(one.written for one in samples) / seconds if seconds > 0 else 0.0
    busiest = max((one.written / one.seconds for one in samples if one.seconds > 0), default=0.0)
    ratio = _ratio(samples) if given.ratio is None else given.ratio
    interval = max(1.0, given.interval.total_seconds())
    at_once = min(disk_bytes, busiest * interval)  # of one point at the busiest time
    first = round(disk_bytes * ratio)
    storage = round(first + kept_changes(average, disk_bytes, given.retention) * ratio)
    sent = round(average * ratio * MONTH)
    outage = min(disk_bytes, busiest * given.outage.total_seconds())
    return Sizing(
        average=average,
        busiest=busiest,
        ratio=ratio,
        measured_seconds=seconds,
        link_average=average * ratio * given.headroom,
        link_busiest=at_once / interval * ratio * given.headroom,
        link_first=first / max(1.0, given.first_copy.total_seconds()) * given.headroom,
        rpo_seconds=_rpo(at_once * ratio, busiest * ratio, interval, given.link),
        first_seconds=first / given.link if given.link else None,
        spool=round((outage + at_once) * ratio),
        storage=storage,
        storage_first=first,
        monthly_sent=sent,
        cost_month=_cost(storage, sent, given.prices),
        notes=_notes(samples, average * ratio, busiest * ratio, given),
    )


def kept_changes(average: float, disk_bytes: int, retention: Retention) -> float:
    """Return the bytes of changes that all kept points hold together, at most.

    Every point of `keep_all` is kept, so all that changed in it is. Each point of a tier holds what changed since the
    one before it, and never more than the disks; those that lie among the points of a closer tier are counted there.
    """
    covered = retention.keep_all.total_seconds()
    found = average * covered
    counts = {"hourly": retention.hourly, "daily": retention.daily, "weekly": retention.weekly}
    for tier, spacing in TIERS:
        older = max(0.0, counts[tier] - covered / spacing)  # the younger ones are among those counted before
        found += older * min(disk_bytes, average * spacing)
        covered = max(covered, counts[tier] * spacing)
    return found


def _ratio(samples: Sequence[Sample]) -> float:
    known = [one for one in samples if one.stored is not None]
    written = sum(one.written for one in known)
    return sum(one.stored or 0 for one in known) / written if written else 1.0


def _rpo(at_once: float, rate: float, interval: float, link: int | None) -> float | None:
    """Return how old the newest point gets: an interval, and the time to send the next. None if that never ends."""
    if not link or rate >= link:
        return None
    return interval + at_once / link


def _cost(storage: int, sent: int, prices: Prices) -> float | None:
    if prices.gib_month is None and prices.gib_sent is None:
        return None
    gib = float(1 << 30)
    return storage / gib * (prices.gib_month or 0.0) + sent / gib * (prices.gib_sent or 0.0)


def _notes(samples: Sequence[Sample], average: float, busiest: float, given: Assumptions) -> tuple[str, ...]:
    found = []
    seconds = sum(one.seconds for one in samples)
    if seconds < DAY:
        found.append(f"measured for {seconds / 3600:.1f} h only: a day and a busy one tell more")
    if given.ratio is None and not any(one.stored for one in samples):
        found.append("how well the data compresses is not known: sized without compression (--ratio says otherwise)")
    if given.link and average >= given.link:
        found.append("the link is slower than the machine changes: points would fall behind without end")
    elif given.link and busiest >= given.link:
        found.append("at the busiest time points fall behind on this link, and catch up later")
    return tuple(found)
