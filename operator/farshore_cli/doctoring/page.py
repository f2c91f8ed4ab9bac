"""A checklist as people and programs read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from farshore_cli.formats import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from farshore_engine.contract.replication import Check


def show(name: str, checks: Sequence[Check], output: Format, verdicts: tuple[str, str] | None = None) -> None:
    """Print a checklist; ends with exit code 1 if there are errors. `verdicts` as for `page`."""
    from rich.console import Console

    from farshore_engine.contract.replication import CheckResult

    if output is Format.JSON:
        print(json.dumps([check.model_dump(mode="json", by_alias=True) for check in checks], indent=2))
    else:
        Console(highlight=False).print(page(name, checks, verdicts))
    if any(check.result is CheckResult.ERROR for check in checks):
        raise typer.Exit(1)


def page(name: str, checks: Sequence[Check], verdicts: tuple[str, str] | None = None) -> Group:
    """Return the checklist as a table, a remedy under each check that needs one, and a verdict.

    Args:
        verdicts: what is said before the name, without errors and with some; by default, of protecting a machine.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from farshore_engine.contract.replication import CheckResult

    marks = {
        CheckResult.PASSED: ("ok", "green"),
        CheckResult.WARNING: ("warning", "yellow"),
        CheckResult.ERROR: ("ERROR", "bold red"),
        CheckResult.SKIPPED: ("skipped", "bright_black"),
    }
    table = Table("CHECK", "RESULT", "WHAT WAS FOUND", box=None)
    for check in checks:
        what = Text(check.message)
        if check.remedy and check.result in (CheckResult.WARNING, CheckResult.ERROR):
            what.append(f"\n→ {check.remedy}", "bold")
        table.add_row(check.name, Text(*marks[check.result]), what)
    errors = sum(check.result is CheckResult.ERROR for check in checks)
    warnings = sum(check.result is CheckResult.WARNING for check in checks)
    good, bad = (
        (f"{word} {name}" for word in verdicts)
        if verdicts
        else (
            f"{name} can be protected",
            f"{name} cannot be protected yet",
        )
    )
    verdict = Text(f"{bad}: {_count(errors, 'error')}", "bold red") if errors else Text(good, "bold green")
    if warnings:
        verdict.append(f", {_count(warnings, 'warning')}", "yellow")
    return Group(table, Text(""), verdict)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
