"""A store that loses what it acknowledged: visible points restore exactly or are named, and the next ones are good.

Azurite loses the puts of its last seconds when it is killed; an account that was restored or rolled back does the same.
"""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from tests.contract.faulty_store import ForgetfulStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, Rig, packs
from tests.unit.vault.test_check import check, exact

from farshore_engine.vault.chain import Fenced, list_slots
from farshore_engine.vault.durability import LOOKED_UP, StoreLost, missing_packs
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.names import PackId
from farshore_engine.vault.newest import Damage, newest_damage
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.writer import DiskSpoiled


def forgetful() -> tuple[Rig, ForgetfulStore]:
    store = ForgetfulStore(MemoryStore())
    return Rig(store, pack_target=1 << 15), store


def open_anew(rig: Rig) -> None:
    """What a process server does after StoreLost: a new claim, disks without a map from nothing, what lost packs held
    told as different, the rest against the head.

    Here the source then sends every block of every disk; equal ones are dropped by digest.
    """
    rig.vault.close()
    rig.vault = rig.open()
    rig.start()
    damage = newest_damage(rig.vault)
    for disk in damage.disks:
        rig.writer.restart(disk)
    rig.writer.distrust(frozenset().union(*damage.packs.values()))
    for disk, content in rig.disks.items():
        rig.send(disk, list(range(len(content) // 65536)))


def test_a_lost_pack_is_noticed_before_a_point_is_built_on_it() -> None:
    rig, store = forgetful()
    first = rig.point("sda", {1: 1}).name
    rig.write("sda", {2: 2})
    rig.writer.flush()
    rig.sink._pool.submit(lambda: None).result()
    before = set(packs(store))
    store.crash_before = lambda operation, name: 1 if operation == "head" and not store.crash_before_done(name) else 0  # type: ignore[attr-defined]
    done: list[str] = []
    store.crash_before_done = lambda name: bool(done) or done.append(name)  # type: ignore[attr-defined]
    with pytest.raises(StoreLost):
        rig.commit()
    assert rig.names() == [first]
    assert set(packs(store)) <= before | set(packs(store))
    open_anew(rig)
    second = rig.commit().name
    assert rig.names() == [first, second]
    rig.check_every_visible_point()


def test_a_lost_slot_ends_the_writer_and_leaves_no_hole() -> None:
    rig, store = forgetful()
    first = rig.point("sda", {1: 1}).name
    rig.point("sda", {2: 2})
    store.crash(1)
    with pytest.raises(StoreLost, match="slot 3"):
        rig.point("sda", {3: 3})
    with pytest.raises(StoreLost):
        rig.commit()  # not by trying again: it would leave a hole, and build on what may be gone
    assert rig.names() == [first]
    open_anew(rig)
    rig.commit()
    assert check(rig, read_data=True).findings == ()
    rig.check_every_visible_point()


def test_a_slot_that_is_lost_while_the_next_is_put_is_noticed() -> None:
    rig, store = forgetful()
    rig.point("sda", {1: 1})
    lost = rig.point("sda", {2: 2}).slot

    def crash(operation: str, name: str) -> int:
        if operation == "put" and name.endswith(f"chain/{lost + 1:012d}"):
            store.memory.objects.pop(rig.vault.access.names.slot(lost))
        return 0

    store.crash_before = crash
    with pytest.raises(StoreLost):
        rig.point("sda", {3: 3})
    store.crash_before = lambda *_: 0
    open_anew(rig)
    good = rig.commit().name
    report = check(rig, read_data=True)
    assert [f.name for f in report.findings] == [rig.vault.access.names.slot(lost)]
    assert good not in report.spoiled and exact(rig, good)


def test_a_slot_that_somebody_else_took_meanwhile_fences() -> None:
    rig, store = forgetful()
    rig.point("sda", {1: 1})
    store.crash(1)
    rig.open().claim(writer="other", epoch=2, reason="failover", clock=rig.clock)
    with pytest.raises(Fenced):
        rig.point("sda", {2: 2})


def test_what_the_newest_point_lost_is_known_by_disk() -> None:
    rig, _ = forgetful()
    rig.write("sdb", {1: 1})
    rig.point("sda", {1: 1})
    assert newest_damage(rig.open()) == Damage(frozenset(), {})
    before = set(packs(rig.store))
    rig.point("sda", {2: 2})
    for name in set(packs(rig.store)) - before:
        rig.store.delete(name)
    assert newest_damage(rig.open()).disks == {"sda"}, "the root of its map was there too"


def test_of_a_disk_whose_map_is_whole_only_what_was_lost_is_stored_anew() -> None:
    """It was copied in full, as if its map had been lost too."""
    rig, _ = forgetful()
    rig.point("sda", {i: i + 1 for i in range(20)})
    name = rig.point("sda", {i: i + 50 for i in range(8)}).name
    vault = rig.open()
    refs = PointReader(vault, vault.find(name)).lookup("sda", 0, 64)
    root = vault.find(name).manifest.disks[0].root
    assert root is not None
    lost = next(pack for ref in refs[:8] if str(pack := PackId(int(ref["claim"]), int(ref["random"]))) != root.pack)
    rig.store.delete(vault.access.names.pack(lost))
    assert newest_damage(rig.open()) == Damage(frozenset(), {"sda": frozenset({lost})})
    size = len(packs(rig.store))
    open_anew(rig)
    point = rig.commit()
    assert rig.restored(point.name) == rig.points[point.name]
    assert newest_damage(rig.open()) == Damage(frozenset(), {})
    assert len(packs(rig.store)) - size < 4, "not all twenty blocks again"


def test_a_pruned_predecessor_is_no_loss() -> None:
    """The slot before the head may be pruned while the next point is put."""
    rig, store = forgetful()
    rig.point("sda", {1: 1})
    rig.point("sda", {2: 2})
    done: list[bool] = []

    def prune(operation: str, name: str) -> int:
        put = rig.vault.access.names.slot(4) in store.memory.objects
        if put and operation == "get" and name.endswith(f"chain/{3:012d}") and not done:
            done.append(True)
            rig.prune(RetentionRules(keep_all=timedelta(0)))
        return 0

    store.crash_before = prune
    rig.point("sda", {3: 3})
    assert done and list_slots(rig.vault.access)[0] > 3
    rig.check_every_visible_point()


@pytest.mark.parametrize("count", [1, LOOKED_UP + 5], ids=["asked for one by one", "listed"])
def test_missing_packs(count: int) -> None:
    store = MemoryStore()
    names = MachineVault.open(store, KEK, "a.b", create=True).access.names
    wanted = [PackId(3, number) for number in range(count)] + [PackId(7, 1)]
    for pack in wanted[1:]:
        store.put(names.pack(pack), b"x")
    assert missing_packs(store, names, wanted) == {wanted[0]}
    assert missing_packs(store, names, wanted[1:]) == frozenset()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_lost_visible_points_are_exact_or_named_and_it_heals(seed: int) -> None:
    """The store crashes before random operations and takes back up to a dozen changes each time."""
    chance = random.Random(seed)
    rig, store = forgetful()

    def crash(operation: str, name: str) -> int:
        return chance.randint(1, 12) if chance.random() < 0.02 else 0

    rig.point("sda", {1: 1})
    rig.write("sdb", {0: 5})
    store.undo.clear()  # what was written long ago is not lost
    store.crash_before = crash
    for turn in range(12):
        try:
            rig.point(chance.choice(["sda", "sdb"]), {chance.randrange(30): chance.randrange(50) for _ in range(3)})
            if turn % 5 == 4:
                store.undo.clear()
        except (StoreLost, DiskSpoiled):
            open_until_it_works(rig)
    store.crash_before = lambda *_: 0
    open_until_it_works(rig)
    last = rig.commit().name
    assert newest_damage(rig.open()) == Damage(frozenset(), {})
    report = check(rig, read_data=True)
    assert last not in report.spoiled
    for name in rig.names():
        assert name in report.spoiled or exact(rig, name), name


def open_until_it_works(rig: Rig) -> None:
    for _ in range(50):
        try:
            return open_anew(rig)
        except (StoreLost, DiskSpoiled):
            continue
    raise AssertionError("it does not open")
