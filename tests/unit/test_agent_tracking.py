"""Another set of disks: what is known of those that stay is kept, and nothing is believed of those that were away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from farshore_engine.agent.disks import Disk, follow
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.tracker.interface import Sink, TrackedDisk
from farshore_engine.agent.tracker.probe import Choice
from farshore_engine.agent.tracking import Tracking, begin, go_on
from farshore_engine.blocks.grid import BLOCK_SIZE

A = Disk("serial-A", "sda", "/dev/sda", 8, 0, 8 * BLOCK_SIZE, presence="1")
B = Disk("serial-B", "sdb", "/dev/sdb", 8, 16, 8 * BLOCK_SIZE, presence="2")
C = Disk("serial-C", "sdc", "/dev/sdc", 8, 32, 8 * BLOCK_SIZE, presence="3")
HELD = np.array([2], np.int64)  # sent and not yet committed
LATE = np.array([5], np.int64)  # written and not yet sent


@dataclass
class FakeTracker:
    """Tells what is done with it, and that of which disk it sees a write when a barrier is asked for."""

    name: str
    log: list[str]
    sees: str = ""
    exact: bool = True
    sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        self.sink = sink
        self.log.append("start")

    def barrier(self) -> None:
        self.log.append("barrier")
        if self.sees and self.sink is not None:
            self.sink.mark(self.sees, LATE, LATE)

    def stop(self) -> None:
        self.log.append("stop")


@dataclass
class World:
    log: list[str]
    name: str = "tracefs"

    def start(self, disks: tuple[TrackedDisk, ...], ledger: Ledger) -> Choice:
        tracker = FakeTracker(self.name, self.log, sees="serial-A" if any(d.id == "serial-A" for d in disks) else "")
        tracker.start(ledger)
        return Choice(tracker, "")


def tracked(world: World, *disks: Disk) -> Tracking:
    """Disks that are in sync: one block of A is on its way to the vault."""
    tracking = begin(list(disks), True, "machine", world.start)
    for disk in disks:
        tracking.ledger.begin_full(disk.id)
        for need in (Need.UNSENT, Need.DIRTY):
            taken = tracking.ledger.take(need, disk.id)
            tracking.ledger.settle(need, disk.id, taken)
    tracking.ledger.mark("serial-A", HELD, HELD)
    tracking.ledger.sent(Need.DIRTY, "serial-A", tracking.ledger.take(Need.DIRTY, "serial-A"))
    world.log.clear()
    return tracking


def waiting(tracking: Tracking, disk: Disk) -> tuple[int, int]:
    return tracking.ledger.waiting(Need.DIRTY, disk.id), tracking.ledger.waiting(Need.UNVERIFIED, disk.id)


@pytest.mark.parametrize(
    ("disks", "expected"),
    [
        pytest.param([A, B, C], {A: (1, 0), B: (0, 0)}, id="one comes"),
        pytest.param([A], {A: (1, 0)}, id="one goes"),
        pytest.param([A, replace(B, size=12 * BLOCK_SIZE)], {A: (1, 0), B: (0, 5)}, id="one grows"),
        pytest.param([A, replace(B, size=8 * BLOCK_SIZE - 512)], {A: (1, 0), B: (0, 1)}, id="one shrinks in a block"),
        pytest.param([A, replace(B, presence="9")], {A: (1, 0), B: (0, 8)}, id="one was away"),
        pytest.param([A, replace(B, name="sdq", minor=99)], {A: (1, 0), B: (0, 8)}, id="one has another name"),
    ],
)
def test_what_is_known_of_the_others_stays(disks: list[Disk], expected: dict[Disk, tuple[int, int]]) -> None:
    world = World([])
    before = tracked(world, A, B)
    after = go_on(before, disks, world.start)
    assert {disk: waiting(after, disk) for disk in expected} == expected
    assert after.identity is before.identity, "the process server need not compare everything"
    assert world.log == ["start", "barrier", "stop"], "the disks that stay are watched all the time"
    after.ledger.forget_pending()
    assert after.ledger.waiting(Need.DIRTY, "serial-A") == 2, "what is not in the vault is still known"
    assert all(after.ledger.can_delta(d.id) is False for d in disks if d.id == "serial-C"), "nothing is known of it"


def test_a_disk_that_shrank_or_returned_begins_anew() -> None:
    world = World([])
    small = go_on(tracked(world, A, B), [A, replace(B, size=4 * BLOCK_SIZE)], world.start)
    assert not small.ledger.can_delta("serial-B")
    back = go_on(go_on(tracked(world, A, B), [A], world.start), [A, B], world.start)
    assert not back.ledger.can_delta("serial-B")
    assert back.ledger.can_delta("serial-A")


def test_a_grown_disk_s_last_block_is_compared_even_if_no_block_was_added() -> None:
    world = World([])
    before = tracked(world, A, replace(B, size=8 * BLOCK_SIZE - 512))
    after = go_on(before, [A, B], world.start)
    assert waiting(after, B) == (0, 1)


def test_where_two_trackers_cannot_run_together_everything_is_compared() -> None:
    world = World([], "blktrace")
    before = tracked(world, A, B)
    after = go_on(before, [A, B, C], world.start)
    assert world.log == ["stop", "start"]
    assert (waiting(after, A), waiting(after, B)) == ((0, 8), (0, 8))


def test_a_disk_keeps_its_name_as_long_as_it_is_there() -> None:
    formatted, exchanged = replace(A, id="fs-1234"), replace(A, id="fs-1234", presence="7")
    assert [d.id for d in follow([A], [formatted, B])] == ["serial-A", "serial-B"]
    assert [d.id for d in follow([A], [exchanged])] == ["fs-1234"]
