"""A compaction in a vault whose store misbehaves at each operation of it: what is to be seen stays whole.

That a process may be killed at each of them stands in the unit tests of compaction; here it lives on and repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from tests.contract.blob_container import real_store
from tests.contract.faulty_store import FaultyStore, RecordingStore, UnreliableStore, WrappedStore
from tests.contract.memory_store import MemoryStore
from tests.contract.test_vault_under_faults import KINDS, persist
from tests.unit.vault.rig import Clock, packs
from tests.unit.vault.test_compaction import Machine, aged

from farshore_engine.vault.check import check_machine
from farshore_engine.vault.store import ObjectStore

TURNS = 2


@dataclass(frozen=True)
class Aged:
    """A vault in which most of the first packs is dead."""

    objects: dict[str, bytes]
    points: dict[str, dict[str, bytes]]
    now: datetime

    def in_store(self, store: ObjectStore) -> None:
        for name, content in self.objects.items():
            store.put(name, content)


@pytest.fixture(scope="module")
def old() -> Aged:
    machine = aged(6)
    machine.tend()
    machine.vault.close()
    return Aged({n: machine.store.get(n)[0] for n in machine.store.list("")}, machine.points, machine.clock.now)


def compact(old: Aged, store: WrappedStore) -> int:
    """Compact under the faults of `store`, with points in between; returns how many blocks were carried.

    Raises AssertionError when a point that is to be seen is not whole.
    """
    clock = Clock()
    clock.now = old.now
    machine = persist(lambda: Machine(store, pack_target=1 << 18, clock=clock), "to open")
    machine.points = dict(old.points)
    machine.disks = {disk: bytearray(content) for disk, content in old.points[list(old.points)[-1]].items()}
    carried = 0
    for turn in range(TURNS):
        carried += persist(machine.tend, "to tend").carried
        machine.change("sda", {turn: 6000 + turn})
        persist(lambda turn=turn: machine.send("sda", [turn]), "to add")  # type: ignore[misc]
        fields = machine.fields()
        point = persist(lambda fields=fields: machine.writer.commit(fields), "to commit")  # type: ignore[misc]
        machine.points[point.name] = {name: bytes(content) for name, content in machine.disks.items()}
    persist(machine.tend, "to tend")
    machine.vault.close()
    machine.store = store.inner  # as somebody with a store in order sees it
    machine.check_every_visible_point()
    vault = machine.open()
    report = check_machine(vault, read_data=True)
    vault.close()
    assert report.findings == ()
    assert machine.names()[-1] == list(machine.points)[-1]
    return carried


def operations(old: Aged) -> int:
    plain = MemoryStore()
    old.in_store(plain)
    recording = RecordingStore(plain)
    assert compact(old, recording) > 0
    return len(recording.calls)


@pytest.mark.parametrize("fault", ["503", "lost"], ids=["refused", "its answer lost"])
@pytest.mark.parametrize("part", range(4))
def test_each_operation_fails_once(old: Aged, fault: str, part: int) -> None:
    count = operations(old)
    assert count > 40
    for at in range(part, count, 4):
        plain = MemoryStore()
        old.in_store(plain)
        left = [at]

        def plan(operation: str, name: str, left: list[int] = left) -> str | None:
            left[0] -= 1
            return fault if left[0] == -1 else None

        assert compact(old, FaultyStore(plain, plan)) > 0, at


@pytest.fixture(params=["directory", "azure"])
def real(request: pytest.FixtureRequest, tmp_path: Path, container_name: str) -> Iterator[ObjectStore]:
    with real_store(request, tmp_path, container_name) as store:
        yield store


def test_in_bad_weather(real: ObjectStore, old: Aged) -> None:
    old.in_store(real)
    before = set(packs(real))
    assert compact(old, UnreliableStore(real, 1, KINDS["all at once"], rate=0.1)) > 0
    assert not before <= set(packs(real)), "the space comes back"
