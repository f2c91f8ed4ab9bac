"""Storage comes back: packs that are mostly dead are emptied into new points, and nothing that is needed is touched."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.faulty_store import DyingStore, Killed, RecordingStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import Rig, packs

from farshore_engine.blocks.grid import BLOCK_SIZE, block_count
from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.compaction import LEAST_GAIN, choose
from farshore_engine.vault.mapdiff import packs_of
from farshore_engine.vault.names import PackId
from farshore_engine.vault.pace import Pace
from farshore_engine.vault.prune import PruneState
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.upkeep import PLAN_EVERY, Upkeep, UpkeepReport

ONLY_NEWEST = RetentionRules(keep_all=timedelta(0))


class Machine(Rig):
    """A rig whose process server looks after the vault as well."""

    def start(self) -> None:
        super().start()
        self.time = 0.0
        self.upkeep = Upkeep(self.vault, self.writer, clock=self.clock, monotonic=lambda: self.time)

    def tend(self, rules: RetentionRules = ONLY_NEWEST) -> UpkeepReport:
        self.time += PLAN_EVERY
        return self.upkeep.run(rules)

    def stored(self) -> int:
        return sum(self.store.head(name) for name in packs(self.store))


def aged(points: int = 12) -> Machine:
    """A first copy of which ever less is alive."""
    machine = Machine(pack_target=1 << 18)
    machine.point("sda", {i: i + 1 for i in range(60)})
    for turn in range(points):
        machine.point("sda", {(turn * 7 + step * 5) % 60: 1000 + turn * 10 + step for step in range(5)})
    return machine


def test_space_in_half_dead_packs_comes_back() -> None:
    machine = aged()
    machine.tend()
    before = machine.stored()
    live = machine.upkeep._state.ledger.live()
    assert before > 1.4 * sum(live.values())
    for turn in range(6):
        machine.point("sda", {turn: 5000 + turn})
        machine.tend()
        machine.check_every_visible_point()
    assert machine.stored() < 0.85 * before
    _assert_bounded(machine)


def _assert_bounded(machine: Machine) -> None:
    """Nothing is left that would be worth carrying: a pack is at least half alive, or all but alive."""
    machine.tend()
    live = machine.upkeep._state.ledger.live()
    for pack, size in machine.upkeep._state.sizes.items():
        if pack not in machine.writer.in_flight:
            assert size <= max(2 * live[pack], live[pack] + LEAST_GAIN), pack


def test_the_nodes_of_the_map_move_too() -> None:
    """The first copy's pack holds nodes that no change has touched."""
    machine = Machine(pack_target=1 << 18)
    size = 1024 * BLOCK_SIZE
    machine.point("sda", {i: 1 + i % 7 for i in range(0, 1024, 16)}, size=size)
    first = set(packs(machine.store))
    for turn in range(4):
        machine.point("sda", {i: 100 + turn + i for i in range(0, 960, 16)})
    for turn in range(8):
        machine.point("sda", {3: 9000 + turn})
        machine.tend()
    machine.check_every_visible_point()
    assert not first & set(packs(machine.store))


def test_what_an_older_point_holds_on_to_is_not_carried() -> None:
    """Carrying it would store it twice and free nothing."""
    machine = aged(6)
    names = machine.names()
    machine.vault.pin(machine.vault.find(names[0]), "run-1")
    before = set(packs(machine.store))
    for turn in range(4):
        machine.point("sda", {1: 7000 + turn})
        report = machine.tend()
    assert report.carried == 0
    assert machine.restored(names[0]) == machine.points[names[0]]
    assert before & set(packs(machine.store))


def test_a_block_that_changed_meanwhile_is_not_carried() -> None:
    machine = aged()
    assert machine.tend().carried > 0
    machine.point("sda", {i: 8000 + i for i in range(60)})
    machine.check_every_visible_point()


