"""Rounds before a freeze: they end when little is left, and when they do not help, with figures."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.precopy import ChurnOutrunsLink, PreCopy
from farshore_engine.blocks.grid import BLOCK_SIZE

MIB = 1 << 20
BLOCKS = 4096  # 256 MiB


class World:
    """A program that writes `churn` bytes a second into an area of `area` bytes, and a link that takes `link`."""

    def __init__(self, churn: int, link: int, area: int) -> None:
        self.now = 0.0
        self.ledger = Ledger({"disk": BLOCKS})
        self._churn, self._link, self._area = churn, link, area // BLOCK_SIZE
        self._written = self._place = 0.0

    def write(self, seconds: float) -> None:
        self.now += seconds
        self._written += seconds * self._churn / BLOCK_SIZE
        count = min(int(self._written - self._place), self._area)
        blocks = (np.arange(count, dtype=np.int64) + int(self._place)) % self._area
        self._place = int(self._written)
        self.ledger.mark("disk", blocks, blocks)

    def send_waiting(self, need: Need, disk: str, until: object = None) -> int:
        blocks = self.ledger.take(need, disk)
        self.ledger.settle(need, disk, blocks)
        self.write(blocks.size * BLOCK_SIZE / self._link)
        return int(blocks.size)


def precopy(world: World) -> PreCopy:
    return PreCopy(world.ledger, ["disk"], 32 * MIB, lambda: world.now)


def go(world: World, made: PreCopy) -> int:
    return made.run("p", lambda: None, cast(Any, world), 16 * MIB)


@pytest.mark.parametrize(
    ("churn", "link", "area", "rounds"),
    [
        pytest.param(1 * MIB, 50 * MIB, 200 * MIB, 0, id="little is written"),
        pytest.param(20 * MIB, 50 * MIB, 200 * MIB, 3, id="a fast link"),
        pytest.param(45 * MIB, 50 * MIB, 200 * MIB, 40, id="a link that is just fast enough"),
        pytest.param(50 * MIB, 10 * MIB, 24 * MIB, 3, id="a small area rewritten for ever, that fits into the freeze"),
    ],
)
def test_rounds_end_when_what_is_left_fits(churn: int, link: int, area: int, rounds: int) -> None:
    world = World(churn, link, area)
    made = precopy(world)
    made.cleared()
    world.write(10)
    assert go(world, made) <= rounds
    assert world.ledger.waiting(Need.DIRTY) * BLOCK_SIZE <= 32 * MIB


@pytest.mark.parametrize("churn", [50, 400], ids=["somewhat too much", "far too much"])
def test_churn_that_outruns_the_link_is_said_with_figures(churn: int) -> None:
    world = World(churn * MIB, 10 * MIB, 200 * MIB)
    made = precopy(world)
    made.cleared()
    world.write(10)
    with pytest.raises(ChurnOutrunsLink) as caught:
        go(world, made)
    assert caught.value.reason == "ChurnOutrunsLink"
    assert "10.0 MiB/s sent" in caught.value.message
    assert "raise the bandwidth or lengthen the interval" in caught.value.message
    assert made.rates.link == pytest.approx(10 * MIB, rel=0.1)
    assert made.rates.churn > made.rates.link * 0.9


def test_churn_is_told_by_the_interval_when_no_round_is_needed() -> None:
    world = World(1 * MIB, 50 * MIB, 200 * MIB)
    made = precopy(world)
    go(world, made)
    assert made.rates.churn == 0.0, "unknown before the first point"
    made.cleared()
    world.write(10)
    go(world, made)
    assert made.rates.churn == pytest.approx(1 * MIB, rel=0.05)


def test_what_a_broken_connection_marks_again_is_not_churn() -> None:
    world = World(1 * MIB, 50 * MIB, 200 * MIB)
    made = precopy(world)
    made.cleared()
    made.interrupted()
    world.write(10)
    go(world, made)
    assert made.rates.churn == 0.0
