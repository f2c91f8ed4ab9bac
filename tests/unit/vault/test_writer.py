"""Points as a process server writes them and as anybody restores them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.faulty_store import FaultyStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import Rig, block_of, packs

from farshore_engine.blocks.content import digest_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.vault.encoding import refs_from_bytes
from farshore_engine.vault.pack import SealedPack
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import PointWriter


def test_every_point_restores_to_the_instant_it_was_made() -> None:
    rig = Rig()
    rig.write("sda", {i: i + 1 for i in range(64)})
    rig.write("sdb", {3: 7}, size=5 * BLOCK_SIZE + 512)
    rig.commit()
    rig.point("sda", {5: 100, 63: 101})
    rig.point("sda", {5: 0, 6: 0, 7: 102})
    rig.point("sdb", {5: 9})
    rig.check_every_visible_point()
    assert len(rig.names()) == 4


def test_a_point_costs_what_changed() -> None:
    rig = Rig()
    first = rig.point("sda", {i: i + 1 for i in range(400)}, size=700 * BLOCK_SIZE)
    second = rig.point("sda", {234: 9999})
    assert first.bytes_changed == 400 * BLOCK_SIZE
    assert second.bytes_changed == BLOCK_SIZE
    assert second.bytes_stored < 2 * BLOCK_SIZE
    assert rig.restored(second.name) == rig.points[second.name]


def test_what_did_not_change_is_not_stored_again() -> None:
    rig = Rig()
    rig.point("sda", {i: i + 1 for i in range(64)})
    before = packs(rig.store)
    point = rig.point("sda", {i: i + 1 for i in range(64)})
    assert point.bytes_changed == point.bytes_stored == 0
    assert packs(rig.store) == before
    rig.check_every_visible_point()


def test_a_block_that_changes_back_before_the_point_is_as_it_was() -> None:
    """Dropping "unchanged" blocks must not leave the version in between, which is pending already."""
    rig = Rig()
    rig.point("sda", {1: 1})
    rig.write("sda", {1: 2})
    rig.write("sda", {1: 1})
    rig.commit()
    rig.check_every_visible_point()


def test_digests_to_compare_with_count_what_is_pending() -> None:
    """A resync compares with what the next point would be, not with the last point: a block that was sent since and
    changed back in a gap of the tracking has the last point's digest, and would else stay wrong."""
    rig = Rig()
    rig.point("sda", {1: 1, 2: 2})
    rig.write("sda", {1: 11, 2: 0})
    digests, hole = rig.writer.digests_of("sda", 0, 4)
    expected = digest_blocks(rig.vault.digest_key, block_of(0) + block_of(11) + block_of(0) + block_of(0))
    assert (digests == expected).all()
    assert hole.tolist() == [True, False, True, True]


