"""Invariant 5: pruning deletes nothing that a kept, pinned or in-flight point needs, wherever it is killed."""

from __future__ import annotations

import contextlib
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.faulty_store import DyingStore, Killed, RecordingStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import Rig, block_of, packs

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.chain import list_slots
from farshore_engine.vault.names import PackId
from farshore_engine.vault.pins import list_pins
from farshore_engine.vault.prune import prune
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import PointWriter

ONLY_NEWEST = RetentionRules(keep_all=timedelta(0))


def busy_rig(points: int = 6) -> Rig:
    """Points that share blocks with each other, each with some of its own."""
    rig = Rig(pack_target=1 << 17)
    rig.point("sda", {i: i + 1 for i in range(20)})
    for turn in range(1, points):
        rig.point("sda", {turn: 100 + turn, turn + 1: 200 + turn, 19: 0 if turn % 2 else turn})
    return rig


def copied(rig: Rig) -> MemoryStore:
    assert isinstance(rig.store, MemoryStore)
    store = MemoryStore()
    store.objects = copy.copy(rig.store.objects)
    store._versions = copy.copy(rig.store._versions)
    return store


def test_expired_points_go_and_the_others_restore() -> None:
    rig = busy_rig()
    before = packs(rig.store)
    names = rig.names()
    report = rig.prune(RetentionRules(keep_all=timedelta(minutes=11)))
    assert rig.names() == names[-3:]
    assert len(report.buried) == 3
    assert report.packs_deleted == len(before) - len(packs(rig.store)) > 0
    rig.check_every_visible_point()
    assert list_slots(rig.vault.access)[0] == rig.vault.catalogue().points[0].slot
    rig.point("sda", {4: 4})
    rig.check_every_visible_point()


def test_the_newest_point_always_stays() -> None:
    rig = busy_rig()
    newest = rig.names()[-1]
    rig.clock.now += timedelta(days=400)
    rig.prune(ONLY_NEWEST)
    assert rig.names() == [newest]
    rig.check_every_visible_point()


def test_a_pinned_point_stays_until_it_is_released() -> None:
    rig = busy_rig()
    names = rig.names()
    pinned = rig.vault.find(names[1])
    rig.vault.pin(pinned, "run-1")
    rig.vault.pin(pinned, "drill-1")
    report = rig.prune(ONLY_NEWEST)
    assert rig.names() == [names[1], names[-1]]
    assert report.kept[pinned.slot] == ["pinned by drill-1, run-1"]
    rig.check_every_visible_point()
    rig.vault.unpin(pinned.slot, "run-1")
    rig.prune(ONLY_NEWEST)
    assert names[1] in rig.names()
    rig.vault.unpin(pinned.slot, "drill-1")
    rig.prune(ONLY_NEWEST)
    assert rig.names() == [names[-1]]


def test_packs_in_flight_stay() -> None:
    """A point whose packs are uploaded and whose slot is not put yet."""
    rig = busy_rig()
    rig.write("sda", {2: 77, 3: 78})
    rig.writer.flush()
    rig.sink.drain()
    uploaded = {n for n in packs(rig.store) if any(str(p) in n for p in rig.writer.in_flight)}
    assert uploaded
    rig.prune(ONLY_NEWEST)
    assert uploaded <= set(packs(rig.store))
    rig.commit()
    rig.check_every_visible_point()


def test_a_pack_that_is_uploaded_after_the_look_at_what_is_in_flight_stays() -> None:
    """The packs are listed before that look, so one that comes later is not among them."""
    rig = busy_rig()

    def in_flight() -> frozenset[PackId]:
        seen = rig.writer.in_flight
        rig.write("sda", {2: 77})
        rig.writer.flush()
        rig.sink.drain()
        return seen

    prune(rig.vault, rig.chain, ONLY_NEWEST, in_flight=in_flight, clock=rig.clock)
    rig.commit()
    rig.check_every_visible_point()


def test_a_point_that_is_committed_just_before_the_look_at_what_is_in_flight_keeps_its_packs() -> None:
    """Its packs were listed and are in flight no more; the chain is read after that look, so the point is seen."""
    rig = busy_rig()
    rig.write("sda", {2: 77})
    rig.writer.flush()
    rig.sink.drain()

    def in_flight() -> frozenset[PackId]:
        rig.commit()
        return rig.writer.in_flight

    prune(rig.vault, rig.chain, ONLY_NEWEST, in_flight=in_flight, clock=rig.clock)
    assert len(rig.names()) == 1
    rig.check_every_visible_point()


