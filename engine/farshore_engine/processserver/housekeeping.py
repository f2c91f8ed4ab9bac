"""Prunes and compacts a machine's chain now and then, in a thread of its own, so that the next point is not late."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from farshore_engine.contract.faults import Fault
from farshore_engine.processserver.replica import Replica
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.stores import key_ring
from farshore_engine.vault.upkeep import Upkeep, UpkeepReport

log = structlog.get_logger(__name__)

PRUNE_EVERY = 60.0  # seconds between two prunes of a machine, at least


class Housekeeper:
    """One machine's; `done` is called in its thread with what was found."""

    def __init__(self, replica: Replica, done: Callable[[UpkeepReport], None]) -> None:
        self._replica = replica
        self._done = done
        self._clock = replica.shared.monotonic
        self._ran_at = self._clock()
        self._upkeep: Upkeep | None = None
        self._thread: threading.Thread | None = None

    def run_if_due(self) -> None:
        """Begin, unless it ran lately or runs now."""
        if self._clock() - self._ran_at < PRUNE_EVERY or (self._thread is not None and self._thread.is_alive()):
            return
        self._ran_at = self._clock()
        if self._upkeep is None:
            replica = self._replica
            self._upkeep = Upkeep(
                replica.vault, replica.writer, clock=replica.shared.now, pace=replica.shared.pace.shared(),
                ring=key_ring(replica.assignment.vault), locks=replica.writer.locks, monotonic=replica.shared.monotonic,
            )  # fmt: skip
        self._thread = threading.Thread(target=self._run, args=(self._upkeep,), name="prune", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended, which is soon, after the replica was closed."""
        if self._upkeep is not None:
            self._upkeep.stop()
        if self._thread is not None:
            self._thread.join()

    def _run(self, upkeep: Upkeep) -> None:
        replica = self._replica
        try:
            report = upkeep.run(RetentionRules.of(replica.assignment.policy.retention))
        except Fault as fault:
            if not replica.closed:
                log.warning("prune put off", machine=replica.machine_id, message=fault.message)
            return
        except Exception:  # the outermost loop of this thread; the next prune finishes what was begun
            if not replica.closed:
                log.error("prune failed", machine=replica.machine_id, exc_info=True)
            return
        log.info(
            "pruned", machine=replica.machine_id, buried=len(report.prune.buried), packs=report.prune.packs_deleted,
            bytes=report.prune.bytes_deleted, stored=report.prune.stored, live=report.prune.live,
            carried=report.carried, withheld=report.prune.withheld,
        )  # fmt: skip
        self._done(report)
