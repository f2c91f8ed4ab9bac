"""Turns blocks into frames: read, drop zeros, gather, hand over, and note all of it in the ledger.

Order matters: a block that is read twice must leave in the order of the reads, so there is one replicator for a
session, one frame is filled at a time, and frames leave in the order in which their numbers were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.source import Reader, read_ahead
from farshore_engine.blocks.content import DIGEST_SIZE, digest_blocks
from farshore_engine.blocks.content import Digests as DigestArray
from farshore_engine.blocks.encoded import EncodedBlocks, encode, payload_of
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, block_count, runs_of
from farshore_engine.wire.messages import Data, Digests, Message, NeedDigests, Run, Zeros

FRAME_BLOCKS = 32  # of one frame at most
TAKE_BLOCKS = 1024  # blocks taken from the ledger at a time: 64 MiB
HURRIED_BLOCKS = 64  # the same for a pass that may have to end early
LEAF_BLOCKS = 1024  # blocks of one question for digests: 32 KiB of answer
LEAVES_AHEAD = 4
Encoded = tuple[npt.NDArray[np.bool_], EncodedBlocks]  # as `encode` returns it
Encode = Callable[[bytes | memoryview], Encoded]


class Outlet(Protocol):
    """The session as the replicator sees it."""

    def deliver(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Send a frame, waiting for bandwidth, acknowledgements and the end of a pause; raises PeerClosed."""

    def await_digests(self) -> tuple[Digests, bytes]:
        """Return the next answer to NeedDigests and its payload; raises PeerClosed or WireError."""

    def passed(self, size: int) -> None:
        """Count `size` bytes as passed over, for the progress."""


class Replicator:
    """Sends blocks of a session's disks."""

    def __init__(
        self, ledger: Ledger, readers: dict[str, Reader], outlet: Outlet, workers: Executor, digest_key: bytes
    ) -> None:
        self._ledger = ledger
        self._readers = readers
        self._outlet = outlet
        self._workers = workers
        self._digest_key = digest_key
        self.encode: Encode = partial(encode, digest_key)

    def send_waiting(self, need: Need, disk: str, until: Callable[[], bool] | None = None) -> int:
        """Pass once over the disk and send what is dirty or unsent; returns how many blocks were taken.

        `until` ends the pass early, between two batches, once it returns True.
        """
        start = total = 0
        reader = self._readers[disk]
        limit = TAKE_BLOCKS if until is None else HURRIED_BLOCKS
        while True:
            blocks = self._ledger.take(need, disk, limit, start) if until is None or not until() else None
            if blocks is None or not blocks.size:
                return total
            total += blocks.size
            start = int(blocks[-1]) + 8  # the ledger rounds down to 8
            start -= start % 8
            writer = FrameWriter(self._ledger, self._outlet, disk, need, reader.size)
            for first, count, (zero, encoded) in read_ahead(reader, blocks, self._workers, self.encode):
                writer.add(first, zero, encoded)
                self._outlet.passed(count * BLOCK_SIZE)
            writer.flush()

    def verify(self, disk: str) -> None:
        """Pass once over the unverified blocks of the disk, and send those that differ."""
        asked = 0
        for leaf in self._leaves(disk):
            if leaf is not None:
                self._outlet.deliver(NeedDigests(disk, leaf[0], leaf[1]))
                asked += 1
            if asked > LEAVES_AHEAD or (leaf is None and asked):
                self._compare(*self._outlet.await_digests())
                asked -= 1

    def _leaves(self, disk: str) -> Iterator[tuple[int, int] | None]:
        """Yield the leaves with unverified blocks, then None for each answer that is still to come."""
        blocks = block_count(self._readers[disk].size)
        for first in range(0, blocks, LEAF_BLOCKS):
            count = min(LEAF_BLOCKS, blocks - first)
            if self._ledger.waiting_in(Need.UNVERIFIED, disk, first, count):
                yield first, count
        for _ in range(LEAVES_AHEAD):
            yield None

    def _compare(self, answer: Digests, payload: bytes) -> None:
        disk = answer.disk
        theirs = np.frombuffer(payload, np.uint8).reshape(-1, DIGEST_SIZE)
        reader = self._readers[disk]
        blocks = self._ledger.take_from(Need.UNVERIFIED, disk, answer.first, answer.count)
        writer = FrameWriter(self._ledger, self._outlet, disk, Need.UNVERIFIED, reader.size)
        for first, count, (data, ours) in read_ahead(reader, blocks, self._workers, self._digested):
            start = first - answer.first
            equal = (ours == theirs[start : start + count]).all(axis=1)
            numbers = np.arange(first, first + count, dtype=np.int64)
            self._ledger.settle(Need.UNVERIFIED, disk, numbers[equal])
            for run, length in runs_of(numbers[~equal]):
                offset = (run - first) * BLOCK_SIZE
                writer.add(run, *self.encode(data[offset : offset + length * BLOCK_SIZE]))
            self._outlet.passed(len(data))
        writer.flush()

    def _digested(self, data: bytes | memoryview) -> tuple[bytes | memoryview, DigestArray]:
        return data, digest_blocks(self._digest_key, data)


class FrameWriter:
    """Gathers blocks of one disk, taken for one need, into Data and Zeros frames."""

    def __init__(self, ledger: Ledger, outlet: Outlet, disk: str, need: Need, size: int) -> None:
        self._ledger = ledger
        self._outlet = outlet
        self._disk = disk
        self._need = need
        self._size = size
        self._runs: list[Run] = []
        self._blocks: list[Indexes] = []
        self._parts: list[EncodedBlocks] = []
        self._filled = 0  # blocks
        self._zeros: list[Indexes] = []

    def add(self, first: int, zero: npt.NDArray[np.bool_], encoded: EncodedBlocks) -> None:
        """Add the blocks from `first` on: which of them hold zeros only, and the others encoded."""
        if len(encoded) == zero.size:
            self._add_run(first, encoded)
            return
        numbers = np.arange(first, first + zero.size, dtype=np.int64)
        if self._need is Need.UNSENT:  # the process server holds nothing there, which reads as zeros
            self._ledger.settle(self._need, self._disk, numbers[zero])
        else:
            self._zeros.append(numbers[zero])
        done = 0
        for run, count in runs_of(numbers[~zero]):
            self._add_run(run, encoded[done : done + count])
            done += count

    def flush(self) -> None:
        """Send what was gathered."""
        self._flush_data()
        if self._zeros:
            blocks = np.concatenate(self._zeros)
            self._zeros = []
            runs = tuple(self._run(first, count) for first, count in runs_of(blocks))
            seq = self._ledger.sent(self._need, self._disk, blocks)
            self._outlet.deliver(Zeros(seq, self._disk, runs))

    def _add_run(self, first: int, encoded: EncodedBlocks) -> None:
        count = len(encoded)
        if self._filled + count > FRAME_BLOCKS:
            self._flush_data()
        self._runs.append(self._run(first, count))
        self._blocks.append(np.arange(first, first + count, dtype=np.int64))
        self._parts.append(encoded)
        self._filled += count

    def _run(self, first: int, count: int) -> Run:
        offset = first * BLOCK_SIZE
        return Run(offset, min(count * BLOCK_SIZE, self._size - offset))

    def _flush_data(self) -> None:
        if not self._parts:
            return
        payload = payload_of(self._parts)
        runs, blocks = tuple(self._runs), np.concatenate(self._blocks)
        self._runs, self._blocks, self._parts, self._filled = [], [], [], 0
        seq = self._ledger.sent(self._need, self._disk, blocks)
        self._outlet.deliver(Data(seq, self._disk, runs), payload)