def test_a_pack_of_a_block_that_was_being_encoded_during_a_commit_stays() -> None:
    """Its pack was sealed and uploaded with that point, but it is the next one that refers to it."""
    rig = busy_rig()
    encoded, go_on = threading.Event(), threading.Event()
    blocks = rig.writer._encoder.blocks

    def slow(*args: Any, **kwargs: Any) -> Any:
        refs = blocks(*args, **kwargs)
        encoded.set()
        assert go_on.wait(60)
        return refs

    rig.writer._encoder.blocks = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        content = bytes(rig.disks["sda"])
        rig.change("sda", {2: 77})
        adding = pool.submit(rig.send, "sda", [2])
        assert encoded.wait(60)
        point = rig.writer.commit(rig.fields())
        go_on.set()
        adding.result()
    rig.points[point.name] = {"sda": content}
    rig.prune(ONLY_NEWEST)
    rig.commit()
    rig.check_every_visible_point()


def test_packs_that_an_earlier_process_spooled_stay_once_they_are_resumed() -> None:
    rig = busy_rig()
    rig.change("sda", {2: 77})
    refs = rig.writer.add("sda", np.array([2]), block_of(77))
    rig.writer.flush()
    rig.sink.drain()
    rig.start()
    rig.writer.resume("sda", refs)
    rig.prune(ONLY_NEWEST)
    rig.commit()
    rig.check_every_visible_point()


def test_what_a_dead_writer_left_behind_goes() -> None:
    rig = busy_rig()
    before = set(packs(rig.store))
    rig.write("sda", {2: 77})
    rig.writer.flush()
    rig.sink.drain()
    left = set(packs(rig.store)) - before
    rig.start()
    rig.prune(RetentionRules())
    assert left and not left & set(packs(rig.store))
    assert before == set(packs(rig.store))


def test_a_stalled_prune_leaves_the_packs_of_a_new_writer() -> None:
    """It has looked who holds the chain; then the machine is assigned anew, and the new writer uploads."""
    rig = busy_rig()
    found: list[str] = []

    def in_flight() -> frozenset[PackId]:
        return rig.writer.in_flight

    class Stalls(RecordingStore):
        def before(self, operation: str, name: str) -> None:
            if operation == "delete" and "/packs/" in name and not found:
                second = Rig(rig.store, writer_name="ps-2", epoch=2)
                second.disks = {"sda": bytearray(rig.disks["sda"])}
                second.write("sda", {30: 30})
                second.writer.flush()
                second.sink.drain()
                found.append("uploaded")
                found.extend(packs(rig.store))
                rig.disks = second.disks
                rig.writer = second.writer

    store = Stalls(rig.store)
    vault = rig.vault
    vault.access = type(vault.access)(store, vault.access.names, vault.access.keys)
    prune(vault, rig.chain, ONLY_NEWEST, in_flight=in_flight, clock=rig.clock)
    assert found
    rig.commit()
    rig.check_every_visible_point()


def test_packs_of_a_later_claim_are_not_touched_even_if_nothing_reaches_them() -> None:
    rig = busy_rig()
    access = rig.vault.access
    later = access.names.packs + f"{rig.chain.claim + 100:012d}-00000000deadbeef"
    rig.store.put(later, b"of a writer that this pruner has not heard of")
    rig.prune(ONLY_NEWEST)
    assert later in packs(rig.store)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before it takes effect", "after it took effect"])
