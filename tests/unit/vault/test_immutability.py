"""An intruder with the writer's credential destroys nothing that is locked; and locks cost little and end."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from tests.contract.immutable_store import ImmutableStore, Way
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, MACHINE, START, Clock, Rig, packs
from tests.unit.vault.test_compaction import ONLY_NEWEST, Machine

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.vault.erasure import erase_machine
from farshore_engine.vault.immutability import LockRule, open_locks, recover
from farshore_engine.vault.keyring import KeyRing, LocalKey, Previous
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.names import MachineNames
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.store import ObjectLocked
from farshore_engine.vault.upkeep import Upkeep
from farshore_engine.vault.writer import PointWriter

RULE = LockRule(timedelta(days=7), final=True)
NAMES = MachineNames(MACHINE)


class Locked(Machine):
    """A machine whose points are locked for a week."""

    store: ImmutableStore

    def start(self) -> None:
        Rig.start(self)
        locks = open_locks(self.vault, RULE, self.chain.claim, self.clock)
        self.writer = PointWriter(self.vault, self.chain, self.sink, pack_target=self.pack_target, locks=locks)
        self.time = 0.0
        self.upkeep = Upkeep(self.vault, self.writer, clock=self.clock, locks=locks, monotonic=lambda: self.time)


def locked_machine(way: Way = Way.REFUSE) -> Locked:
    clock = Clock()
    machine = Locked(ImmutableStore(way, lambda: clock.now), clock=clock, pack_target=1 << 17)
    machine.point("sda", {i: i + 1 for i in range(20)})
    for turn in range(4):
        machine.point("sda", {turn: 100 + turn, turn + 1: 200 + turn})
    return machine


def rampage(store: ImmutableStore) -> None:
    """Everything that the credential allows: overwrite, delete, shorten, delete versions, and leave traps."""
    held = dict(store.locks(""))
    for name in list(store.current):
        for attack in (
            lambda n=name: n in held and store.lock(n, store.clock() + timedelta(seconds=1), final=False),
            lambda n=name: store.put(n, b"encrypted by us, pay"),
            lambda n=name: store.delete(n),
        ):
            with contextlib.suppress(StopFault):
                attack()
    for name, versions in list(store.versions.items()):
        for one in list(versions):
            with contextlib.suppress(StopFault):
                store.delete_version(name, one.version)
    slots = sorted(name for name in store.versions if "/chain/" in name and name[-12:].isdigit())
    with contextlib.suppress(StopFault):
        store.put(NAMES.base, str(int(slots[-1][-12:])).encode())  # to hide every older point
    store.put(f"{NAMES.pins}000000000002/x", b"{")
    store.put(f"{NAMES.packs}garbage", b"")
    store.put(NAMES.slot(999_999_999_999), b"so that nobody extends the chain")


@pytest.mark.parametrize("way", list(Way))
def test_after_an_intruder_did_all_he_can_every_point_restores_exactly(way: Way) -> None:
    machine = locked_machine(way)
    points = dict(machine.points)
    machine.clock.now += timedelta(days=6, hours=23)
    rampage(machine.store)
    ring = KeyRing(LocalKey(KEK))
    if way is Way.REFUSE:  # a reader needs no help there
        assert set(machine.names()) == set(points)
    done = recover(machine.store, NAMES, ring, machine.clock.now)
    assert not done.spoiled
    assert bool(done.objects) == (way is Way.VERSIONS)
    assert done.removed == (NAMES.slot(999_999_999_999),)
    assert set(machine.names()) == set(points)
    for name in points:
        assert machine.restored(name) == points[name]
    assert recover(machine.store, NAMES, ring, machine.clock.now).objects == ()
    machine.vault = machine.open()
    machine.start()
    machine.tend()
    machine.point("sda", {7: 7777})
    assert machine.names()[:-1] == list(points)


@pytest.mark.parametrize("way", list(Way))
def test_without_locks_he_destroys_everything(way: Way) -> None:
    """The guard of the test above: the same rampage, on the same store, of a vault that locks nothing."""
    clock = Clock()
    machine = Machine(ImmutableStore(way, lambda: clock.now), clock=clock)
    machine.point("sda", {1: 1})
    rampage(machine.store)  # type: ignore[arg-type]
    with pytest.raises(StopFault):
        recover(machine.store, NAMES, KeyRing(LocalKey(KEK)), clock.now)


def test_a_base_that_was_raised_over_points_hides_none() -> None:
    machine = locked_machine()
    names = machine.names()
    slots = [p.slot for p in machine.open().catalogue().points]
    machine.store.put(NAMES.base, str(slots[-1]).encode())
    assert machine.names() == names
    assert machine.open().find(names[0]).slot == slots[0]
    machine.upkeep = Upkeep(machine.vault, machine.writer, clock=machine.clock)
    machine.tend()
    machine.check_every_visible_point()
    assert machine.names() == names


def test_locks_hold_while_any_point_needs_a_pack() -> None:
    """The first copy's packs are reached by every point: their locks move with the newest."""
    machine = locked_machine()
    for _ in range(10):
        machine.clock.now += timedelta(days=1)
        point = machine.point("sda", {30: machine.clock.now.day})
        assert point.locked_until == point.time + RULE.period
        machine.tend(RetentionRules(keep_all=timedelta(0)))
        catalogue = machine.open().catalogue().points
        assert all(p.manifest.time > machine.clock.now - RULE.period - timedelta(hours=1) for p in catalogue)
        for one in catalogue:
            until = one.manifest.locked_until
            assert until is not None
            assert machine.store.current[NAMES.slot(one.slot)].until == until
        assert all(ends >= point.locked_until for name, ends in machine.store.locks(NAMES.key))
        machine.check_every_visible_point()
    assert len(catalogue) < 9  # retention gave up what was not locked any more


