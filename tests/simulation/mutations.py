"""Guards of the product that are taken away on purpose: the simulation must find out, or it proves nothing.

Each mutation patches one guard, narrows the faults to those that matter for it, and is found within `seeds` schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from tests.simulation import faults
from tests.simulation.schedule import Site

from farshore_engine.agent.ledger import NEEDS, Ledger, Need
from farshore_engine.processserver import opening
from farshore_engine.processserver import replica as replicas
from farshore_engine.processserver.intake import Intake
from farshore_engine.processserver.journal import Kind, Record
from farshore_engine.processserver.syncmode import plan_sync
from farshore_engine.processserver.written import Written
from farshore_engine.vault import chain as chains
from farshore_engine.vault import prune as pruning
from farshore_engine.vault.chain import ChainWriter, read_slot
from farshore_engine.vault.records import RecordHeader, RecordKind, open_record, seal_record
from farshore_engine.vault.store import AlreadyExists

Prepare = Callable[[Site], AbstractContextManager[None] | None]


@dataclass(frozen=True)
class Mutation:
    """`prepare` takes the guard away for one schedule."""

    prepare: Prepare
    fault: Callable[[Site], str] = faults.any_fault
    seeds: int = 200


@contextmanager
def patched(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def no_mark_at_queue(site: Site) -> None:
    """A write is marked when it completes only."""
    site.source.tracing.queued = False
    site.source.raw, site.source.idle, site.source.writers = 0.7, 0.01, 3


def no_mark_at_completion(site: Site) -> None:
    """A write is marked when it is queued only."""
    site.source.tracing.completed = False


def clear_after_read(site: Site) -> None:
    """The mark is cleared when the block is sent instead of before it is read."""
    site.agent.clear_before_read = False
    site.source.idle, site.source.writers = 0.01, 3


@contextmanager
def trusting(site: Site) -> Iterator[None]:
    """A process server takes an agent's word, although its spool holds less than it acknowledged."""

    def plan(disks: Any, baseline: Any, held: Any) -> Any:
        return plan_sync(disks, replace(baseline, acked=min(baseline.acked, held.durable)), held)

    def resume(self: Ledger, durable: int) -> None:
        real_resume(self, max(durable, self.acked))

    real_resume = Ledger.resume
    with patched(replicas, "plan_sync", plan), patched(Ledger, "resume", resume):
        yield


@contextmanager
def no_fsync(site: Site) -> Iterator[None]:
    """The spool acknowledges frames that are not synced yet, and nobody compares afterwards what is there."""
    record, store = Written.record, Intake._store
    acknowledge: dict[str, Callable[[], None]] = {}

    def lazily(self: Written, fresh: list[Record]) -> None:
        if any(one.kind not in (Kind.FRAME, Kind.SEALED) for one in fresh):
            return record(self, fresh)
        self.journal.append(fresh)
        for one in fresh:
            self.generation.apply(one)
        acknowledge.pop(self.generation.spool, lambda: None)()
        site.world.sleep(0.5)  # the next record, which is synced, would follow at once

    def remember(self: Intake, packs: Any, items: Any, on_durable: Callable[[int], None]) -> None:
        if items:
            acknowledge[self._spool.id] = lambda: on_durable(items[-1].seq)
        store(self, packs, items, on_durable)

    with trusting(site), patched(Written, "record", lazily), patched(Intake, "_store", remember):
        yield


@contextmanager
def acknowledge_first(site: Site) -> Iterator[None]:
    """The spool acknowledges frames before it stores them, and nobody compares afterwards what is there."""
    store = Intake._store

    def early(self: Intake, packs: Any, items: Any, on_durable: Callable[[int], None]) -> None:
        if items:
            on_durable(items[-1].seq)
        site.world.sleep(0.5)
        store(self, packs, items, on_durable)

    with trusting(site), patched(Intake, "_store", early):
        yield


def manifest_first(site: Site) -> AbstractContextManager[None]:
    """A point is put without waiting for its packs."""
    return patched(Intake, "drain", lambda self: None)


def _pins_meet_prunes(site: Site) -> None:
    """Points expire fast, and drills are after those that expire next."""
    site.weather.slow, site.wanted.interval, site.wanted.keep = 0.3, 1.0, 3.0
    site.auditor.keep = timedelta(seconds=3)
    site.drill.idle, site.drill.oldest = (0.0, 0.3), True