@pytest.mark.parametrize("pinned", [False, True], ids=["nothing pinned", "one pinned"])
def test_killed_at_each_store_operation_it_is_finished_by_the_next(after_effect: bool, pinned: bool) -> None:
    origin = busy_rig()
    names = origin.names()
    if pinned:
        origin.vault.pin(origin.vault.find(names[2]), "run-1")
    wanted = {names[-1], names[-2]} | ({names[2]} if pinned else set())
    rules = RetentionRules(keep_all=timedelta(minutes=6))
    deaths = 0
    for at in range(200):
        rig = Rig(copied(origin), pack_target=1 << 17)
        rig.points, rig.disks, rig.clock.now = origin.points, copy.deepcopy(origin.disks), origin.clock.now
        dying = DyingStore(rig.store, at, after_effect=after_effect)
        access = rig.vault.access
        rig.vault.access = type(access)(dying, access.names, access.keys)
        died = False
        try:
            rig.prune(rules)
        except Killed:
            died = True
            deaths += 1
        assert wanted <= set(rig.names())
        rig.check_every_visible_point()
        rig.vault.access = access
        rig.start()
        rig.prune(rules)
        assert set(rig.names()) == wanted
        rig.check_every_visible_point()
        rig.point("sda", {7: 7})
        rig.check_every_visible_point()
        if not died:
            break
    assert not died
    assert deaths > 9


def test_a_pin_at_any_moment_of_a_prune_holds_or_is_refused() -> None:
    """Whoever was told that a point is pinned can restore it, also after the next prune."""
    outcomes = [_pin_before_operation(at) for at in range(60)]
    assert {True, False, None} == set(outcomes)
    assert outcomes[-1] is None


def _pin_before_operation(at: int) -> bool | None:
    """Pin before the prune's operation `at`; return whether that was granted, None if the prune was over before."""
    rig = busy_rig(4)
    names = rig.names()
    target = rig.vault.find(names[1])
    told: list[bool] = []

    def on(operation: str, name: str) -> None:
        if len(store.calls) == at and not told:
            told.append(False)
            try:
                clean.pin(target, "run-1")
                told[0] = True
            except StopFault as fault:
                assert fault.reason == "PointGone"

    clean = rig.open()
    store = RecordingStore(rig.store, on)
    access = rig.vault.access
    rig.vault.access = type(access)(store, access.names, access.keys)
    rig.prune(ONLY_NEWEST)
    rig.vault.access = access
    if not told:
        return None
    for _ in range(2):
        assert (names[1] in rig.names()) == told[0]
        rig.check_every_visible_point()
        rig.prune(ONLY_NEWEST)
    if not told[0]:
        assert list_pins(access) == {}
    return told[0]


@pytest.mark.parametrize("at", range(30))
def test_a_prune_killed_with_a_pin_in_its_way_leaves_the_point_whole(at: int) -> None:
    """The pin comes right after the tombstone was put or before; the pruner dies; the next one brings the point back
    or the pin was refused."""
    rig = busy_rig(4)
    names = rig.names()
    target = rig.vault.find(names[1])
    slot = rig.vault.access.names.slot(target.slot)
    pinned: list[bool] = []
    clean = rig.open()

    def on(operation: str, name: str) -> None:
        if operation == "put_if" and name == slot and not pinned:
            clean.pin(target, "run-1")
            pinned.append(True)

    access = rig.vault.access
    store = DyingStore(RecordingStore(rig.store, on), at, after_effect=True)
    rig.vault.access = type(access)(store, access.names, access.keys)
    with contextlib.suppress(Killed):
        rig.prune(ONLY_NEWEST)
    rig.vault.access = access
    if pinned:
        assert rig.restored(names[1]) == rig.points[names[1]]
        rig.start()
        rig.prune(ONLY_NEWEST)
        assert rig.restored(names[1]) == rig.points[names[1]]
        clean.pin(clean.find(names[1]), "run-2")


def test_a_stalled_pruner_cannot_bury_what_another_brought_back() -> None:
    rig = busy_rig(4)
    names = rig.names()
    target = rig.vault.find(names[1])
    slot = rig.vault.access.names.slot(target.slot)
    seen = {"puts": 0}

    def on(operation: str, name: str) -> None:
        if operation == "put_if" and name == slot:
            seen["puts"] += 1
            if seen["puts"] == 2:  # it is about to bury; somebody whose pin outlived him had pinned before
                clean.store.put(clean.names.pin(target.slot, "run-1"), b"{}")
                second = Rig(rig.store, writer_name="ps-2", epoch=2)
                second.prune(ONLY_NEWEST)

    clean = rig.vault.access
    rig.vault.access = type(clean)(RecordingStore(rig.store, on), clean.names, clean.keys)
    rig.prune(ONLY_NEWEST)
    rig.vault.access = clean
    assert seen["puts"] == 2
    assert rig.restored(names[1]) == rig.points[names[1]]


