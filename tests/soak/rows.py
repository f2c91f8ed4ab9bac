"""What a soak found, as rows of a table and of build/soak.json, in the form of the bench's rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure or verdict. A row that `must` hold fails the soak when it is not met; the others are only told."""

    name: str
    value: float
    unit: str
    target: str
    met: bool
    must: bool = True
    note: str = ""


def table(rows: list[Row]) -> str:
    """Return the rows as text."""
    width = max(len(row.name) for row in rows)
    lines = [
        f"{row.name:{width}}  {row.value:>10g} {row.unit:8} {row.target:18} {'met' if row.met else 'MISSED'}"
        + (f"  {row.note}" if row.note else "")
        for row in rows
    ]
    return "\n".join(lines)


def write(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Write the rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
