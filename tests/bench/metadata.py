"""What the map of a very large disk costs: bytes of a point besides its blocks, and the seconds to open one."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tests.bench.rows import Row

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

DISK = 1 << 40  # bytes
KEK = bytes(32)
OPENED = 1.0  # seconds


def metadata_rows(directory: Path, scattered: int) -> list[Row]:
    """Write `scattered` blocks all over a disk of 1 TiB, then change a few, then ten times as many."""
    root = directory / "metadata"
    machine = f"bench.{secrets.token_hex(4)}"
    vault = MachineVault.open(DirectoryStore(root), KEK, machine, create=True)
    uploader = PackUploader(vault.access.store, vault.access.names, threads=2)
    writer = PointWriter(vault, vault.claim(writer="bench", epoch=1, reason="bench"), uploader)
    rng = np.random.default_rng(1)
    total = DISK // BLOCK_SIZE
    few = max(1, scattered // 100)
    costs = {}
    for count in (scattered, few, 10 * few):
        before = _held(root)
        blocks = np.sort(rng.choice(total, count, replace=False))
        refs = writer.add("sda", blocks, _content(rng, count))
        writer.flush()
        fields = (DiskFields("sda", "sda", DISK),)
        writer.commit(PointFields(datetime.now(UTC), Consistency.CRASH, fields, MachineDescription(hostname="bench")))
        costs[count] = (_held(root) - before - int(refs["ref"]["length"].sum())) / 1024
    uploader.close()
    opened = _opened(root, machine, int(blocks[len(blocks) // 2]))
    return [
        Row(f"metadata of a point, 1 TiB disk, {few} blocks changed", costs[few], "KiB", "", None),
        Row(f"metadata of a point, 1 TiB disk, {10 * few} blocks changed", costs[10 * few], "KiB",
            "in proportion to the change", costs[10 * few] <= 12 * costs[few]),
        Row("opening a point of a 1 TiB disk and reading a block", opened, "s", "at most 1", opened <= OPENED),
    ]  # fmt: skip


def _opened(root: Path, machine: str, block: int) -> float:
    began = time.perf_counter()
    vault = MachineVault.open(DirectoryStore(root), KEK, machine)
    point = vault.newest()
    assert point is not None
    reader = PointReader(vault, point)
    assert len(reader.map("sda").lookup(block, 1)) == 1
    return time.perf_counter() - began


def _content(rng: np.random.Generator, count: int) -> bytes:
    blocks = np.zeros((count, BLOCK_SIZE), np.uint8)
    blocks[:, :64] = rng.integers(1, 256, (count, 64), dtype=np.uint8)
    return blocks.tobytes()


def _held(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
