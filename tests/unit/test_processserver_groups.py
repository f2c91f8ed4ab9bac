"""Whatever the members of a group do, a cut is one instant at which all of them were frozen, and nobody is held up."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from farshore_engine.contract.assignment import ConsistencyGroup
from farshore_engine.contract.points import Consistency, GroupCut, RecoveryPoint, newest_group_cut
from farshore_engine.processserver.barrier import READY_SECONDS
from farshore_engine.processserver.groups import ATTEMPTS, PATIENCE, Groups, Standing, Turn

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class World(Executor):
    """Virtual time, and an executor whose calls happen a moment later, in any order."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.time = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.number = itertools.count()

    def clock(self) -> float:
        return self.time

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.time)

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.time + seconds, next(self.number), what))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.later(self.chance.random() * 0.02, lambda: fn(*args, **kwargs))
        return Future()

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.time, _, what = heapq.heappop(self.events)
            what()
        self.time = until


@dataclass
class Simulated:
    """A machine with its keeper and agent; `moods` are what its agent may do wrong, each with its probability."""

    world: World
    groups: Groups
    group: ConsistencyGroup
    machine_id: str
    interval: float = 30.0
    moods: dict[str, float] = field(default_factory=dict)
    bound: float = 10.0
    away_until: float = 0.0
    point: str = ""
    frozen_since: float | None = None
    freezes: list[tuple[float, float]] = field(default_factory=list)
    cuts: dict[str, tuple[GroupCut, datetime]] = field(default_factory=dict)
    alone: list[tuple[float, str]] = field(default_factory=list)
    asked_at: float = -1e9

    def start(self) -> None:
        self.world.later(self.world.chance.random(), self.keeper)

    def mood(self) -> str:
        for mood, probability in self.moods.items():
            if self.world.chance.random() < probability:
                return mood
        return ""

    # -- the keeper

    def keeper(self) -> None:
        world = self.world
        world.later(0.25, self.keeper)
        away = world.time < self.away_until
        blocked = "its agent is not connected" if away else "a point of it is under way" if self.point else ""
        due = not blocked and world.time - self.asked_at >= self.interval
        turn = self.groups.turn(self.group, self, Standing(blocked, bool(self.point) and not away, due, self.bound))
        if turn.together:
            self.asked_at, self.point = world.time, turn.together
            world.later(0.1 + world.chance.random() * 5, lambda: self.precopied(turn.together))
        elif turn.alone and due:
            self.alone.append((world.time, turn.note))
            self.asked_at = world.time

    # -- the agent

    def precopied(self, point: str) -> None:
        if self.point == point and self.mood() != "hangs before it is ready":
            self.groups.ready(self.group.name, self.machine_id, point)

    def freeze_now(self, point: str) -> None:
        if self.point != point or self.frozen_since is not None:
            return
        mood = self.mood()
        if mood == "dies at the freeze":
            self.die()
        elif mood == "fails to freeze":
            self.fail(point, "it cannot be frozen")
        elif mood != "hangs before it is frozen":
            self.world.later(0.01 + self.world.chance.random() * 0.2, lambda: self.freeze(point))

    def freeze(self, point: str) -> None:
        if self.point != point:
            return
        since = self.frozen_since = self.world.time
        self.world.later(self.bound * 0.8, lambda: self.overrun(point, since))
        if self.mood() == "thaws early":
            self.world.later(0.001, lambda: self.thaw(point))
        if self.mood() != "dies while frozen":
            self.world.later(0.001, lambda: self.groups.frozen(self.group.name, self.machine_id, point))
        else:
            self.die()

    def overrun(self, point: str, since: float) -> None:
        if self.point == point and self.frozen_since == since:
            self.thaw(point)
            self.fail(point, "the others were not frozen within the bound")

    def thaw(self, point: str) -> None:
        if self.frozen_since is not None:
            self.freezes.append((self.frozen_since, self.world.time))
            self.frozen_since = None

    def cut_now(self, point: str) -> None:
        if self.point != point:
            return
        if self.frozen_since is None:
            self.fail(point, "somebody thawed it before the cut")
            return
        self.thaw(point)
        if self.mood() == "dies after the cut":
            self.die()
            return
        self.world.later(self.world.chance.random(), lambda: self.end(point))

    def end(self, point: str) -> None:
        if self.point != point:
            return
        found = self.groups.ended(self.group.name, self.machine_id, point)
        assert found is not None, "a point that was cut and not called off belongs to the cut"
        self.cuts[point] = found
        self.point = ""

    def call_off(self, point: str, why: str) -> None:
        if self.point == point:
            self.thaw(point)
            self.point = ""
            self.asked_at -= self.interval  # due again

    def fail(self, point: str, why: str) -> None:
        self.point = ""
        self.asked_at -= self.interval
        self.groups.failed(self.group.name, self.machine_id, point, why)

    def die(self) -> None:
        point = self.point
        self.thaw(point)
        self.fail(point, "its agent is gone")
        self.away_until = self.world.time + 5

    def frozen_at(self, instant: float) -> bool:
        return any(since <= instant <= until for since, until in self.freezes)


