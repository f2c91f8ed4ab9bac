"""A machine's whole life in a vault whose store misbehaves: on every kind of store, under every kind of fault.

Afterwards every visible point restores exactly, nothing visible is half there, and nothing that a point needs is gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from tests.contract.blob_container import real_store
from tests.contract.faulty_store import StaleListStore, UnreliableStore, WrappedStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, MACHINE, Rig

from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.chain import Access, Fenced
from farshore_engine.vault.check import check_machine
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.prune import prune
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.store import ObjectStore

T = TypeVar("T")
BLOCKS = 12  # of each disk
KINDS = {
    "lost requests": ["503"],
    "lost answers": ["lost"],
    "storms of 503": ["storm"],
    "slow and reordered": ["slow"],
    "all at once": ["503", "lost", "storm", "slow"],
}
KEEP_TWO = RetentionRules(keep_all=timedelta(minutes=8))


def persist(work: Callable[[], T], why: str) -> T:
    """Repeat what WaitFault asks to repeat, as every caller in the product does."""
    for _ in range(200):
        try:
            return work()
        except WaitFault:
            continue
    raise AssertionError(f"{why} never succeeds")


class Life:
    """Claim, points, pins, prunes, restarts, and in the end a fence and a restore, as the seed says."""

    def __init__(self, store: WrappedStore, seed: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.rig = persist(lambda: Rig(store, pack_target=1 << 16), "to open")
        self.rig.disks = {disk: bytearray(BLOCKS * 65536) for disk in ("sda", "sdb")}
        self.pinned: set[str] = set()

    def run(self, turns: int) -> None:
        for _ in range(turns):
            self.point()
            step = self.chance.random()
            if step < 0.3:
                self.prune()
            elif step < 0.45:
                self.pin()
            elif step < 0.55:
                self.restart()

    def point(self) -> None:
        rig, chance = self.rig, self.chance
        for disk in ("sda", "sdb"):
            changes = {chance.randrange(BLOCKS): chance.choice([0, chance.randrange(99)]) for _ in range(4)}
            rig.change(disk, changes)
            persist(lambda disk=disk, changes=changes: rig.send(disk, sorted(changes)), "to add")  # type: ignore[misc]
        rig.clock.now += timedelta(minutes=3)
        fields = rig.fields()
        point = persist(lambda: rig.writer.commit(fields), "to commit")
        rig.points[point.name] = {name: bytes(content) for name, content in rig.disks.items()}

    def prune(self) -> None:
        try:
            persist(lambda: self.rig.prune(KEEP_TWO), "to prune")
        except AssertionError:
            if not isinstance(self.store, StaleListStore):  # there it may well be refused each time
                raise

    def pin(self) -> None:
        vault = self.rig.vault
        points = persist(vault.catalogue, "to list").points
        if points:
            point = self.chance.choice(points)
            try:
                persist(lambda: vault.pin(point, f"pin-{len(self.pinned)}"), "to pin")
            except Fault:
                return  # it was given up meanwhile
            self.pinned.add(point.manifest.name)

    def restart(self) -> None:
        """Another process on the same host, whose agent sends everything again."""
        persist(self.rig.start, "to restart")
        for disk, content in self.rig.disks.items():
            persist(lambda disk=disk, content=content: self.rig.send(disk, list(range(len(content) // 65536))), "add")  # type: ignore[misc]


def verify(life: Life, plain: ObjectStore, image: Path | None = None) -> None:
    """See everything as somebody with a store in order sees it."""
    rig = life.rig
    vault = MachineVault.open(plain, KEK, MACHINE)
    try:
        report = check_machine(vault, read_data=True)
        assert report.findings == ()
        names = [point.manifest.name for point in vault.catalogue().points]
        assert names and names[-1] == max(rig.points, key=lambda name: int(name.rpartition("-")[2]))
        assert life.pinned <= set(names)
        for name in names:
            reader = PointReader(vault, vault.find(name))
            assert {d.id: bytes(reader.read_blocks(d.id, 0, BLOCKS)) for d in reader.disks} == rig.points[name]
        if image is not None:
            persist(lambda: hydrate(PointReader(rig.open(), vault.find(names[-1])), "sda", image), "to hydrate")
            assert image.read_bytes() == rig.points[names[-1]]["sda"]
        persist(lambda: rig.open().claim(writer="recovery", epoch=2, reason="failover", clock=rig.clock), "to fence")
        with pytest.raises(Fenced):
            life.point()
        assert [point.manifest.name for point in vault.catalogue().points] == names
    finally:
        vault.close()


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("seed", range(20))
def test_in_memory(seed: int, kinds: list[str]) -> None:
    plain = MemoryStore()
    store = UnreliableStore(plain, seed, kinds, rate=0.02 + seed % 5 * 0.02)
    life = Life(store, seed)
    life.run(6)
    verify(life, plain)


@pytest.fixture(params=["directory", "azure"])
def plain(request: pytest.FixtureRequest, tmp_path: Path, container_name: str) -> Iterator[ObjectStore]:
    with real_store(request, tmp_path, container_name) as store:
        yield store


@pytest.mark.parametrize("seed", range(3))
def test_on_real_stores(plain: ObjectStore, seed: int, tmp_path: Path) -> None:
    life = Life(UnreliableStore(plain, seed, KINDS["all at once"], rate=0.08), seed)
    life.run(5)
    verify(life, plain, tmp_path / "image")


@pytest.mark.parametrize("seed", range(40))
def test_lists_that_are_behind_lose_no_point(seed: int) -> None:
    """The store breaks its promise: points may be seen late and prunes refused, but none is lost, pinned or not."""
    plain = MemoryStore()
    store = StaleListStore(plain, seed, lag=seed % 30)
    life = Life(store, seed)
    life.run(8)
    store.lag = 0
    rig = life.rig
    vault = MachineVault.open(plain, KEK, MACHINE)
    report = check_machine(vault, read_data=True)
    names = {point.manifest.name for point in vault.catalogue().points}
    vault.close()
    assert report.findings == ()
    newest = max(rig.points, key=lambda name: int(name.rpartition("-")[2]))
    assert life.pinned | {newest} <= names
    rig.store = plain
    for name in names:
        assert rig.restored(name) == rig.points[name]


def test_a_prune_whose_lists_are_behind_is_refused_and_says_so() -> None:
    plain = MemoryStore()
    rig = Rig(plain)
    for turn in range(4):
        rig.point("sda", {turn: turn + 1})
    held = rig.vault.find(rig.names()[0])
    before = [name for name in plain.list("") if "/pins/" in name]
    rig.vault.pin(held, "drill")

    class Behind(WrappedStore):
        def list(self, prefix: str) -> Iterator[str]:
            return iter(before) if "/pins/" in prefix else self.inner.list(prefix)

    access = rig.vault.access
    behind = MachineVault(Access(Behind(plain), access.names, access.keys))
    with pytest.raises(WaitFault) as caught:
        prune(behind, rig.chain, RetentionRules(keep_all=timedelta(0)), in_flight=frozenset, clock=rig.clock)
    behind.close()
    assert caught.value.reason == "StaleLists"
    assert held.manifest.name in rig.names()
    rig.prune(RetentionRules(keep_all=timedelta(0)))
    assert held.manifest.name in rig.names()
    rig.check_every_visible_point()