def test_choosing() -> None:
    a, b, c, d, e = (PackId(1, n) for n in range(5))
    mib = 1 << 20
    sizes = {a: 8 * mib, b: 8 * mib, c: 8 * mib, d: 100_000, e: 8 * mib}
    live = {a: 3 * mib, b: mib, c: 5 * mib, d: 50_000, e: mib}
    assert choose(sizes, live, {e}, 100 * mib) == [b, a]  # the deadest first; c lives, d is not worth it, e is held
    assert choose(sizes, live, {e}, mib) == [b]
    assert choose(sizes, live, {e}, 1) == [b]
    assert choose({}, live, set(), mib) == []


@pytest.mark.parametrize("after_effect", [False, True], ids=["before it takes effect", "after it took effect"])
def test_killed_at_each_store_operation_every_point_restores(after_effect: bool) -> None:
    died = True
    at = 0
    while died:
        machine = aged(6)
        machine.tend()
        inner = machine.store
        dying = DyingStore(inner, at, after_effect=after_effect)
        machine.store = dying
        machine.vault = machine.open()
        died = False
        try:
            machine.start()
            for turn in range(2):
                machine.tend()
                machine.point("sda", {turn: 6000 + turn})
        except Killed:
            died = True
        machine.store = inner
        _forget_unseen(machine)
        machine.check_every_visible_point()
        machine.vault = machine.open()
        machine.start()
        machine.disks = {d: bytearray(c) for d, c in machine.points[machine.names()[-1]].items()}
        machine.point("sda", {3: 6100 + at})
        machine.tend()
        machine.check_every_visible_point()
        at += 3
    assert at > 12


def _forget_unseen(machine: Machine) -> None:
    """A point that became visible in the moment of death is as the source was then."""
    for name in machine.names():
        machine.points.setdefault(name, {d: bytes(c) for d, c in machine.disks.items()})


def test_the_ledger_knows_what_a_search_finds() -> None:
    machine = aged(5)
    machine.disks["sdb"] = bytearray(4 * BLOCK_SIZE)
    machine.point("sdb", {1: 5})
    machine.write("sda", {700: 3}, size=800 * BLOCK_SIZE)
    machine.commit()
    del machine.disks["sdb"]
    machine.point("sda", {2: 9}, size=30 * BLOCK_SIZE)
    state = PruneState.of(machine.vault)
    points = [s.point for s in state.sketch.read(machine.chain.head) if s.point is not None]
    for subset in (points[:3], points[:5], points, points[1:], points[::2] + points[-1:], points[-1:]):
        chosen = sorted({p.slot: p for p in subset}.values(), key=lambda p: p.slot)
        state.ledger.update(chosen)
        expected = set()
        for point in chosen:
            for root in point.roots:
                block_map = BlockMap(root.disk, root.blocks, root.root, state.nodes)
                expected |= {pack for found in packs_of(block_map, None) for pack in found}
        assert state.ledger.needed() == expected
    state.ledger.forget(set(packs_named(machine)) - expected)
    assert state.ledger.needed() == expected
    assert set(state.ledger.live()) == expected


def packs_named(machine: Machine) -> list[PackId]:
    return [PackId.parse(name.rpartition("/")[2]) for name in packs(machine.store)]


def test_the_second_prune_reads_what_is_new() -> None:
    """Not the whole chain, nor the maps of points that it has seen."""
    machine = aged(20)
    keep = RetentionRules(keep_all=timedelta(days=9))
    recording = RecordingStore(machine.store)
    access = machine.vault.access
    machine.vault.access = type(access)(recording, access.names, access.keys)
    machine.upkeep = Upkeep(machine.vault, machine.writer, clock=machine.clock, monotonic=lambda: machine.time)
    machine.upkeep.run(keep)
    first = len(recording.calls)
    recording.calls.clear()
    machine.point("sda", {1: 7777})
    machine.upkeep.run(keep)
    second = [call for call in recording.calls if call[0] in ("get", "get_range")]
    assert len(second) < 10 < first