@pytest.mark.parametrize("what", ["record", "node"])
def test_nothing_is_deleted_while_it_is_not_known_what_a_point_needs(what: str) -> None:
    rig = busy_rig()
    points = rig.vault.catalogue().points
    victim = points[-2]
    if what == "record":
        name = rig.vault.access.names.slot(victim.slot)
        rig.store.put(name, rig.store.get(name)[0][:-5])
    else:
        root = victim.manifest.disks[0].root
        assert root is not None
        name = rig.vault.access.names.packs + root.pack
        data = bytearray(rig.store.get(name)[0])
        data[root.offset] ^= 1
        rig.store.put(name, data)
    rig.vault = rig.open()
    rig.start()
    before = packs(rig.store)
    report = rig.prune(RetentionRules(keep_all=timedelta(minutes=11)))
    assert report.withheld
    assert packs(rig.store) == before


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(["point", "point", "point", "zero", "prune", "prune old", "pin", "unpin", "restart", "orphan"]),
        min_size=3,
        max_size=14,
    ),
    st.integers(0, 2**16),
)
def test_any_order_of_points_pins_and_prunes(steps: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    rig = Rig(pack_target=1 << 17)
    rig.point("sda", {i: i + 1 for i in range(8)})
    held: dict[int, str] = {}
    for number, step in enumerate(steps):
        if step in ("point", "zero"):
            rig.point("sda", {int(i): 0 if step == "zero" else number + 10 for i in random.integers(0, 12, 3)})
        elif step == "prune":
            rig.prune(ONLY_NEWEST)
        elif step == "prune old":
            rig.prune(RetentionRules(keep_all=timedelta(minutes=11)))
        elif step == "pin":
            chosen = rig.vault.find(str(random.choice(rig.names())))
            rig.vault.pin(chosen, "run")
            held[chosen.slot] = chosen.manifest.name
        elif step == "unpin" and held:
            rig.vault.unpin(slot := next(iter(held)), "run")
            held.pop(slot)
        elif step == "restart":
            rig.start()
            rig.send("sda", list(range(64)))  # the agent remembers what no point has yet
        elif step == "orphan":
            rig.write("sda", {1: number + 10})
            rig.writer.flush()
            rig.sink.drain()
        rig.check_every_visible_point()
        assert set(held.values()) <= set(rig.names())
    rig.commit()
    rig.check_every_visible_point()


def test_points_are_written_while_it_prunes() -> None:
    rig = busy_rig(4)
    stop = threading.Event()

    def prunes() -> int:
        turns = 0
        while not stop.is_set():
            rig.prune(RetentionRules(keep_all=timedelta(minutes=20)))
            turns += 1
        return turns

    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(prunes)
        for turn in range(25):
            rig.point("sda", {turn % 7: turn + 300, 40: turn})
        stop.set()
        assert pruning.result() > 0
    rig.check_every_visible_point()
    assert len(rig.names()) < 25


def test_the_writer_and_sink_of_a_test_are_the_real_ones() -> None:
    rig = Rig()
    assert isinstance(rig.writer, PointWriter)
    assert isinstance(rig.sink, PackUploader)


def test_a_damaged_point_holds_back_only_packs_that_it_may_need() -> None:
    """No pack of a later claim: all of those were kept too, for as long as the damaged point was."""
    rig = busy_rig()
    first = rig.vault.find(rig.names()[0])
    rig.vault.pin(first, "run-1")
    root = first.manifest.disks[0].root
    assert root is not None
    name = rig.vault.access.names.packs + root.pack
    rig.store.put(name, rig.store.get(name)[0][:100])
    before = set(packs(rig.store))
    rig.start()
    for turn in range(4):
        rig.point("sda", {1: 500 + turn})
    later = set(packs(rig.store)) - before
    report = rig.prune(ONLY_NEWEST)
    assert "is damaged" in report.withheld and report.spoiled[0].slot == first.slot
    left = set(packs(rig.store))
    assert len(later & left) < len(later)
    assert {pack for pack in before if pack < rig.vault.access.names.pack(PackId(first.slot, 0))} <= left
    rig.vault.unpin(first.slot, "run-1")
    rig.prune(ONLY_NEWEST)
    assert rig.prune(ONLY_NEWEST).withheld == ""
    rig.check_every_visible_point()
