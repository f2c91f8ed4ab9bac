"""Invariant 1: a point becomes visible only when every byte that it needs is durable in the vault."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.contract.faulty_store import DyingStore, FaultyStore, Killed, RecordingStore, WrappedStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import Rig

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.chain import list_slots
from farshore_engine.vault.mapdiff import packs_of
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.retention import RetentionRules


def test_every_pack_is_durable_before_the_slot_is_put() -> None:
    """Uploads are slow here; the slot must wait for all of them."""
    memory = MemoryStore()
    missing: list[str] = []

    class Slow(WrappedStore):
        def before(self, operation: str, name: str) -> None:
            if operation == "put" and "/packs/" in name:
                time.sleep(0.02)
            if operation == "put" and "/chain/" in name and "packs" in needed:
                missing.extend(p for p in needed["packs"] if p not in memory.objects)

    needed: dict[str, list[str]] = {}
    rig = Rig(Slow(memory), pack_target=1 << 17)
    rig.write("sda", {i: i + 1 for i in range(40)})
    original = rig.chain.append

    def append(manifest):  # type: ignore[no-untyped-def]
        made = manifest(rig.chain.head + 1)
        reached: set[str] = set()
        for disk in made.disks:
            block_map = BlockMap(disk.id, 64, disk.root.ref(), rig.vault.nodes)
            for packs in packs_of(block_map, None):
                reached |= {rig.vault.access.names.pack(p) for p in packs}
        needed["packs"] = sorted(reached)
        return original(manifest)

    rig.chain.append = append  # type: ignore[method-assign]
    rig.commit()
    assert len(needed["packs"]) > 3
    assert missing == []
    rig.check_every_visible_point()


@pytest.mark.parametrize("after_effect", [False, True], ids=["before it takes effect", "after it took effect"])
def test_killed_at_any_store_operation_only_whole_points_are_visible(after_effect: bool) -> None:
    deaths = 0
    for at in range(60):
        rig = Rig(pack_target=1 << 17)
        rig.point("sda", {i: i + 1 for i in range(6)})
        rig.vault = _on(rig, DyingStore(rig.store, at, after_effect=after_effect))
        finished = False
        try:
            rig.start()
            rig.write("sda", {i: i + 50 for i in range(3, 12)})
            rig.points["next"] = {name: bytes(content) for name, content in rig.disks.items()}
            rig.commit()
            finished = True
        except Killed:
            deaths += 1
        names = rig.names()
        assert rig.restored(names[0]) == rig.points[names[0]]
        for name in names[1:]:
            assert rig.restored(name) == rig.points["next"]
        if finished:
            assert len(names) == 2
            break
        rig.vault = rig.open()  # a new process goes on where the vault is
        rig.start()
        rig.send("sda", list(range(64)))
        point = rig.commit()
        assert rig.restored(point.name) == rig.points[point.name]
    assert deaths >= 4


def _on(rig: Rig, store: DyingStore):  # type: ignore[no-untyped-def]
    whole, rig.store = rig.store, store
    try:
        return rig.open()
    finally:
        rig.store = whole
        rig.start = lambda: _start_on(rig, store)  # type: ignore[method-assign]


def _start_on(rig: Rig, store: DyingStore) -> None:
    whole, rig.store = rig.store, store  # type: ignore[assignment]
    try:
        Rig.start(rig)
    finally:
        rig.store = whole
        del rig.start


def test_a_failed_upload_keeps_the_point_invisible_until_it_is_repaired() -> None:
    away = threading.Event()

    def plan(operation: str, name: str) -> str | None:
        return "503" if away.is_set() and "/packs/" in name and operation == "put" else None

    store = FaultyStore(MemoryStore(), plan)
    rig = Rig(store)
    rig.point("sda", {1: 1})
    away.set()
    rig.write("sda", {2: 2})
    for _ in range(2):
        with pytest.raises(WaitFault):
            rig.commit()
        assert len(rig.names()) == 1
    away.clear()
    rig.commit()
    assert len(rig.names()) == 2
    rig.check_every_visible_point()


def test_a_lost_answer_of_the_slot_is_settled_before_the_next_point() -> None:
    lose = {"slots": 0}

    def plan(operation: str, name: str) -> str | None:
        if lose["slots"] and operation == "put" and "/chain/" in name:
            lose["slots"] -= 1
            return "lost"
        return None

    rig = Rig(FaultyStore(MemoryStore(), plan))
    rig.point("sda", {1: 1})
    rig.write("sda", {2: 2})
    lose["slots"] = 1
    with pytest.raises(WaitFault):
        rig.commit()
    first = {"sda": bytes(rig.disks["sda"])}
    rig.write("sda", {3: 3})
    point = rig.commit()
    names = rig.names()
    assert len(names) == 3
    assert rig.restored(names[1]) == first
    assert rig.restored(point.name) == rig.points[point.name]


def test_a_repeated_commit_finds_its_point_and_keeps_what_came_since_in_flight() -> None:
    """The answer to the slot was lost, the agent sent more, then the commit was repeated with the same fields."""
    lose = {"slots": 0}

    def plan(operation: str, name: str) -> str | None:
        if lose["slots"] and operation == "put" and "/chain/" in name:
            lose["slots"] -= 1
            return "lost"
        return None

    rig = Rig(FaultyStore(MemoryStore(), plan))
    rig.point("sda", {1: 1})
    rig.write("sda", {2: 2})
    fields, content = rig.fields(), {"sda": bytes(rig.disks["sda"])}
    lose["slots"] = 1
    with pytest.raises(WaitFault):
        rig.writer.commit(fields)
    rig.write("sda", {3: 3})
    rig.writer.flush()
    rig.sink.drain()
    point = rig.writer.commit(fields)
    assert len(rig.names()) == 2
    assert rig.restored(point.name) == content
    rig.points[point.name] = content
    rig.prune(RetentionRules())
    rig.commit()
    rig.check_every_visible_point()


def test_an_uploader_that_is_closed_under_a_commit_lets_no_point_appear() -> None:
    """The process server stops while packs wait for their turn: they are not uploaded, so the point must not be put."""
    release = threading.Event()

    class Slow(WrappedStore):
        def before(self, operation: str, name: str) -> None:
            if operation == "put" and "/packs/" in name:
                release.wait(60)

    rig = Rig(Slow(MemoryStore()), pack_target=1 << 17)
    rig.write("sda", {i: i + 1 for i in range(60)})
    with ThreadPoolExecutor(2) as pool:
        committing = pool.submit(rig.commit)
        while rig.sink._running < 4:
            time.sleep(0.01)
        closing = pool.submit(rig.sink.close, abandon=True)
        while not rig.sink._pool._shutdown:  # what waited for its turn is left out now
            time.sleep(0.01)
        release.set()
        closing.result()
        with pytest.raises(WaitFault, match="closed"):
            committing.result()
    assert rig.names() == []


def test_opening_the_newest_point_does_not_read_the_whole_chain() -> None:
    store = RecordingStore(MemoryStore())
    rig = Rig(store)
    for turn in range(60):
        rig.point("sda", {turn: turn + 1})
    store.calls.clear()
    newest = rig.vault.newest()
    assert newest is not None
    assert newest.slot == list_slots(rig.vault.access)[-1]
    assert len([1 for op, name in store.calls if op == "get" and "/chain/" in name]) < 12
    assert PointReader(rig.vault, newest).read_blocks("sda", 0, 64) == rig.disks["sda"]