def test_zeros_are_holes_and_take_no_space() -> None:
    rig = Rig()
    rig.point("sda", {i: i + 1 for i in range(64)})
    rig.change("sda", dict.fromkeys(range(10, 60), 0))
    rig.writer.add_zeros("sda", 10, 50)
    assert rig.commit().bytes_stored < 5000
    rig.check_every_visible_point()


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([10, 300], id="grows by a level"),
        pytest.param([300, 10], id="shrinks by a level"),
        pytest.param([300, 400, 5], id="grows and shrinks by a level"),
        pytest.param([256, 257, 256], id="across a leaf's edge"),
        pytest.param([40, 39.5, 41.25, 39.25], id="with a short last block"),
    ],
)
def test_a_disk_may_change_its_size(sizes: list[float]) -> None:
    """From the old end on the agent sends everything, because the new room is not known to be zeros."""
    rig = Rig()
    before = 0
    for turn, blocks in enumerate(sizes):
        size = int(blocks * BLOCK_SIZE)
        end = -(-size // BLOCK_SIZE)
        first = min(before // BLOCK_SIZE, end - 1)
        changes = {i: turn * 1000 + i + 1 for i in {0, first, end // 2, end - 1}}
        rig.change("sda", changes, size)
        rig.send("sda", sorted(set(changes) | set(range(first, min(end, first + 50)))))
        rig.commit()
        before = size
    for name, disks in rig.points.items():
        assert rig.restored(name) == disks


def test_a_disk_that_shrinks_and_grows_shows_nothing_of_before() -> None:
    rig = Rig()
    rig.point("sda", {i: i + 1 for i in range(64)})
    rig.point("sda", {}, size=8 * BLOCK_SIZE)
    rig.point("sda", {}, size=64 * BLOCK_SIZE)
    rig.check_every_visible_point()


def test_a_restarted_process_server_goes_on_at_the_head() -> None:
    rig = Rig()
    first = rig.point("sda", {1: 1})
    rig.start()
    assert rig.writer.last is not None
    assert rig.writer.last.manifest.name == first.name
    rig.point("sda", {2: 2})
    rig.check_every_visible_point()


class Spool:
    """A spool as the process server has one: packs are on disk before they are uploaded, refs in a journal."""

    def __init__(self) -> None:
        self.packs: list[SealedPack] = []
        self.journal: list[tuple[str, bytes]] = []

    def accept(self, pack: SealedPack) -> None:
        self.packs.append(SealedPack(pack.id, memoryview(bytes(pack.data))))

    def drain(self) -> None:
        raise WaitFault("the vault is away")


def test_what_was_spooled_survives_the_process() -> None:
    rig = Rig()
    rig.point("sda", {1: 1, 2: 2})
    spool = Spool()
    rig.writer = PointWriter(rig.vault, rig.vault.claim(writer="ps-1", epoch=1, reason="restart"), spool)
    for blocks in ({1: 11, 5: 5}, {5: 55, 2: 0}, {1: 1}):
        rig.change("sda", blocks)
        numbers = np.array(sorted(blocks), np.int64)
        refs = rig.writer.add("sda", numbers, b"".join(block_of(blocks[i]) for i in sorted(blocks)))
        spool.journal.append(("sda", refs.tobytes()))
        rig.writer.flush()
    with pytest.raises(WaitFault):
        rig.writer.commit(rig.fields())

    rig.start()
    for pack in spool.packs:
        rig.sink.accept(pack)
    for disk, data in spool.journal:
        rig.writer.resume(disk, refs_from_bytes(data))
    assert {p.id for p in spool.packs if p.id.claim != rig.chain.claim} <= rig.writer.in_flight | {spool.packs[-1].id}
    rig.commit()
    rig.check_every_visible_point()
    assert len(rig.names()) == 2


def test_a_pack_that_the_spool_refused_is_offered_again() -> None:
    rig = Rig()
    full = True

    class FullSpool(PackUploader):
        def accept(self, pack: SealedPack) -> None:
            if full:
                raise WaitFault("the spool is full")
            super().accept(pack)

    sink = FullSpool(rig.store, rig.vault.access.names)
    rig.writer = PointWriter(rig.vault, rig.vault.claim(writer="ps-1", epoch=1, reason="x"), sink)
    rig.write("sda", {1: 1, 2: 2})
    for _ in range(2):
        with pytest.raises(WaitFault):
            rig.writer.flush()
    with pytest.raises(WaitFault):
        rig.commit()
    full = False
    rig.commit()
    rig.check_every_visible_point()


def test_several_threads_add_at_once() -> None:
    rig = Rig(pack_target=1 << 20, fold_at=300)
    rig.change("sda", {i: i + 1 for i in range(600)}, size=600 * BLOCK_SIZE)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda first: rig.send("sda", list(range(first, first + 30))), range(0, 600, 30)))
    rig.commit()
    rig.check_every_visible_point()


def test_the_same_block_twice_at_a_time_is_refused() -> None:
    store = MemoryStore()
    inside, go_on = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def get_range(self, name: str, offset: int, length: int) -> bytes:
            inside.set()
            assert go_on.wait(60)
            return super().get_range(name, offset, length)

    rig = Rig(store)
    rig.point("sda", {1: 1})
    slow = Slow()
    slow.objects = store.objects
    rig.store, rig.vault = slow, Rig.open(Rig(slow, epoch=1))
    rig.start()
    rig.change("sda", {1: 2})
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(rig.send, "sda", [1])
        assert inside.wait(60)
        with pytest.raises(ValueError, match="twice at a time"):
            rig.send("sda", [1])
        go_on.set()
        adding.result()
    rig.commit()
    assert rig.restored(rig.names()[-1]) == {"sda": bytes(rig.disks["sda"])}


def test_what_is_folded_early_is_readable_before_it_is_uploaded() -> None:
    """With a tiny cache, nodes of packs that are still open must be read back in the middle of a point."""
    rig = Rig(fold_at=4)
    rig.vault.nodes._limit = 1
    rig.change("sda", {}, size=600 * BLOCK_SIZE)
    for turn in range(12):
        rig.write("sda", {turn: turn + 1, 300 + turn: turn + 50, 590 - turn: turn + 90})
    rig.commit()
    rig.check_every_visible_point()


def test_a_storm_of_503_delays_a_point_and_loses_nothing() -> None:
    store = MemoryStore()
    storm = {"left": 0}

    def plan(operation: str, name: str) -> str | None:
        if storm["left"] > 0 and operation in ("put", "put_if"):
            storm["left"] -= 1
            return "503" if storm["left"] % 2 else "lost"
        return None

    rig = Rig(FaultyStore(store, plan))
    for turn in range(6):
        rig.write("sda", {turn: turn + 1, 20: turn})
        fields = rig.fields()
        storm["left"] = turn
        for _ in range(20):
            try:
                point = rig.writer.commit(fields)
                break
            except WaitFault:
                continue
        rig.points[point.name] = {"sda": bytes(rig.disks["sda"])}
    clean = MemoryStore()
    clean.objects = store.objects
    rig.store = clean
    for name in rig.points:
        assert rig.restored(name) == rig.points[name]


def test_numbers_that_do_not_ascend_are_refused() -> None:
    rig = Rig()
    with pytest.raises(ValueError, match="ascend"):
        rig.writer.add("sda", np.array([2, 1]), block_of(1) * 2)
    with pytest.raises(ValueError, match="blocks announced"):
        rig.writer.add("sda", np.array([1, 2]), block_of(1))


def test_a_point_that_is_not_there_is_named() -> None:
    rig = Rig()
    with pytest.raises(StopFault) as caught:
        rig.vault.find("p-20250101t000000z-9")
    assert caught.value.reason == "NoSuchRecoveryPoint"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([0, 1, 2, 3, 100, 254, 255, 256, 257, 299]), st.integers(0, 6)), max_size=12
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([2, 5, 1000]),
)
def test_any_series_of_points_restores(points: list[list[tuple[int, int]]], fold_at: int) -> None:
    rig = Rig(fold_at=fold_at, pack_target=1 << 17)
    rig.change("sda", {}, size=300 * BLOCK_SIZE)
    for blocks in points:
        for index, value in blocks:  # one by one, so that repetitions follow each other
            rig.write("sda", {index: value})
        rig.commit()
    rig.check_every_visible_point()
