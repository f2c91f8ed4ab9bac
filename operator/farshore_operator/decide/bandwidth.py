"""Which bandwidth limit holds now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from farshore_operator.api.bandwidth import Bandwidth, BandwidthWindow, Weekday

_DAYS = tuple(Weekday)


def limit_at(bandwidth: Bandwidth | None, now: datetime) -> int:
    """Return the limit in bytes per second, 0 for none: that of the first window that is open, else the general one."""
    if bandwidth is None:
        return 0
    moment = now.astimezone(UTC)
    return next((window.limit for window in bandwidth.schedule if _open(window, moment)), bandwidth.limit)


def _open(window: BandwidthWindow, now: datetime) -> bool:
    time, begin, end = f"{now:%H:%M}", window.begin, window.to
    if begin < end:
        return begin <= time < end and _on(window, now)
    # Over midnight: the part after midnight belongs to the day on which the window began.
    return (time >= begin and _on(window, now)) or (time < end and _on(window, now - timedelta(days=1)))


def _on(window: BandwidthWindow, day: datetime) -> bool:
    return not window.days or _DAYS[day.weekday()] in window.days