MOODS = (
    "hangs before it is ready",
    "dies at the freeze",
    "fails to freeze",
    "hangs before it is frozen",
    "thaws early",
    "dies while frozen",
    "dies after the cut",
)


def simulate(seed: int, count: int, seconds: float, **moods: float) -> list[Simulated]:
    world = World(seed)
    groups = Groups(world.clock, world.now, speakers=world)
    names = tuple(f"demo.m{number:02}" for number in range(count))
    group = ConsistencyGroup(name="web", members=names)
    members = [Simulated(world, groups, group, name) for name in names]
    for member in members:
        member.moods = dict(moods)
        member.start()
    world.run(seconds)
    return members


def whole_cuts(members: list[Simulated]) -> list[str]:
    points = {m.machine_id: [_point(cut, at) for cut, at in m.cuts.values()] for m in members}
    found = []
    while (newest := newest_group_cut(points)) is not None:
        name = cast(GroupCut, next(iter(newest.values())).group).id
        found.append(name)
        points = {m: [p for p in its if cast(GroupCut, p.group).id != name] for m, its in points.items()}
    return found


def _point(cut: GroupCut, at: datetime) -> RecoveryPoint:
    return RecoveryPoint(name=cut.id, slot=1, time=at, consistency=Consistency.CRASH, group=cut)


@pytest.mark.parametrize("seed", range(24))
def test_every_point_of_a_cut_was_frozen_at_its_instant_whatever_members_do(seed: int) -> None:
    chance = random.Random(seed)
    moods = {mood: chance.choice((0.0, 0.02, 0.1)) for mood in MOODS}
    members = simulate(seed, chance.choice((2, 5, 16)), 1200, **moods)
    for member in members:
        for cut, instant in member.cuts.values():
            assert member.frozen_at((instant - EPOCH).total_seconds()), (seed, cut)
            assert member.machine_id in cut.members
    for name in whole_cuts(members):
        assert len({m.cuts[name][1] for m in members}) == 1, "all say the same instant"
        assert all(m.frozen_at((m.cuts[name][1] - EPOCH).total_seconds()) for m in members)
    taken = [len(m.cuts) + len(m.alone) for m in members]
    assert min(taken) >= 1200 / 30 / 10, f"nobody goes without points: {taken}"


def test_sixteen_healthy_machines_are_cut_together_each_time() -> None:
    members = simulate(1, 16, 300)
    assert len(whole_cuts(members)) >= 7
    assert not any(m.alone for m in members)
    assert {len(m.cuts) for m in members} == {len(members[0].cuts)}


def test_a_member_that_is_away_holds_the_others_up_for_a_while_and_then_they_go_alone() -> None:
    world = World()
    groups = Groups(world.clock, world.now, speakers=world)
    group = ConsistencyGroup(name="web", members=("demo.a", "demo.b", "demo.c"))
    members = [Simulated(world, groups, group, name) for name in group.members]
    members[2].away_until = 400.0
    for member in members:
        member.start()
    world.run(390)
    for member in members[:2]:
        assert not member.cuts
        assert "demo.c: its agent is not connected" in member.alone[0][1]
        assert PATIENCE * ATTEMPTS <= member.alone[0][0] < PATIENCE * ATTEMPTS + 5
        gaps = [after[0] - before[0] for before, after in itertools.pairwise(member.alone)]
        assert gaps
        assert max(gaps) < 32, "once it is known to be away, nobody waits for it"
    assert groups.trouble("web") == {"demo.c": "its agent is not connected"}
    world.run(600)
    assert whole_cuts(members), "it is back"
    assert groups.trouble("web") == {}