def test_retention_never_shortens_a_lock() -> None:
    machine = locked_machine()
    report = machine.tend(ONLY_NEWEST).prune
    assert not report.buried and not report.packs_deleted
    assert all("locked until" in " ".join(reasons) for reasons in report.kept.values())
    machine.clock.now += timedelta(days=8)
    later = machine.tend(ONLY_NEWEST).prune
    assert len(later.buried) == 4 and later.packs_deleted
    machine.check_every_visible_point()


def test_an_object_that_is_held_longer_than_its_points_is_met_again() -> None:
    machine = locked_machine()
    others = machine.tend().prune.locked
    dead = f"{NAMES.packs}{machine.chain.claim:012d}-00000000deadbeef"
    machine.store.put(dead, b"of a point that never was")
    machine.store.lock(dead, machine.clock.now + timedelta(days=1), final=True)
    assert machine.tend().prune.locked == others + 1
    assert dead in packs(machine.store)
    machine.clock.now += timedelta(days=2)
    assert machine.tend().prune.locked == others
    assert dead not in packs(machine.store)


def test_a_point_extends_only_locks_that_are_too_short() -> None:
    machine = locked_machine()
    machine.store.lock_calls = 0
    for turn in range(20):
        machine.point("sda", {1: 300 + turn})
        machine.tend()
    assert machine.store.lock_calls <= 20 * 4  # its own packs and slot, and now and then one more
    machine.clock.now += RULE.grain
    machine.tend()
    machine.store.lock_calls = 0
    machine.point("sda", {1: 1})
    assert machine.store.lock_calls <= 3  # the rest was extended ahead


def test_a_crash_between_the_point_and_its_lock_is_made_good() -> None:
    machine = locked_machine()
    lock = machine.store.lock

    def away(name: str, until: object, *, final: bool) -> None:
        if "/chain/" in name:
            raise WaitFault("the store is away")
        lock(name, until, final=final)  # type: ignore[arg-type]

    machine.store.lock = away  # type: ignore[method-assign]
    point = machine.point("sda", {1: 5})
    assert machine.store.current[NAMES.slot(point.slot)].until is None
    machine.store.lock = lock  # type: ignore[method-assign]
    machine.vault = machine.open()
    machine.start()
    assert machine.store.current[NAMES.slot(point.slot)].until == point.locked_until


def test_a_key_that_was_rotated_is_locked_again() -> None:
    machine = locked_machine(Way.VERSIONS)
    new = LocalKey(bytes(range(60, 92)))
    machine.vault.rotate(KeyRing(new, (Previous(LocalKey(KEK)),)))
    machine.vault = MachineVault.open(machine.store, KeyRing(new), MACHINE)
    machine.start()
    machine.point("sda", {1: 9})
    rampage(machine.store)
    recover(machine.store, NAMES, KeyRing(new), machine.clock.now)
    newest = MachineVault.open(machine.store, KeyRing(new), MACHINE).newest()
    assert newest is not None and newest.manifest.name == list(machine.points)[-1]


def test_what_is_locked_is_not_erased() -> None:
    machine = locked_machine()
    with pytest.raises(StopFault, match="locked against deletion until 2025-03-08"):
        erase_machine(machine.vault, by="ada", reason="", writer="cli", clock=machine.clock)
    machine.check_every_visible_point()
    machine.clock.now += timedelta(days=9)
    with contextlib.suppress(ObjectLocked):  # the key document is locked to a coarser time than the points
        erase_machine(machine.vault, by="ada", reason="", writer="cli", clock=machine.clock)


def test_a_store_that_cannot_lock_says_so() -> None:
    rig = Rig(MemoryStore())
    with pytest.raises(StopFault, match="cannot lock objects"):
        open_locks(rig.vault, RULE, rig.chain.claim, rig.clock)


@pytest.mark.parametrize(
    ("period", "grain"),
    [
        pytest.param(timedelta(hours=2), timedelta(hours=1), id="not finer than an hour"),
        pytest.param(timedelta(days=8), timedelta(days=1), id="an eighth"),
        pytest.param(timedelta(days=365), timedelta(days=7), id="not coarser than a week"),
    ],
)
def test_the_grain_of_locks(period: timedelta, grain: timedelta) -> None:
    rule = LockRule(period)
    assert rule.grain == grain
    assert START <= rule.rounded(START) < START + grain
