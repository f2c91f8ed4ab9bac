"""A machine with disks whose every byte is known, and a vault that its points go to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
from tests.contract.memory_store import MemoryStore

from farshore_engine.blocks.grid import BLOCK_SIZE, block_count
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.vault.chain import ChainWriter
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.prune import PruneReport, prune
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.store import ObjectStore
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

KEK = bytes(range(32))
START = datetime(2025, 3, 1, 12, tzinfo=UTC)
MACHINE = "team-a.db"


@lru_cache(2048)
def block_of(number: int) -> bytes:
    """Bytes of one block that depend on the number, half of them compressible; 0 is all zeros."""
    if number == 0:
        return bytes(BLOCK_SIZE)
    return np.random.default_rng(number).bytes(BLOCK_SIZE // 2) + number.to_bytes(8, "big") * (BLOCK_SIZE // 16)


class Clock:
    """A clock that a test moves; every look moves it a millisecond."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@dataclass
class Rig:
    """A source machine and its process server."""

    store: ObjectStore = field(default_factory=MemoryStore)
    machine: str = MACHINE
    writer_name: str = "ps-1"
    epoch: int = 1
    fold_at: int = 1 << 18
    pack_target: int = 8 << 20
    clock: Clock = field(default_factory=Clock)
    disks: dict[str, bytearray] = field(default_factory=dict)
    points: dict[str, dict[str, bytes]] = field(default_factory=dict)  # what each point must restore to

    def __post_init__(self) -> None:
        self.vault = self.open()
        self.start()

    def open(self) -> MachineVault:
        return MachineVault.open(self.store, KEK, self.machine, create=True, clock=self.clock)

    def start(self) -> None:
        """(Re)start the process server."""
        self.chain: ChainWriter = self.vault.claim(
            writer=self.writer_name, epoch=self.epoch, reason="test", clock=self.clock
        )
        self.sink = PackUploader(self.store, self.vault.access.names, threads=2)
        self.writer = PointWriter(self.vault, self.chain, self.sink, fold_at=self.fold_at, pack_target=self.pack_target)

    def write(self, disk: str, blocks: Mapping[int, int], size: int | None = None) -> None:
        """Let the source write `block_of(value)` to blocks, and the agent send them."""
        self.change(disk, blocks, size)
        self.send(disk, sorted(blocks))

    def change(self, disk: str, blocks: Mapping[int, int], size: int | None = None) -> None:
        content = self.disks.setdefault(disk, bytearray(64 * BLOCK_SIZE))
        if size is not None:
            content[:] = content[:size].ljust(size, b"\0")
        for index, value in blocks.items():
            end = min(len(content), (index + 1) * BLOCK_SIZE)
            content[index * BLOCK_SIZE : end] = block_of(value)[: end - index * BLOCK_SIZE]

    def send(self, disk: str, indexes: list[int]) -> None:
        content = self.disks[disk]
        data = b"".join(content[i * BLOCK_SIZE : (i + 1) * BLOCK_SIZE] for i in indexes)
        self.writer.add(disk, np.array(indexes, np.int64), data)

    def fields(self, consistency: Consistency = Consistency.CRASH) -> PointFields:
        disks = tuple(DiskFields(name, name, len(content)) for name, content in self.disks.items())
        return PointFields(self.clock(), consistency, disks, MachineDescription(hostname="db"))

    def commit(self, consistency: Consistency = Consistency.CRASH) -> RecoveryPoint:
        point = self.writer.commit(self.fields(consistency))
        self.points[point.name] = {name: bytes(content) for name, content in self.disks.items()}
        return point

    def point(self, disk: str, blocks: Mapping[int, int], size: int | None = None) -> RecoveryPoint:
        self.write(disk, blocks, size)
        self.clock.now += timedelta(minutes=5)
        return self.commit()

    def prune(self, rules: RetentionRules) -> PruneReport:
        return prune(self.vault, self.chain, rules, in_flight=lambda: self.writer.in_flight, clock=self.clock)

    def restored(self, name: str) -> dict[str, bytes]:
        """Restore a point as somebody with nothing but the store and the key."""
        vault = MachineVault.open(self.store, KEK, self.machine)
        try:
            reader = PointReader(vault, vault.find(name))
            return {d.id: bytes(reader.read_blocks(d.id, 0, block_count(d.size_bytes))) for d in reader.disks}
        finally:
            vault.close()

    def names(self) -> list[str]:
        vault = MachineVault.open(self.store, KEK, self.machine)
        try:
            return [p.manifest.name for p in vault.catalogue().points]
        finally:
            vault.close()

    def check_every_visible_point(self) -> None:
        for name in self.names():
            assert self.restored(name) == self.points[name], name


def packs(store: ObjectStore) -> list[str]:
    return [name for name in store.list("") if "/packs/" in name]
