"""How recovery points are shown: the same table whether the cluster was asked for them or the vault itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.table import Table

from farshore_cli.status import span
from farshore_engine.contract.points import RecoveryPoint


def point_table(
    found: Sequence[RecoveryPoint], now: datetime, reasons: Mapping[int, Sequence[str]] | None = None
) -> Table:
    """Return one row for each point, in the given order.

    `reasons`: why retention keeps the point in a slot; shown instead of what holds it, which is among them.
    """
    table = Table(box=None)
    last = "HELD BY" if reasons is None else "KEPT BECAUSE"
    grouped = ("CUT",) if any(point.group for point in found) else ()  # points of one instant show the same
    for title in ("POINT", "TIME (UTC)", "AGE", "CONSISTENCY", *grouped, "CHANGED", "STORED", last):
        table.add_column(
            title, no_wrap=title != last or reasons is None, overflow="fold" if title == last else "ignore"
        )
    for point in found:
        row = [point.name, f"{point.time:%Y-%m-%d %H:%M:%S}", span(now - point.time), point.consistency.value]
        why = point.pins if reasons is None else reasons.get(point.slot) or ("nothing: the next prune takes it",)
        if grouped:
            row.append(f"{point.group.name}/{point.group.id}" if point.group else "alone")
        table.add_row(*row, size_text(point.bytes_changed), size_text(point.bytes_stored), ", ".join(why))
    return table


def size_text(count: int) -> str:
    """Return a number of bytes for people."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
