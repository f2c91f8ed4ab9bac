"""A disk of a recovery point as a device: blocks are fetched when they are asked for, verified, and kept for a while.

A block that does not verify is an error to whoever reads it, and to nobody else; neighbours that were fetched with it
are served. Sequential readers are read ahead of, by as much as they have read in a row.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import structlog

from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, block_count, blocks_touched
from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.nbd.device import DeviceError, Extent
from farshore_engine.nbd.protocol import Error
from farshore_engine.vault.decoder import Buffer, Span, plan_spans
from farshore_engine.vault.encoding import REF, Refs
from farshore_engine.vault.reader import PointReader, PointSpoiled

log = structlog.get_logger(__name__)

CACHED = 128 << 20  # bytes of blocks
LEAF = 256  # blocks whose references are looked up together
LEAVES = 256  # of which are kept
SPAN = 2 << 20  # bytes of one request to the store
RECORDS = 32  # blocks of one request
AHEAD = 64  # blocks that are read ahead at most, 4 MiB
THREADS = 4
PATIENCE = 60.0  # seconds for which a store that is away is asked again
PAUSE = 1.0
R = TypeVar("R")
ZERO_BLOCK = memoryview(bytes(BLOCK_SIZE))


class PointDevice:
    """See the module's docstring. Read-only."""

    read_only = True

    def __init__(
        self,
        reader: PointReader,
        disk: str,
        *,
        cached: int = CACHED,
        threads: int = THREADS,
        patience: float = PATIENCE,
    ) -> None:
        """Serve a disk of the point; raises StopFault when it has none of that id."""
        self.reader = reader
        self.disk = disk
        self.size = reader.disk(disk).size_bytes
        self.blocks = block_count(self.size)
        self._map = reader.map(disk)
        self._limit = max(1, cached // BLOCK_SIZE)
        self._patience = patience
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, memoryview] = OrderedDict()
        self._pending: dict[int, Future[memoryview]] = {}
        self._leaves: OrderedDict[int, Refs] = OrderedDict()
        self._next = -1  # the block behind the last one read
        self._ahead = 0
        self._waiting = 0
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(threads, "nbd-fetch")

    def close(self) -> None:
        """Stop fetching."""
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)

    def at_hand(self, offset: int, length: int) -> bool:
        """See Device."""
        first, count = blocks_touched(offset, length)
        with self._lock:
            return all(number in self._cache for number in range(first, first + count))

    def read(self, offset: int, length: int) -> Sequence[memoryview]:
        """See Device."""
        first, count = blocks_touched(offset, length)
        parts = self.fetch(first, count)
        return cut(parts, offset - first * BLOCK_SIZE, length)

    def write(self, offset: int, data: memoryview) -> None:
        """Refuse."""
        raise DeviceError(Error.EPERM, "a point is never written to")

    def zero(self, offset: int, length: int, *, keep_space: bool) -> None:
        """Refuse."""
        raise DeviceError(Error.EPERM, "a point is never written to")

    def trim(self, offset: int, length: int) -> None:
        """Refuse."""
        raise DeviceError(Error.EPERM, "a point is never written to")

    def flush(self) -> None:
        """Do nothing: there is nothing to make durable."""

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, Extent]]:
        """See Device."""
        end = offset + length
        while offset < end:
            leaf = offset // (LEAF * BLOCK_SIZE)
            holes = self.refs(leaf)["length"] == 0
            at = offset // BLOCK_SIZE - leaf * LEAF
            run = int(np.argmax(holes[at:] != holes[at])) or holes.size - at
            stop = min(end, (leaf * LEAF + at + run) * BLOCK_SIZE)
            yield stop - offset, Extent.HOLE if holes[at] else Extent.DATA
            offset = stop

    def fetch(self, first: int, count: int) -> list[memoryview]:
        """Return blocks, each of BLOCK_SIZE bytes; raises DeviceError."""
        found, waiting, mine, ahead = self._sort_out(first, count)
        if ahead:
            self._pool.submit(self._fetch, ahead)
        with self._lock:
            self._waiting += 1
        try:
            if mine:
                self._fetch(mine)
            for number, future in waiting.items():
                found[number] = future.result()
        except Fault as fault:
            raise DeviceError(Error.EIO, str(fault)) from fault
        finally:
            with self._lock:
                self._waiting -= 1
        return [found[number] for number in range(first, first + count)]

    def refs(self, leaf: int) -> Refs:
        """Return the references of LEAF blocks; raises DeviceError when the map is damaged."""
        with self._lock:
            found = self._leaves.get(leaf)
            if found is not None:
                self._leaves.move_to_end(leaf)
                return found
        try:
            work = functools.partial(self.reader.lookup, self.disk, leaf * LEAF, LEAF)
            found = self._patiently(work, self._patience, self._closed)
        except Fault as fault:
            self.complain(fault)
            raise DeviceError(Error.EIO, str(fault)) from fault
        with self._lock:
            self._leaves[leaf] = found
            if len(self._leaves) > LEAVES:
                self._leaves.popitem(last=False)
        return found

    def references(self, indexes: Indexes) -> Refs:
        """Return the references of blocks, whose numbers are sorted; raises DeviceError when the map is damaged."""
        leaves = indexes // LEAF
        parts = [self.refs(leaf)[indexes[leaves == leaf] % LEAF] for leaf in np.unique(leaves).tolist()]
        return np.concatenate(parts) if parts else np.zeros(0, REF)

    def load(
        self,
        indexes: Indexes,
        refs: Refs,
        span: Span,
        *,
        patience: float = math.inf,
        stop: threading.Event | None = None,
    ) -> list[tuple[int, Buffer]]:
        """Return (position, block) of the records of a span, past the cache; waits while the store is away.

        Raises:
            PointSpoiled: one of them does not verify.
            WaitFault: the store stayed away for `patience` seconds, or `stop` was set.
        """
        work = functools.partial(self.reader.load, self.disk, indexes, refs, span)
        return self._patiently(work, patience, stop or self._closed)

    @staticmethod
    def each_alone(refs: Refs, span: Span) -> Iterator[Span]:
        """Yield a span for each record of a span."""
        for alone in plan_spans(refs[list(span.positions)], records=1):
            positions = tuple(span.positions[at] for at in alone.positions)
            yield Span(alone.pack, alone.offset, alone.length, positions)

    def complain(self, fault: Fault) -> None:
        """Log what cannot be read."""
        point = self.reader.point.manifest.name
        blocks = f"{fault.first}+{fault.count}" if isinstance(fault, PointSpoiled) else ""
        log.error("nbd read failed", point=point, disk=self.disk, blocks=blocks, why=fault.message)

    @property
    def waited_for(self) -> bool:
        """Whether a client waits for the vault now."""
        return self._waiting > 0

    def _sort_out(
        self, first: int, count: int
    ) -> tuple[dict[int, memoryview], dict[int, Future[memoryview]], list[int], list[int]]:
        """Return what is cached, what to wait for, and what of that the caller and a reader-ahead are to fetch."""
        found: dict[int, memoryview] = {}
        waiting: dict[int, Future[memoryview]] = {}
        mine: list[int] = []
        ahead: list[int] = []
        with self._lock:
            in_a_row = first <= self._next <= first + 1
            self._ahead = min(AHEAD, max(self._ahead * 2, 2 * count)) if in_a_row else 0
            self._next = first + count
            for number in range(first, min(self.blocks, first + count + self._ahead)):
                asked = number < first + count
                block = self._cache.get(number)
                if block is not None:
                    if asked:
                        self._cache.move_to_end(number)
                        found[number] = block
                    continue
                future = self._pending.get(number)
                if future is None:
                    future = self._pending[number] = Future()
                    (mine if asked else ahead).append(number)
                if asked:
                    waiting[number] = future
        return found, waiting, mine, ahead

    def _fetch(self, numbers: list[int]) -> None:
        """Settle the pending blocks `numbers`, which are sorted."""
        left = set(numbers)
        try:
            indexes = np.array(numbers, np.int64)
            refs = self.references(indexes)
            for at in np.flatnonzero(refs["length"] == 0):
                self._settle(int(indexes[at]), ZERO_BLOCK, left)
            spans = plan_spans(refs, span=SPAN, records=RECORDS)
            for span in spans:
                self._load(indexes, refs, span, left)
        except DeviceError as error:
            for number in tuple(left):
                self._settle(number, error.__cause__ or error, left)
        finally:
            for number in tuple(left):  # nobody may wait for ever, whatever went wrong
                self._settle(number, WaitFault("the fetch was broken off"), left)

    def _load(self, indexes: Indexes, refs: Refs, span: Span, left: set[int]) -> None:
        try:
            loaded = self.load(indexes, refs, span, patience=self._patience)
        except PointSpoiled as fault:
            if len(span.positions) == 1:
                self.complain(fault)
                self._settle(int(indexes[span.positions[0]]), fault, left)
                return
            for one in self.each_alone(refs, span):
                self._load(indexes, refs, one, left)
        except Fault as fault:
            self.complain(fault)
            for position in span.positions:
                self._settle(int(indexes[position]), fault, left)
        else:
            for position, plain in loaded:
                self._settle(int(indexes[position]), memoryview(bytes(plain)), left)

    def _settle(self, number: int, outcome: memoryview | BaseException, left: set[int]) -> None:
        left.discard(number)
        with self._lock:
            future = self._pending.pop(number)
            if not isinstance(outcome, BaseException):
                self._cache[number] = outcome
                if len(self._cache) > self._limit:
                    self._cache.popitem(last=False)
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _patiently(self, work: Callable[[], R], patience: float, stop: threading.Event) -> R:
        """Do it again while the store is away, `patience` seconds long."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return work()
            except WaitFault as fault:
                if time.monotonic() + PAUSE > deadline or stop.wait(PAUSE):
                    raise
                log.info("the vault is asked again", disk=self.disk, why=fault.message)


def cut(blocks: Sequence[memoryview], skip: int, length: int) -> list[memoryview]:
    """Return the parts of consecutive blocks that hold `length` bytes from byte `skip` of the first on."""
    parts = []
    for block in blocks:
        part = block[skip : skip + length]
        parts.append(part)
        length -= len(part)
        skip = 0
    return parts
