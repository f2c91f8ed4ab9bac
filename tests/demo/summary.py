"""What the demo says at the end: a table for people, `build/demo.json` for everything else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass
class Step:
    """One step of the demo and how it went."""

    name: str
    seconds: float = 0.0
    ok: bool = False


@dataclass
class Summary:
    """Everything that was measured; becomes `build/demo.json`."""

    steps: list[Step] = field(default_factory=list)
    initial_replication: dict[str, Any] = field(default_factory=dict)
    test_failover: dict[str, Any] = field(default_factory=dict)
    failover: dict[str, Any] = field(default_factory=dict)
    reprotect: dict[str, Any] = field(default_factory=dict)
    failback: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether every step was fine and every check held."""
        checks = [self.test_failover.get("disks_match"), self.failover.get("disks_match")]
        checks += [self.test_failover.get("database_ok"), self.failover.get("database_ok")]
        checks += [bool(self.reprotect), self.failback.get("disks_equal")]
        checks += [move.get("lost_transactions") == 0 for move in (self.failover, self.failback)]
        return not self.error and bool(self.steps) and all(step.ok for step in self.steps) and all(checks)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step; it is ok if its block ends without an exception."""
        step = Step(name)
        self.steps.append(step)
        began = time.monotonic()
        try:
            yield step
            step.ok = True
        finally:
            step.seconds = round(time.monotonic() - began, 2)

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"ok": self.ok, **asdict(self)}, indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title="Farshore demo", show_header=False, title_justify="left")
        for step in self.steps:
            mark = "[green]ok[/]" if step.ok else "[red]FAILED[/]"
            table.add_row(mark, step.name, f"{step.seconds:.1f} s")
        console.print(table)
        facts = Table(show_header=False, box=None)
        for title, values in (
            ("initial replication", self.initial_replication),
            ("test failover", self.test_failover),
            ("failover", self.failover),
            ("reprotect", self.reprotect),
            ("failback", self.failback),
        ):
            facts.add_row(
                title, ", ".join(f"{key.replace('_', ' ')}: {_shown(key, one)}" for key, one in values.items())
            )
        console.print(facts)
        console.print("[bold green]everything held[/]" if self.ok else f"[bold red]failed:[/] {self.error}")


def _shown(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if "bytes" in key:
        return f"{value / 2**20:.1f} MiB"
    if key.endswith("seconds"):
        return f"{value:.1f}"
    return str(value)
