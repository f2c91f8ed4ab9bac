"""What points cost in operations and bytes on a disk of 1 TiB: what changed, not what the disk holds."""

from __future__ import annotations

import pytest
from tests.contract.faulty_store import WrappedStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.large_disk import change, commit, open_a_point, with_a_large_disk
from tests.unit.vault.rig import MACHINE, Rig

from farshore_engine.vault.node import NODE_MAX
from farshore_engine.vault.prune import PruneState, prune
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.store import Version

BLOCK_RECORD = 65552


class CountingStore(WrappedStore):
    """Counts operations, and the bytes that they move."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.clear()

    def clear(self) -> None:
        self.operations: list[tuple[str, str]] = []
        self.read = self.written = 0

    def before(self, operation: str, name: str) -> None:
        with self.lock:
            self.operations.append((operation, name))

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        self.written += len(data)
        return super().put(name, data, create_only=create_only)

    def get(self, name: str) -> tuple[bytes, Version]:
        found = super().get(name)
        self.read += len(found[0])
        return found

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        found = super().get_range(name, offset, length)
        self.read += len(found)
        return found


@pytest.fixture(scope="module")
def large() -> tuple[Rig, str, CountingStore]:
    store = CountingStore(MemoryStore())
    rig, point = with_a_large_disk(store)
    for turn in range(5):
        change(rig, [turn])
        commit(rig)
    return rig, point.name, store


def test_opening_a_point_reads_one_path_of_the_map(large: tuple[Rig, str, CountingStore]) -> None:
    """DESIGN: within a second. At 50 ms an operation these are half a second, the chain's length does not matter."""
    _, name, store = large
    store.clear()
    assert int(open_a_point(store, MACHINE, name)[0]["length"]) == BLOCK_RECORD
    assert len(store.operations) <= 12
    assert sum(1 for operation, _ in store.operations if operation == "get_range") <= 6
    assert store.read < 1 << 20


@pytest.mark.parametrize("blocks", [1, 10, 100])
def test_a_point_costs_what_changed(large: tuple[Rig, str, CountingStore], blocks: int) -> None:
    """At most a leaf for each changed block, one middle node and the root, whatever the disk holds."""
    rig, _, store = large
    change(rig, [1000 + 256 * n for n in range(blocks)])
    store.clear()
    point = commit(rig)
    nodes = blocks + 2
    assert store.written <= blocks * BLOCK_RECORD + nodes * (NODE_MAX + 16) + 8192
    assert point.bytes_stored <= blocks * BLOCK_RECORD + nodes * (NODE_MAX + 16) + 64 * 2
    puts = [name for operation, name in store.operations if operation == "put"]
    assert len(puts) <= 2 + blocks * BLOCK_RECORD // (8 << 20) + 1


def test_the_next_prune_reads_what_the_point_changed(large: tuple[Rig, str, CountingStore]) -> None:
    rig, _, store = large
    state = PruneState.of(rig.vault)

    def run() -> None:
        prune(
            rig.vault, rig.chain, RetentionRules(), in_flight=lambda: rig.writer.in_flight, clock=rig.clock, state=state
        )

    run()
    change(rig, [5, 70_000 * 200])
    commit(rig)
    store.clear()
    run()
    assert store.read < 12 * (NODE_MAX + 16) + (1 << 20)
    assert sum(1 for operation, _ in store.operations if operation.startswith("get")) < 20


def test_the_machine_description_is_in_the_manifest(large: tuple[Rig, str, CountingStore]) -> None:
    """What a failover without a control plane needs beside the disks."""
    rig, name, _ = large
    assert rig.vault.find(name).manifest.machine.hostname == "db"