def test_a_member_that_never_gets_ready_is_named_and_costs_the_others_few_points() -> None:
    members = simulate(3, 3, 4 * READY_SECONDS + 60)
    healthy = len(whole_cuts(members))
    world = World(3)
    groups = Groups(world.clock, world.now, speakers=world)
    group = ConsistencyGroup(name="web", members=("demo.a", "demo.b"))
    pair = [Simulated(world, groups, group, name) for name in group.members]
    pair[1].moods = {"hangs before it is ready": 1.0}
    for member in pair:
        member.start()
    world.run((ATTEMPTS + 1) * READY_SECONDS + 60)
    assert healthy
    assert pair[0].alone
    assert "demo.b: it was not ready" in pair[0].alone[0][1]


def test_a_group_that_loses_a_member_goes_on_with_the_rest() -> None:
    """A machine of the group was failed over, or paused: it is in nobody's list any more."""
    world = World()
    groups = Groups(world.clock, world.now, speakers=world)
    three = ConsistencyGroup(name="web", members=("demo.a", "demo.b", "demo.c"))
    members = [Simulated(world, groups, three, name) for name in three.members]
    for member in members[:2]:
        member.start()
    world.run(3)
    two = ConsistencyGroup(name="web", members=("demo.a", "demo.b"))
    for member in members[:2]:
        member.group = two
    world.run(60)
    assert whole_cuts(members[:2])
    assert not members[0].alone


def test_a_member_that_sends_for_long_after_the_cut_still_belongs_to_it_and_holds_nobody_up() -> None:
    """Its rest went over a slow link for minutes; the others waited for it with their next points."""
    world = World()
    groups = Groups(world.clock, world.now, speakers=world)
    group = ConsistencyGroup(name="web", members=("demo.a", "demo.b"))
    fast, slow = (Simulated(world, groups, group, name) for name in group.members)
    ends = slow.end
    slow.end = lambda point: world.later(200, lambda: ends(point))  # type: ignore[method-assign]
    fast.start()
    slow.start()
    world.run(150)
    assert len(fast.cuts) == 1
    assert fast.alone, "it does not wait for the slow one's point"
    assert not slow.cuts
    world.run(300)
    assert set(fast.cuts) & set(slow.cuts), "the late point is of the same cut"
    assert whole_cuts([fast, slow])


def test_a_message_of_an_attempt_that_is_over_means_nothing() -> None:
    world = World()
    groups = Groups(world.clock, world.now, speakers=world)
    group = ConsistencyGroup(name="web", members=("demo.a", "demo.b"))
    one, two = (Simulated(world, groups, group, name) for name in group.members)
    assert groups.turn(group, two, Standing()) == Turn()
    turn = groups.turn(group, one, Standing(due=True))
    assert turn.together
    assert groups.turn(group, two, Standing()).together == turn.together
    one.point = two.point = turn.together
    groups.ready("web", "demo.a", turn.together)
    groups.failed("web", "demo.b", turn.together, "gone")
    groups.ready("web", "demo.b", turn.together)
    groups.frozen("web", "demo.a", turn.together)
    groups.frozen("web", "demo.b", turn.together)
    assert groups.ended("web", "demo.a", turn.together) is None
    assert groups.ended("web", "demo.a", "never asked") is None
    groups.ready("nothing", "demo.a", turn.together)


@pytest.mark.parametrize(
    ("have", "newest"),
    [
        pytest.param({"a": [1, 2], "b": [1, 2]}, 2, id="the newest that all have"),
        pytest.param({"a": [1, 2], "b": [1]}, 1, id="one that a member never committed does not count"),
        pytest.param({"a": [2], "b": [1]}, None, id="nothing in common"),
        pytest.param({"a": [1, 2]}, None, id="a member is not given, so its point may be missing"),
        pytest.param({"a": [1], "b": [1], "c": []}, None, id="a machine is given that was not in it"),
    ],
)
def test_a_cut_counts_only_if_all_members_points_are_visible(have: dict[str, list[int]], newest: int | None) -> None:
    points = {
        machine: [
            RecoveryPoint(
                name=f"p{number}",
                slot=number,
                time=EPOCH + timedelta(minutes=number),
                consistency=Consistency.CRASH,
                group=GroupCut(name="web", id=f"cut-{number}", members=("a", "b")),
            )
            for number in numbers
        ]
        + [RecoveryPoint(name="alone", slot=9, time=EPOCH + timedelta(days=1), consistency=Consistency.CRASH)]
        for machine, numbers in have.items()
    }
    found = newest_group_cut(points)
    assert {p.name for p in found.values()} == {f"p{newest}"} if found else newest is None
