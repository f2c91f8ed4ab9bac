"""Rates of the vault alone: encode and hydrate on a directory store, beside the slowest single stages.

Run it as `python tests/bench/vault_rates.py`, see `--help`; it prints JSON lines. Times on a shared machine are only
good beside each other in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import zstandard
from blake3 import blake3

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.pack import SealedPack
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

CALL = 16  # blocks of one call, as a wire frame holds
KEK = bytes(32)


class NullSink:
    """Takes packs and forgets them."""

    def accept(self, pack: SealedPack) -> None:
        return

    def drain(self) -> None:
        return


def sample(kind: str, size: int) -> bytes:
    """Return `size` bytes: half-compressible, random, or the beginning of a file (repeated if it is short)."""
    if kind == "random":
        return os.urandom(size)
    if kind != "half":
        data = Path(kind).read_bytes()[:size]
        return (data * -(-size // len(data)))[:size]
    random = np.random.default_rng(1).integers(0, 256, (size // 1024, 1024), dtype=np.uint8)
    random[:, 512:] = random[:, :1]
    return random.tobytes()


def measured(name: str, size: int, work: Callable[[], object]) -> float:
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rate = size / 2**20 / seconds
    gib = size / 2**30
    print(json.dumps({"name": name, "MiB/s": round(rate), "cpu s/GiB": round(cpu / gib, 2)}), flush=True)
    return rate


def spread(threads: int, blocks: int, work: Callable[[int], object]) -> None:
    """Call `work(first block)` for each call's worth of blocks."""
    with ThreadPoolExecutor(threads) as pool:
        for done in pool.map(work, range(0, blocks, CALL)):
            del done


def encode(writer: PointWriter, data: bytes, threads: int) -> None:
    view = memoryview(data)

    def add(first: int) -> None:
        part = view[first * BLOCK_SIZE : (first + CALL) * BLOCK_SIZE]
        writer.add("sda", np.arange(first, first + len(part) // BLOCK_SIZE), part)

    spread(threads, len(data) // BLOCK_SIZE, add)


def commit(writer: PointWriter, size: int) -> None:
    fields = PointFields(
        datetime.now(UTC), Consistency.CRASH, (DiskFields("sda", "sda", size),), MachineDescription(hostname="bench")
    )
    writer.commit(fields)


def stages(data: bytes, threads: int) -> None:
    view, blocks = memoryview(data), len(data) // BLOCK_SIZE

    def zstd(first: int) -> None:
        part = view[first * BLOCK_SIZE : (first + CALL) * BLOCK_SIZE]
        count = len(part) // BLOCK_SIZE
        segments = np.zeros((count, 2), np.uint64)
        segments[:, 0], segments[:, 1] = np.arange(count) * BLOCK_SIZE, BLOCK_SIZE
        buffer = zstandard.BufferWithSegments(part, segments.tobytes())
        zstandard.ZstdCompressor(level=1).multi_compress_to_buffer(buffer, threads=0)

    def hashed(first: int) -> None:
        for block in range(first, min(first + CALL, blocks)):
            blake3(view[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE], key=KEK).digest()

    measured("stage: zstd 1", len(data), lambda: spread(threads, blocks, zstd))
    measured("stage: blake3", len(data), lambda: spread(threads, blocks, hashed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--data", default="half")
    options = parser.parse_args()
    data = sample(options.data, options.mib << 20)
    root = Path(tempfile.mkdtemp(prefix="vault-rates-", dir=options.directory))
    try:
        run(data, root, options.threads)
    finally:
        shutil.rmtree(root)


def run(data: bytes, root: Path, threads: int) -> None:
    size = len(data)
    stages(data, threads)
    store = DirectoryStore(root / "vault")
    vault = MachineVault.open(store, KEK, "bench.null", create=True)
    null = PointWriter(vault, vault.claim(writer="b", epoch=1, reason="bench"), NullSink())
    measured("encode to nowhere", size, lambda: encode(null, data, threads))
    vault = MachineVault.open(store, KEK, "bench.vm", create=True)
    sink = PackUploader(store, vault.access.names, threads=2)
    writer = PointWriter(vault, vault.claim(writer="b", epoch=1, reason="bench"), sink)

    def replicate() -> None:
        encode(writer, data, threads)
        commit(writer, size)

    measured("encode and put to a directory, with fsync", size, replicate)
    measured("encode again, nothing changed", size, replicate)
    point = vault.newest()
    assert point is not None
    reader, image = PointReader(vault, point), root / "image"
    measured("hydrate", size, lambda: hydrate(reader, "sda", image, threads=threads))
    with image.open("rb") as file:
        assert all(file.read(8 << 20) == data[at : at + (8 << 20)] for at in range(0, size, 8 << 20))


if __name__ == "__main__":
    main()
