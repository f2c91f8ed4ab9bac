"""What the bench found: rows for people (a table) and for programs (JSON), both from the same objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: what was measured.
        value: the figure, in `unit`.
        target: what it should be, in words; empty where there is nothing to reach.
        met: whether it was reached in this run; None without a target.
        peers: the same figure of others, measured in the same run.
    """

    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    peers: dict[str, float] = field(default_factory=dict)


def figure(value: float) -> str:
    """Return three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title="Farshore, side by side in one run", title_justify="left", show_lines=False)
    for title, justify in (("", "left"), ("value", "right"), ("unit", "left"), ("target", "left"), ("peers", "left")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        colour = {True: "green", False: "red", None: ""}[row.met]
        target = f"[{colour}]{row.target}: {'met' if row.met else 'missed'}[/]" if colour else row.target
        peers = "\n".join(f"{name} {figure(value)}" for name, value in row.peers.items())
        table.add_row(row.name, figure(row.value), row.unit, target, peers)
    console.print(table)


def write(rows: Sequence[Row], path: Path) -> None:
    """Write `{"rows": [...]}`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n")
