"""`farshore points --explain`: every point with the rules that keep it."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console
from tests.unit.vault.test_retention import NOW, point

from farshore_cli.commands.points import explained
from farshore_cli.pointtable import point_table
from farshore_engine.contract.assignment import Retention
from farshore_engine.contract.points import GroupCut


def test_the_reasons_stand_beside_the_points() -> None:
    points = [point(0, 4), point(30, 3, app=True, pins=("drill-1",)), point(700, 2), point(5000, 1)]
    reasons = explained(points, Retention(keep_all=timedelta(hours=1), daily=1), NOW)
    console = Console(width=200, record=True)
    console.print(point_table(points, NOW, reasons))
    lines = console.export_text().splitlines()
    assert "KEPT BECAUSE" in lines[0] and "HELD BY" not in lines[0]
    assert "newest, younger than 1:00:00, daily 1" in lines[1]
    assert "pinned by drill-1" in lines[2] and "daily application-consistent 1" in lines[2]
    assert "nothing: the next prune takes it" in lines[3]


def test_points_of_one_instant_show_the_same_cut() -> None:
    cut = GroupCut(name="shop", id="5e1f", members=("demo.db", "demo.web"))
    points = [point(0, 4).model_copy(update={"group": cut}), point(30, 3)]
    console = Console(width=200, record=True)
    console.print(point_table(points, NOW))
    lines = console.export_text().splitlines()
    assert "CUT" in lines[0]
    assert "shop/5e1f" in lines[1]
    assert " alone " in lines[2]
