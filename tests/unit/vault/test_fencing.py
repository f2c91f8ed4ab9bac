"""Invariant 4: two writers never extend one chain, however long one was stalled."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.contract.faulty_store import WrappedStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import Rig

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.vault.chain import ChainWriter, Fenced, list_slots, read_slots
from farshore_engine.vault.records import RecordKind
from farshore_engine.vault.retention import RetentionRules


def rigs(store: MemoryStore, **second: object) -> tuple[Rig, Rig]:
    """Two process servers on one vault, the second with a higher epoch unless told otherwise."""
    first = Rig(store, writer_name="ps-1", epoch=1)
    first.point("sda", {1: 1})
    other = Rig(store, **({"writer_name": "ps-2", "epoch": 2} | second))  # type: ignore[arg-type]
    other.disks = {name: bytearray(content) for name, content in first.disks.items()}
    return first, other


def assert_dense(rig: Rig) -> None:
    numbers = list_slots(rig.vault.access)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    catalogue = rig.vault.catalogue()
    assert catalogue.damaged == ()
    claims = [s.record.header.claim for s in read_slots(rig.vault.access, numbers) if s.record]
    assert claims == sorted(claims)


@pytest.mark.parametrize(
    ("writer", "epoch"),
    [
        pytest.param("ps-2", 2, id="another server with a higher epoch"),
        pytest.param("ps-1", 1, id="the same server, started twice"),
        pytest.param("failover", 7, id="a failover"),
    ],
)
def test_the_earlier_writer_stops(writer: str, epoch: int) -> None:
    first, second = rigs(MemoryStore(), writer_name=writer, epoch=epoch)
    first.write("sda", {2: 2})
    with pytest.raises(Fenced) as caught:
        first.commit()
    assert (caught.value.epoch, caught.value.writer) == (epoch, writer)
    second.point("sda", {3: 3})
    with pytest.raises(Fenced):
        first.commit()
    assert len(second.names()) == 2
    assert second.restored(second.names()[-1]) == {"sda": bytes(second.disks["sda"])}
    assert_dense(second)


@pytest.mark.parametrize(
    ("writer", "epoch"),
    [
        pytest.param("ps-1", 4, id="a lower epoch"),
        pytest.param("ps-2", 4, id="its own old epoch"),
        pytest.param("ps-3", 5, id="the head's epoch under another name"),
    ],
)
def test_an_opening_that_is_out_of_date_is_refused_with_the_head_epoch(writer: str, epoch: int) -> None:
    rig = Rig(writer_name="ps-2", epoch=5)
    slots = list_slots(rig.vault.access)
    with pytest.raises(Fenced) as caught:
        rig.vault.claim(writer=writer, epoch=epoch, reason="x")
    assert (caught.value.epoch, caught.value.writer) == (5, "ps-2")
    assert "epoch 6" in caught.value.remedy
    assert list_slots(rig.vault.access) == slots
    assert rig.vault.catalogue().epoch == 5


class StallingStore(WrappedStore):
    """Stalls a chosen put between the writer's last check and the store."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.stalled, self.go_on, self.armed = threading.Event(), threading.Event(), False

    def before(self, operation: str, name: str) -> None:
        if self.armed and operation == "put" and "/chain/0" in name:
            self.armed = False
            self.stalled.set()
            assert self.go_on.wait(60)


@pytest.mark.parametrize("pruned", [False, True], ids=["the fence is there", "the fence was pruned away meanwhile"])
def test_a_writer_stalled_between_its_last_check_and_its_put_loses(pruned: bool) -> None:
    memory = MemoryStore()
    store = StallingStore(memory)
    first = Rig(store, writer_name="ps-1", epoch=1)
    first.point("sda", {1: 1})
    first.write("sda", {2: 2})
    store.armed = True
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(first.commit)
        assert store.stalled.wait(60)
        second = Rig(memory, writer_name="ps-2", epoch=2)
        second.disks = {"sda": bytearray(first.points[first.names()[0]]["sda"])}
        for value in range(4):
            second.point("sda", {10: value + 1})
        if pruned:
            second.prune(RetentionRules(keep_all=second.clock() - second.clock()))
            assert list_slots(second.vault.access)[0] > first.chain.claim + 2
        before = second.names()
        store.go_on.set()
        with pytest.raises(Fenced):
            stalled.result()
    assert second.names() == before
    assert_dense(second)
    second.point("sda", {11: 1})
    second.prune(RetentionRules())
    second.points |= first.points
    second.check_every_visible_point()


def test_claims_that_race_are_in_one_order() -> None:
    store = MemoryStore()
    vault = Rig(store).vault
    start = threading.Barrier(8)

    def claim(number: int) -> ChainWriter | None:
        start.wait()
        try:
            return vault.claim(writer=f"ps-{number}", epoch=number + 2, reason="race")
        except (Fenced, WaitFault):
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [c for c in pool.map(claim, range(8)) if c is not None]
    numbers = list_slots(vault.access)
    records = [s.record for s in read_slots(vault.access, numbers)]
    epochs = [r.header.epoch for r in records if r is not None]
    assert epochs == sorted(set(epochs))
    assert sorted(c.claim for c in won) == numbers[1:]
    assert all(r is not None and r.header.kind is RecordKind.FENCE for r in records)


def test_a_fenced_writer_prunes_nothing() -> None:
    first, second = rigs(MemoryStore())
    second.point("sda", {3: 3})
    before = dict(second.store.objects)  # type: ignore[attr-defined]
    with pytest.raises(Fenced):
        first.prune(RetentionRules(keep_all=first.clock() - first.clock()))
    assert second.store.objects == before  # type: ignore[attr-defined]


def test_a_damaged_head_is_not_written_over() -> None:
    rig = Rig()
    rig.point("sda", {1: 1})
    name = rig.vault.access.names.slot(rig.chain.head)
    rig.store.put(name, rig.store.get(name)[0][:-1])
    with pytest.raises(StopFault) as caught:
        rig.start()
    assert caught.value.reason == "ChainDamaged"


def test_a_base_that_names_no_slot_is_ignored() -> None:
    rig = Rig()
    rig.point("sda", {1: 1})
    rig.store.put(rig.vault.access.names.base, b"999999")
    rig.point("sda", {2: 2})
    rig.prune(RetentionRules())
    rig.check_every_visible_point()
    assert len(rig.names()) == 2
