"""Fills an overlay with the rest of its point, behind the machine's back: from the first block to the last.

The machine comes first: while it waits for the vault, streaming waits too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import structlog

from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes
from farshore_engine.blocks.memory import kept_memory
from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.hydrate.image import aligned_buffer
from farshore_engine.nbd.device import DeviceError
from farshore_engine.nbd.overlay import Overlay
from farshore_engine.vault.decoder import Span, plan_spans
from farshore_engine.vault.encoding import Refs
from farshore_engine.vault.reader import PointSpoiled

log = structlog.get_logger(__name__)

WINDOW = 4096  # blocks that are looked at together, 256 MiB
SPAN = 4 << 20
RECORDS = 64
GIVE_WAY = 0.005  # seconds


@dataclass(frozen=True, slots=True)
class Streamed:
    """How far it is, in bytes: in the file, of how many; and the blocks that the vault cannot give."""

    done: int
    total: int
    spoiled: int = 0

    @property
    def complete(self) -> bool:
        """Whether the file is the whole disk."""
        return self.done == self.total


class Streaming:
    """A thread that fills one overlay."""

    def __init__(self, overlay: Overlay, *, report: Callable[[Streamed], None] = lambda _: None) -> None:
        """Prepare; `report` is called from the thread after every window."""
        self._overlay = overlay
        self._report = report
        self._stop = threading.Event()
        self._spoiled = 0
        self._buffer = aligned_buffer(RECORDS * BLOCK_SIZE)
        self._thread = threading.Thread(target=self._run, name="nbd-stream", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until it has."""
        self._stop.set()
        self._thread.join()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has done what can be done; False when it has not within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def progress(self) -> Streamed:
        """How far it is."""
        size, absent = self._overlay.size, self._overlay.presence.absent
        return Streamed(max(0, size - absent * BLOCK_SIZE) if absent else size, size, self._spoiled)

    def _run(self) -> None:
        blocks = self._overlay.base.blocks
        with kept_memory():
            for first in range(0, blocks, WINDOW):
                self._window(first, min(WINDOW, blocks - first))
                if self._stop.is_set():
                    return
                self._report(self.progress)
        log.info("streamed", disk=self._overlay.base.disk, absent=self._overlay.presence.absent)

    def _window(self, first: int, count: int) -> None:
        overlay = self._overlay
        indexes = overlay.absent(first, count)
        try:
            refs = overlay.base.references(indexes)
            overlay.store_holes(indexes[refs["length"] == 0])
            for span in plan_spans(refs, span=SPAN, records=RECORDS):
                while overlay.base.waited_for and not self._stop.wait(GIVE_WAY):
                    pass
                if self._stop.is_set():
                    return
                self._take(indexes, refs, span)
            overlay.flush()
        except (DeviceError, Fault) as error:  # a damaged map, a full disk, a revoked credential: the machine goes on
            log.error("streaming left blocks out", disk=overlay.base.disk, blocks=f"{first}+{count}", why=str(error))

    def _take(self, indexes: Indexes, refs: Refs, span: Span) -> None:
        """Bring the blocks of a span into the file, those that verify."""
        base = self._overlay.base
        try:
            loaded = base.load(indexes, refs, span, stop=self._stop)
        except PointSpoiled as fault:
            if len(span.positions) == 1:
                self._spoiled += 1
                base.complain(fault)
                return
            for one in base.each_alone(refs, span):
                self._take(indexes, refs, one)
            return
        except WaitFault:
            return  # stopped meanwhile
        loaded.sort(key=itemgetter(0))
        for place, (_, plain) in enumerate(loaded):
            self._buffer[place * BLOCK_SIZE : (place + 1) * BLOCK_SIZE] = plain
        self._overlay.store(indexes[[position for position, _ in loaded]], self._buffer)
