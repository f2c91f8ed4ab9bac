"""Keeps warm replicas of the machines that would be recovered here, one after another, when nothing else is at work.

It has one thread and gives way to every task. What is in the way of one machine's replica is told beside that machine
and tried again; it stops no other, and no failover: without a replica the disks are uploaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.keeping import Kept, forget, keep, look, rests
from farshore_engine.azure.replicas import Replicas
from farshore_engine.contract.assignment import RecoveryTarget, ReplicaAccess
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.replication import WarmReplica
from farshore_engine.hydrate.windows import Progress
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.vault.stores import open_machine

log = structlog.get_logger(__name__)

LOOK_EVERY = 300.0  # seconds between two looks at a machine's replica, at most
AGAIN = 60.0  # seconds after which one is tried again that met a fault
PACE = 0.5  # seconds between two machines
TELL_EVERY = 15.0  # seconds between two words on how far a copy is
GIVE_WAY = 1.0  # seconds between two looks whether tasks are at work
MOST = 500  # replicas that are reported
NOT_YET = ("NoMachine", "NoVault")  # nothing was replicated yet


@dataclass
class _Known:
    """What is known of one machine's replica; `due` by the monotonic clock."""

    target: RecoveryTarget
    due: float = float("-inf")
    report: WarmReplica | None = None


class WarmReplicas:
    """See the module. Thread-safe.

    Args:
        owner: name of this process server, which holds the leases.
        busy: whether tasks are at work here.
    """

    def __init__(self, owner: Callable[[], str], busy: Callable[[], bool], metrics: Metrics) -> None:
        """Nothing happens before there are machines."""
        self._owner = owner
        self._busy = busy
        self._metrics = metrics
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, targets: Sequence[RecoveryTarget]) -> None:
        """Take over which machines there are; one whose wish, vault or account changed is looked at at once."""
        kept = {one.machine_id: one for one in targets if one.replica is not None or one.replica_trouble}
        with self._lock:
            self._known = {
                name: self._known[name] if name in self._known and self._known[name].target == one else _Known(one)
                for name, one in kept.items()
            }
            if kept and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="warm-replicas", daemon=True)
                self._thread.start()

    def report(self) -> tuple[WarmReplica, ...]:
        """Return the replicas of the machines that are to have one, by the machines' names."""
        with self._lock:
            found = [known.report for known in self._known.values() if known.report is not None]
        return tuple(sorted(found, key=lambda one: one.machine_id)[:MOST])

    def stop(self) -> None:
        """End; what is being written is cut, and continued the next time."""
        self._stop.set()

    def _work(self) -> None:
        while not self._stop.wait(PACE):
            if self._busy():
                continue
            known = self._next(time.monotonic())
            if known is None:
                continue
            wait = AGAIN
            try:
                wait = self._round(known)
            except _Stopped:
                return
            except Fault as fault:
                if fault.reason not in NOT_YET:
                    log.warning("warm replica put off", machine=known.target.machine_id, why=str(fault))
                    self._tell(known, fault.message, fault.remedy)
            except Exception as error:  # the outermost loop of this thread: one machine must not end the others'
                log.error("a warm replica could not be kept", machine=known.target.machine_id, exc_info=True)
                self._tell(known, f"internal error: {type(error).__name__}", "Please report it")
            known.due = time.monotonic() + wait

    def _next(self, now: float) -> _Known | None:
        """Return the machine that has waited longest beyond its time; None if none is due."""
        with self._lock:
            first = min(self._known.values(), key=lambda one: one.due, default=None)
        return first if first is not None and first.due <= now else None

    def _round(self, known: _Known) -> float:
        """Look at one machine's replica and do what is to be done; returns the seconds until the next look."""
        target, access = known.target, known.target.replica
        if access is None or target.site is None:
            raise StopFault(target.replica_trouble or "the site is no cloud", reason="ReplicaAccess")
        if not access.wanted:
            self._forget(known, access)
            return float("inf")
        with closing(open_machine(target.vault, target.machine_id)) as vault:
            replicas = Replicas.of(access, cloud_of(target.site), vault)
            kept, changed = look(replicas, vault, self._owner())
            if not rests(changed, kept, access.interval, _now()):
                self._tell(known, "it is brought to the newest point", found=kept)
                kept = keep(replicas, vault, self._owner(), self._meter(known))
        self._tell(known, "" if kept.point is not None else "there is no recovery point yet", found=kept)
        return min(LOOK_EVERY, max(PACE, access.interval.total_seconds()))

    def _forget(self, known: _Known, access: ReplicaAccess) -> None:
        """Remove what was kept while it was wanted."""
        target = known.target
        assert target.site is not None, "the caller has looked"
        try:
            with closing(open_machine(target.vault, target.machine_id)) as vault:
                removed = forget(Replicas.of(access, cloud_of(target.site), vault), vault)
        except StopFault as fault:  # nothing was ever kept, or nobody lets us look: that is told where one is wanted
            log.info("no warm replica was looked for", machine=target.machine_id, why=fault.message)
            return
        self._metrics.forget_replica(target.machine_id)
        if removed:
            log.info("warm replica removed", machine=target.machine_id, blobs=removed)

    def _meter(self, known: _Known) -> Callable[[Progress], None]:
        told = [time.monotonic()]

        def report(progress: Progress) -> None:
            while self._busy() and not self._stop.wait(GIVE_WAY):
                pass
            if self._stop.is_set():
                raise _Stopped
            if time.monotonic() - told[0] >= TELL_EVERY:
                told[0] = time.monotonic()
                percent = progress.done * 100 // max(1, progress.total)
                self._tell(known, f"it is brought to the newest point: {percent} % of a disk")

        return report

    def _tell(self, known: _Known, message: str, remedy: str = "", *, found: Kept | None = None) -> None:
        """Put down how a replica is; without `found` what it holds is as it was."""
        machine = known.target.machine_id
        old = known.report or WarmReplica(machine_id=machine)
        update: dict[str, object] = {"message": message, "remedy": remedy}
        if found is not None:
            point = found.point.manifest if found.point is not None else None
            update |= {
                "point": point.name if point else "",
                "point_time": point.time if point else None,
                "bytes_behind": found.behind if point else None,
                "updated_at": _now(),
            }
            if point is not None:
                self._metrics.replica_point.labels(machine).set(point.time.timestamp())
                self._metrics.replica_behind.labels(machine).set(found.behind)
        with self._lock:
            known.report = old.model_copy(update=update)


class _Stopped(Exception):
    """The process server stops."""


def _now() -> datetime:
    return datetime.now(UTC)
