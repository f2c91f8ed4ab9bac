"""What a machine's part of the vault needs beside new points: prune, compaction, key rotation, locks.

The process server calls `run` after points, seldom; everything in it is paced, remembers what it learned, and can be
cut off anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from farshore_engine.blocks.grid import block_count
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.compaction import PER_POINT, PLANNED, Carried, CompactionPlan, choose
from farshore_engine.vault.decoder import Decoder
from farshore_engine.vault.immutability import LockKeeper
from farshore_engine.vault.keyring import KeyRing
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.names import PackId
from farshore_engine.vault.nodestore import MapSpoiled
from farshore_engine.vault.pace import Pace
from farshore_engine.vault.prune import PruneReport, PruneState, prune
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.writer import PointWriter

PLAN_EVERY = 600.0  # seconds between two walks for what could be carried
WORTH = 0.05  # dead share of all that is stored from which on such a walk is worth it
ROTATE_EVERY = 3600.0  # seconds between two looks whether the key-encryption key changed


@dataclass(frozen=True, slots=True)
class UpkeepReport:
    """What was done.

    Attributes:
        prune: what the prune did.
        carried: blocks that the next point was asked to carry.
        lost: packs of the newest point that are gone from the store, first seen now: their blocks must come again.
        spoiled: why the newest map of a disk cannot be read, None if all can: the disk must be copied in full again.
    """

    prune: PruneReport
    carried: int = 0
    lost: frozenset[PackId] = frozenset()
    spoiled: MapSpoiled | None = None


class Upkeep:
    """The upkeep of one machine under one claim. `run` is for one thread; `stop` may come from any."""

    def __init__(
        self,
        vault: MachineVault,
        writer: PointWriter,
        *,
        clock: Callable[[], datetime],
        pace: Pace | None = None,
        ring: KeyRing | None = None,
        locks: LockKeeper | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read yet. `ring` are the vault's keys, to rotate to the current one; None leaves them alone.

        `locks`: the writer's, which are extended ahead of its points.
        """
        self._vault = vault
        self._writer = writer
        self._clock = clock
        self._pace = pace
        self._ring = ring
        self._locks = locks
        self._monotonic = monotonic
        self._state = PruneState.of(vault, pace)
        self._decoder = Decoder(self._state.access.store, vault.access.names, vault.access.keys)
        self._plan: CompactionPlan | None = None
        self._plan_at = -PLAN_EVERY
        self._rotate_at = monotonic() + ROTATE_EVERY
        self._lost: frozenset[PackId] = frozenset()

    def stop(self) -> None:
        """Cut a `run` off; it raises a WaitFault."""
        if self._pace is not None:
            self._pace.stop()

    def run(self, rules: RetentionRules) -> UpkeepReport:
        """Prune by the rules, and prepare what the next point carries.

        Raises:
            Fenced: somebody else has claimed the chain.
            WaitFault: the store is away, or it was stopped.
        """
        self._rotate()
        last = self._writer.last
        report = prune(
            self._vault,
            self._writer.chain,
            rules,
            in_flight=lambda: self._writer.in_flight,
            clock=self._clock,
            state=self._state,
            base=last.slot if last is not None else 0,
        )
        live = self._state.ledger.live()
        lost = frozenset(pack for pack in report.missing if pack in live) - self._lost
        self._lost |= lost
        if lost:
            self._writer.distrust(lost)
        newest = report.points[-1].slot if report.points else 0
        if self._locks is not None and last is not None and newest == last.slot and not report.spoiled:
            self._locks.ahead(newest, live, self._writer.chain.claim, self._pace)
        built_on = (newest, last.slot if last is not None else 0)
        spoiled = next((one.error for one in report.spoiled if one.slot in built_on), None)
        return UpkeepReport(report, self._carry(report), lost, spoiled)

    def _rotate(self) -> None:
        """Look after the wraps when they are not as they should be, and now and then whether the key has changed."""
        known = self._vault.key_report
        if self._ring is None:
            return
        if (known is not None and not known.wrapped) or self._monotonic() >= self._rotate_at:
            self._rotate_at = self._monotonic() + ROTATE_EVERY
            self._vault.rotate(self._ring)
            if self._locks is not None:
                self._locks.forget_key()

    def _carry(self, report: PruneReport) -> int:
        plan = self._plan
        if not plan:
            plan = self._plan = self._new_plan(report)
        if not plan:
            return 0
        carried: list[Carried] = plan.next(self._vault.access.names.machine, self._decoder, PER_POINT)
        self._writer.carry(carried)
        return sum(one.refs.size for one in carried)

    def _new_plan(self, report: PruneReport) -> CompactionPlan | None:
        last = self._writer.last
        dead = report.stored - report.live
        if last is None or dead < report.stored * WORTH or self._monotonic() - self._plan_at < PLAN_EVERY:
            return None
        ledger = self._state.ledger
        spared = self._writer.in_flight
        sizes = {pack: size for pack, size in self._state.sizes.items() if pack not in spared}
        chosen = choose(sizes, ledger.live(), ledger.held_by_older(), PER_POINT * PLANNED)
        if not chosen:
            return None
        self._plan_at = self._monotonic()
        maps = [
            BlockMap(disk.id, block_count(disk.size_bytes), disk.root.ref(), self._state.nodes)
            for disk in last.manifest.disks
            if disk.root is not None
        ]
        try:
            return CompactionPlan(chosen, maps)
        except MapSpoiled:
            return None