def sweep_as_first_decided(site: Site) -> AbstractContextManager[None]:
    """Prune does not read the chain again before it deletes packs: a point that a pin brought back is forgotten."""
    _pins_meet_prunes(site)
    sweep, counts = pruning._sweep, pruning._counts

    def once(state: Any, chain: Any, report: Any, *others: Any) -> Any:
        def as_decided(slot: Any, pins: Any) -> bool:
            return counts(slot, pins) and report.kept.get(slot.number, ["new"]) != []

        with patched(pruning, "_counts", as_decided):
            return sweep(state, chain, report, *others)

    return patched(pruning, "_sweep", once)


def pins_unseen(site: Site) -> AbstractContextManager[None]:
    """Prune does not look for pins again after it has condemned."""
    _pins_meet_prunes(site)
    return patched(pruning, "_pins_by_now", lambda access: {})


def flight_unseen(site: Site) -> AbstractContextManager[None]:
    """Prune does not spare the packs in flight."""
    site.weather.slow, site.wanted.interval = 0.4, 1.0
    from farshore_engine.vault.writer import PointWriter

    return patched(PointWriter, "in_flight", property(lambda self: frozenset()))


def no_fence(site: Site) -> AbstractContextManager[None]:
    """A writer that finds its slot taken takes the next one."""

    def append(self: ChainWriter, manifest: Callable[[int], Any]) -> Any:
        access = self._access
        while True:
            slot = self.head + 1
            header = RecordHeader(
                access.names.machine, slot, self.epoch, self.writer, self.claim, RecordKind.POINT, self._digest
            )
            data = seal_record(access.keys, header, manifest(slot))
            try:
                access.store.put(access.names.slot(slot), data, create_only=True)
            except AlreadyExists:
                found = read_slot(access, slot).record
                assert found is not None
                self.head, self._digest = slot, found.digest
                continue
            record = open_record(access.keys, slot, data)
            self.head, self._digest = slot, record.digest
            return record

    return patched(ChainWriter, "append", append)


def base_unseen(site: Site) -> AbstractContextManager[None]:
    """A writer does not look whether the fence that it should have met was pruned."""
    return patched(chains, "is_below_base", lambda access, slot: False)


def any_vaults_spool(site: Site) -> AbstractContextManager[None]:
    """A spool is used for whatever vault stands there."""
    return patched(opening, "vault_name", lambda vault: "the same")


def one_bitmap(site: Site) -> AbstractContextManager[None]:
    """What was sent since the last point is not remembered: another process server never gets it."""

    def forget(self: Ledger) -> None:
        with self._lock:
            self._empty_hand()
            self._cuts.clear()
            self._frames.clear()
            for entry in self._disks.values():
                entry.needs[Need.DIRTY] |= entry.needs[Need.UNSENT]
                entry.needs[Need.UNSENT][:] = 0
                entry.uncommitted[:] = 0
                entry.based = entry.grounded

    return patched(Ledger, "forget_pending", forget)


def hand_forgotten(site: Site) -> AbstractContextManager[None]:
    """What was taken and not yet sent when a connection breaks is not put back."""

    def empty(self: Ledger) -> None:
        for entry in self._disks.values():
            for need in NEEDS:
                entry.hand[need][:] = 0

    return patched(Ledger, "_empty_hand", empty)


MUTATIONS: dict[str, Mutation] = {
    "no-mark-at-queue": Mutation(no_mark_at_queue),
    "no-mark-at-completion": Mutation(no_mark_at_completion),
    "clear-after-read": Mutation(clear_after_read),
    "no-fsync": Mutation(no_fsync, faults.only(faults.cut_power)),
    "acknowledge-first": Mutation(acknowledge_first, faults.only(faults.kill_server)),
    "manifest-first": Mutation(manifest_first),
    "sweep-as-first-decided": Mutation(sweep_as_first_decided, faults.only(faults.kill_drill)),
    "pins-unseen": Mutation(pins_unseen, faults.only(faults.kill_drill)),
    "flight-unseen": Mutation(flight_unseen, faults.only(faults.cut_link, faults.kill_agent, faults.vault_flaky)),
    "no-fence": Mutation(no_fence, faults.only(faults.fence, faults.reassign)),
    "base-unseen": Mutation(base_unseen, faults.only(faults.reassign, faults.stall_server), seeds=400),
    "any-vaults-spool": Mutation(any_vaults_spool, faults.only(faults.replace_vault)),
    "one-bitmap": Mutation(one_bitmap, faults.only(faults.reassign, faults.lose_spool)),
    "hand-forgotten": Mutation(hand_forgotten, faults.only(faults.cut_link)),
}
