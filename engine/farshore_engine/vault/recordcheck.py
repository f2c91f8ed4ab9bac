"""Reads every block record that it is given, in parallel and in bounded memory, and remembers which do not verify."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes
from farshore_engine.vault.crypto import Place
from farshore_engine.vault.decoder import RecordSpoiled, Span, plan_spans
from farshore_engine.vault.encoding import BlockRefs, Refs
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.mapcheck import Bad, BadRecord
from farshore_engine.vault.names import PackId
from farshore_engine.vault.reader import split_refs

BATCH = 1 << 14  # references that are gathered before their packs are read: 1 GiB of blocks, 1 MiB of memory
SPAN = 4 << 20  # bytes of one request
RECORDS = 128  # of one request; each thread holds that many blocks, 8 MiB
BAD_MAX = 1 << 20  # records; more than that, and the vault is lost anyhow


class RecordReader:
    """Takes references of blocks (`fresh` of a walk) and verifies what they point to.

    Attributes:
        bad: the records that do not verify, by disk and block.
        full: whether there are more, which were not read.
    """

    def __init__(self, vault: MachineVault, *, threads: int, report: Callable[[int], None]) -> None:
        """Read with `threads` threads; `report(bytes read)` is called after each request, in the caller's thread."""
        self._vault = vault
        self._pool = ThreadPoolExecutor(threads, "vault-check")
        self._report = report
        self._waiting: dict[str, list[BlockRefs]] = {}
        self._count = 0
        self.bad: Bad = {}
        self.full = False

    def __call__(self, disk: str, refs: BlockRefs) -> None:
        """Take references; raises WaitFault when the store is away."""
        self._waiting.setdefault(disk, []).append(refs)
        self._count += refs.size
        if self._count >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Verify what was taken so far."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        for disk, parts in waiting.items():
            if sum(len(found) for found in self.bad.values()) >= BAD_MAX:
                self.full = True
                return
            indexes, refs = split_refs(np.concatenate(parts))
            spans = plan_spans(refs, span=SPAN, records=RECORDS)
            for span, bad in zip(spans, self._pool.map(self._task(disk, indexes, refs), spans), strict=True):
                for block, record in bad:
                    self.bad.setdefault((disk, block), []).append(record)
                self._report(int(refs["length"][list(span.positions)].astype(np.int64).sum()))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _task(self, disk: str, indexes: Indexes, refs: Refs) -> Callable[[Span], list[tuple[int, BadRecord]]]:
        decoder, place = self._vault.decoder, Place(self._vault.access.keys.machine, disk)

        def where(position: int) -> bytes:
            return place.block(int(indexes[position]))

        def bad(position: int, pack: PackId, error: RecordSpoiled) -> tuple[int, BadRecord]:
            return int(indexes[position]), BadRecord(pack, int(refs[position]["offset"]), str(error))

        def task(span: Span) -> list[tuple[int, BadRecord]]:
            try:
                cipher, data = decoder.load(span)
            except RecordSpoiled as error:
                return [bad(position, span.pack, error) for position in span.positions]
            try:
                decoder.open_blocks(span, cipher, data, refs, where)
                return []
            except RecordSpoiled:
                pass
            found = []
            for position in span.positions:
                try:
                    decoder.open(span, cipher, data, refs[position], where(position), BLOCK_SIZE)
                except RecordSpoiled as error:
                    found.append(bad(position, span.pack, error))
            return found

        return task
