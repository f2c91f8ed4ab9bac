"""Runs the probes of a place, and shows for each point whether it is confirmed, contradicted, or not to be told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import typer

from farshore_cli.formats import Format
from farshore_cli.live.items import Answer, Area, Item, Told, cannot_tell
from farshore_engine.contract.faults import Fault

if TYPE_CHECKING:
    from rich.table import Table

SourceT = TypeVar("SourceT")
PAGE = "docs/azure-unverified.md"


@dataclass(frozen=True)
class Line:
    """One point, and what was seen of it."""

    area: Area
    name: str
    answer: Answer


def read(area: Area, items: Iterable[Item[SourceT]], source: SourceT) -> tuple[Line, ...]:
    """Ask every point of an area; one that cannot be asked is not to be told."""
    return tuple(Line(area, one.name, _answer(one, source)) for one in items)


def _answer(item: Item[SourceT], source: SourceT) -> Answer:
    if item.probe is None:
        return cannot_tell(item.why)
    try:
        return item.probe(source)
    except Fault as fault:
        return cannot_tell(fault.message)


def show(name: str, lines: Sequence[Line], output: Format) -> None:
    """Print the points; ends with exit code 1 if one of them is contradicted."""
    from rich.console import Console

    wrong = [one for one in lines if one.answer.told is Told.CONTRADICTED]
    if output is Format.JSON:
        found = [
            {"area": one.area, "item": one.name, "told": one.answer.told, "seen": one.answer.seen} for one in lines
        ]
        print(json.dumps(found, indent=2))
    else:
        console = Console(highlight=False)
        console.print(_table(lines))
        sure = sum(one.answer.told is Told.CONFIRMED for one in lines)
        console.print(
            f"\n{name}: {sure} confirmed, {len(wrong)} contradicted, {len(lines) - sure - len(wrong)} not told"
        )
        if wrong:
            console.print(f"please tell us what was contradicted: {PAGE} is wrong there", soft_wrap=True)
    if wrong:
        raise typer.Exit(1)


def _table(lines: Sequence[Line]) -> Table:
    from rich.table import Table
    from rich.text import Text

    shapes = {
        Told.CONFIRMED: ("confirmed", "green"),
        Told.CONTRADICTED: ("CONTRADICTED", "bold red"),
        Told.CANNOT_TELL: ("cannot tell", "bright_black"),
    }
    table = Table("INFERRED", "READING SAYS", "WHAT WAS SEEN", box=None)
    for one in lines:
        table.add_row(one.name, Text(*shapes[one.answer.told]), Text(one.answer.seen))
    return table