def test_a_lost_pack_is_healed_when_its_blocks_come_again() -> None:
    """Identical content was taken for stored: the point stayed damaged until the disk was copied anew."""
    machine = Machine(pack_target=1 << 17)
    machine.point("sda", {i: i + 1 for i in range(20)})
    machine.point("sda", {1: 50})
    reader = machine.open()
    newest = reader.newest()
    assert newest is not None
    root = newest.manifest.disks[0]
    block_map = BlockMap("sda", block_count(root.size_bytes), root.root.ref() if root.root else None, reader.nodes)
    ref = block_map.lookup(7, 1)[0]
    lost = PackId(int(ref["claim"]), int(ref["random"]))
    machine.store.delete(machine.vault.access.names.pack(lost))
    report = machine.tend(RetentionRules())
    assert report.lost == {lost}
    assert machine.tend(RetentionRules()).lost == frozenset()  # told once
    digests, holes = machine.writer.digests_of("sda", 0, 64)
    honest = block_map.digests_of(0, 64)[0]
    asked = [i for i in range(64) if digests[i].tobytes() != honest[i].tobytes()]
    assert 7 in asked and not holes[7] and 1 not in asked and len(asked) < 20
    machine.send("sda", asked)
    name = machine.commit().name
    assert machine.restored(name) == machine.points[name]


def test_upkeep_that_is_stopped_ends_at_once() -> None:
    machine = aged(3)
    machine.upkeep = Upkeep(machine.vault, machine.writer, clock=machine.clock, pace=Pace(1, 0.001))
    machine.upkeep.stop()
    with pytest.raises(WaitFault, match="stopped"):
        machine.upkeep.run(ONLY_NEWEST)


def test_the_pace_is_kept() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(1000, 10, clock=lambda: now[0], sleep=sleep)
    for _ in range(21):
        pace.take(500)  # half a second's worth each; one second is given in advance
    assert 9 <= now[0] <= 10.5
    for _ in range(10):
        pace.take()
    assert now[0] <= 11.5


steps = st.lists(
    st.one_of(
        st.tuples(st.just("point"), st.dictionaries(st.integers(0, 40), st.integers(0, 400), min_size=1, max_size=12)),
        st.tuples(st.just("tend"), st.sampled_from([0, 11, 10_000])),
        st.tuples(st.just("pin"), st.integers(0, 9)),
        st.tuples(st.just("unpin"), st.integers(0, 9)),
        st.tuples(st.just("die"), st.integers(0, 25)),
    ),
    min_size=4,
    max_size=14,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_any_order_of_points_pins_prunes_compactions_and_deaths(script: list[tuple[str, object]]) -> None:
    """Every point that is to be seen restores exactly, at every moment; at the end dead space is bounded."""
    store = MemoryStore()
    machine = Machine(store, pack_target=1 << 17)
    machine.point("sda", {i: i + 1 for i in range(40)})
    for action, value in script:
        names = machine.names()
        if action == "point":
            machine.point("sda", value)  # type: ignore[arg-type]
        elif action == "tend":
            machine.tend(RetentionRules(keep_all=timedelta(minutes=value)))  # type: ignore[arg-type]
        elif action == "pin":
            machine.vault.pin(machine.vault.find(names[value % len(names)]), "run")  # type: ignore[operator]
        elif action == "unpin":
            machine.vault.unpin(machine.vault.find(names[value % len(names)]).slot, "run")  # type: ignore[operator]
        else:
            _die(machine, store, value)  # type: ignore[arg-type]
        machine.check_every_visible_point()
    for name in machine.names():
        machine.vault.unpin(machine.vault.find(name).slot, "run")
    for turn in range(8):
        machine.point("sda", {41: 2000 + turn})
        machine.tend()
    machine.check_every_visible_point()
    assert len(machine.names()) == 1
    _assert_bounded(machine)


def _die(machine: Machine, store: MemoryStore, at: int) -> None:
    """Let the process server die at its n-th change of the store from now on, while it does everything it does."""
    machine.store = DyingStore(store, at, after_effect=bool(at % 2))
    access = machine.vault.access
    with contextlib.suppress(Killed):
        machine.vault = machine.open()
        machine.start()
        machine.tend()
        machine.point("sda", {at % 40: 3000 + at})
        machine.tend()
        machine.point("sda", {(at + 1) % 40: 3100 + at})
    machine.store = store
    _forget_unseen(machine)
    machine.vault = machine.open()
    machine.start()
    machine.disks = {d: bytearray(c) for d, c in machine.points[machine.names()[-1]].items()}
    assert access.keys == machine.vault.access.keys
