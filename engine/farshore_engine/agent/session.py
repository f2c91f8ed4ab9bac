"""One conversation with a process server, from Hello to the end of the connection.

Runs in one thread. Incoming messages are handled between frames, so an acknowledgement, a new setting or a cancelled
point takes effect at once.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from farshore_engine.agent import VERSION
from farshore_engine.agent.barrier import Barrier
from farshore_engine.agent.channel import Channel
from farshore_engine.agent.final import NOTE, Hold, services_stopped
from farshore_engine.agent.freezing import FreezeFailed
from farshore_engine.agent.hooks import HookOrder
from farshore_engine.agent.ledger import Need
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.parts import DisksChanged, Identity, Machine, Parts, Refused, Stopping
from farshore_engine.agent.point import PointOrder, PointResult
from farshore_engine.agent.replicate import Replicator
from farshore_engine.agent.sampling import Sample
from farshore_engine.blocks.content import DIGEST_SIZE
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.wire.frames import PROTOCOL, PeerClosed, WireError
from farshore_engine.wire.messages import (
    Ack,
    Baseline,
    Bye,
    Committed,
    Cut,
    Data,
    Digests,
    FreezeNow,
    Hello,
    Message,
    NeedDigests,
    PointEnd,
    PointFailed,
    Progress,
    Refuse,
    ResyncRequired,
    Settings,
    Synced,
    SyncMode,
    TakePoint,
    Welcome,
    Zeros,
)

log = logging.getLogger(LOGGER_NAME)

WELCOME_SECONDS = 30.0
IDLE_SECONDS = 0.5
DIGEST_SECONDS = 120.0
PROGRESS_SECONDS = 1.0
MAX_REQUESTS = 8  # points that are asked for and not begun
LOOK_SECONDS = 3.0  # between two looks for disks that came, went or grew


@dataclass(slots=True)
class _Progress:
    phase: SyncMode = SyncMode.DELTA
    total: int = 0
    done: int = 0
    told_at: float = 0.0


class Session:
    """See the module. `run` returns only by an exception."""

    def __init__(self, channel: Channel, identity: Identity, machine: Machine, parts: Parts) -> None:
        self._channel = channel
        self._identity = identity
        self._machine = machine
        self._parts = parts
        self._ledger = parts.ledger
        self._settings = Settings()
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._unacknowledged_bytes = 0
        self._questions: deque[NeedDigests] = deque()
        self._answers: deque[tuple[Digests, bytes]] = deque()
        self._requests: deque[TakePoint] = deque()
        self._point = ""  # that is being made
        self._hold: Hold | None = None  # while the last point is being made
        self._cancelled = False
        self._barrier = Barrier(channel.send, self._pump, self.check_point)
        self._synced = False
        self._sample_due = False
        self._looked_at = time.monotonic()
        self._digest_key = b""
        self._progress = _Progress()
        self._replicator: Replicator

    def run(self) -> None:
        """Talk until something ends it.

        Raises:
            Refused, Stopping, DisksChanged: as their names say.
            PeerClosed, WireError: the connection broke, or the peer broke the protocol.
            OSError: a disk cannot be read.
        """
        try:
            self._greet()
            while True:
                self._step()
        except Stopping:
            self._channel.send(Bye("the agent stops"))
            self._channel.flush(2.0)
            raise
        finally:
            self._ledger.put_back()

    # -- greeting --------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        identity, ledger = self._identity, self._ledger
        if self._machine.changed():
            raise DisksChanged
        self._machine.refresh()
        self._channel.send(
            Hello(
                protocol=PROTOCOL,
                agent_version=VERSION,
                machine_id=identity.machine_id,
                boot_id=identity.boot_id,
                tracker=self._machine.tracker.name,
                tracker_reason=self._machine.tracker_reason,
                disks=self._machine.disks,
                machine=self._machine.describe(),
                baseline=Baseline(identity.session, identity.spool, ledger.acked, ledger.point),
                clock=time.time(),
                unclean=not identity.welcomed,
            )
        )
        received = self._channel.receive(WELCOME_SECONDS)
        if received is None:
            raise PeerClosed("no answer to Hello")
        if isinstance(received.message, Refuse):
            raise Refused(received.message)
        if isinstance(received.message, Bye):
            raise PeerClosed(received.message.reason)
        if not isinstance(received.message, Welcome):
            raise WireError(f"{received.message.kind.name} instead of Welcome")
        self._adopt(received.message)

    def _adopt(self, welcome: Welcome) -> None:
        modes = {entry.id: entry.mode for entry in welcome.disks}
        if set(modes) != set(self._machine.readers):
            raise WireError(f"Welcome names the disks {sorted(modes)}, Hello named {sorted(self._machine.readers)}")
        try:
            key = bytes.fromhex(welcome.digest_key)
        except ValueError as error:
            raise WireError("the digest key is not hexadecimal") from error
        if len(key) != DIGEST_SIZE:
            raise WireError("the digest key is not 32 bytes")
        if welcome.keep_pending and welcome.spool == self._identity.spool:
            self._ledger.resume(welcome.resume_after)
        else:
            self._ledger.forget_pending()
        self._parts.points.interrupted()
        self._identity.spool, self._identity.welcomed = welcome.spool, True
        self._apply(welcome.settings)
        self._digest_key = key
        self._replicator = Replicator(self._ledger, self._machine.readers, self, self._parts.workers, key)
        for disk, mode in modes.items():
            if mode is SyncMode.FULL:
                self._ledger.begin_full(disk)
            elif mode is SyncMode.RESYNC:
                self._ledger.begin_resync(disk)
            elif not self._ledger.can_delta(disk):
                self._ledger.lost(disk, "the agent started anew and does not know what changed before")
                self._ledger.begin_resync(disk)
        fields: dict[str, Any] = {"spool": welcome.spool, "modes": {d: m.value for d, m in modes.items()}}
        log.info("the process server bids welcome", extra={"fields": fields})

    # -- the work --------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._pump(0)
        self._report_losses()
        if self._settings.paused:
            self._pump(IDLE_SECONDS)
        elif self._unsynced():
            self._synced = False
            self._pass_over()
        elif not self._synced:
            self._synced = True
            self._tell_progress(now=True)
            self._channel.send(Synced(self._ledger.last_seq))
            log.info("all disks are passed over", extra={"fields": {"seq": self._ledger.last_seq}})
        elif self._requests:
            self._take(self._requests.popleft())
        elif self._sample_due:
            self._sample_due = False
            self._sample()
        else:
            self._pump(IDLE_SECONDS)

    def _unsynced(self) -> bool:
        ledger = self._ledger
        if not self._machine.tracker.exact and self._synced:
            return False  # without a tracker everything is unverified at any time; a point compares
        return bool(ledger.waiting(Need.UNSENT) or ledger.waiting(Need.UNVERIFIED))

    def _pass_over(self) -> None:
        ledger = self._ledger
        unsent, unverified = ledger.waiting(Need.UNSENT), ledger.waiting(Need.UNVERIFIED)
        phase = SyncMode.FULL if unsent else SyncMode.RESYNC
        self._progress = _Progress(phase, (unsent + unverified) * BLOCK_SIZE)
        for disk in self._machine.readers:
            if ledger.waiting(Need.UNSENT, disk):
                self._replicator.send_waiting(Need.UNSENT, disk)
            if ledger.waiting(Need.UNVERIFIED, disk):
                self._replicator.verify(disk)

    def _report_losses(self) -> None:
        losses = self._ledger.take_losses()
        if self._synced and not self._machine.tracker.exact:
            return  # Hello has said that nothing is tracked; each point compares
        for disk, reason in losses.items():
            log.warning("a disk must be compared", extra={"fields": {"disk": disk, "reason": reason}})
            self._channel.send(ResyncRequired(disk, reason))
            self._synced = False  # which is awaited now, also where all was written anew and nothing is to be compared

    def _take(self, request: TakePoint) -> None:
        """Make a point; for a last one, with the machine's services stopped."""
        if not request.hold or self._parts.services is None:
            self._take_point(request)
            return
        self._hold = Hold(request.hold, self._pump, self._parts.power_off if request.power_off else None)
        try:
            with services_stopped(self._parts.services):
                self._take_point(request)
        except FreezeFailed as error:
            log.warning("services were not stopped", extra={"fields": {"point": request.id, "detail": error.message}})
            self._channel.send(PointFailed(request.id, error.reason, error.message))
        finally:
            self._hold = None

    def _take_point(self, request: TakePoint) -> None:
        if self._machine.changed():
            raise DisksChanged
        self._progress = _Progress()
        self._point, self._cancelled = request.id, False
        started = time.monotonic()
        hold = self._hold
        try:
            self._machine.refresh()
            description = self._machine.describe()
            bound = min(self._parts.freeze_bound, self._settings.freeze_bound)

            def stay(send: Callable[[], None], found: PointResult) -> None:
                assert hold is not None
                frozen = time.monotonic() - found.freeze_seconds
                send()
                found.notes.append(NOTE)
                self._end_point(request, description, found)
                why = hold.wait(frozen)
                log.warning("the machine goes on", extra={"fields": {"point": request.id, "reason": why}})
                self._channel.send(PointFailed(request.id, "NotPoweredOff", why))

            order = PointOrder(
                request.id,
                request.consistency,
                self._machine.mounts(),
                bound,
                self._settings.precopy_target,
                HookOrder(self._settings.hooks, self._settings.hook_timeout, self._settings.hook_window),
                self._barrier if request.grouped else None,
                stay if hold is not None else None,
            )
            if hold is not None:
                order = replace(order, bound=hold.bound)
            result = self._parts.points.make(order, self._replicator, self)
        except FreezeFailed as error:
            fields = {"point": request.id, "reason": error.reason, "detail": error.message}
            log.warning("no point was made", extra={"fields": fields})
            rates = self._parts.points.rates
            self._channel.send(PointFailed(request.id, error.reason, error.message, rates.churn, rates.link))
            return
        if hold is None:
            self._end_point(request, description, result)
        figures = {
            "point": request.id,
            "freezeSeconds": round(result.freeze_seconds, 4),
            "frozenBytes": result.frozen_bytes,
            "snapshotBytes": result.snapshot_bytes,
            "rounds": result.precopy_rounds,
            "seconds": round(time.monotonic() - started, 3),
        }
        log.info("a point was sent", extra={"fields": figures})

    def _end_point(self, request: TakePoint, description: dict[str, Any], result: PointResult) -> None:
        seq = self._ledger.cut(request.id)
        self._channel.send(
            PointEnd(
                id=request.id,
                seq=seq,
                consistency=result.consistency,
                frozen_at=result.frozen_at,
                freeze_seconds=result.freeze_seconds,
                precopy_rounds=result.precopy_rounds,
                frozen_bytes=result.frozen_bytes,
                disks=self._machine.disks,
                machine=description,
                notes=tuple(result.notes),
                churn=self._parts.points.rates.churn,
                link_rate=self._parts.points.rates.link,
            )
        )

    def _sample(self) -> None:
        """Compare a sample of clean blocks, now that the point is committed and nothing is under way."""
        machine = self._machine
        if not machine.tracker.exact:
            return  # each point compares everything
        names = {disk.id: disk.name for disk in machine.disks}
        sample = Sample(
            self._ledger, machine.tracker, machine.readers, names, self, self._digest_key, self._parts.sampled
        )
        for disk in sample.check():
            log.error("blocks believed clean differ", extra={"fields": {"disk": disk}})

    # -- what replicator and points ask for ------------------------------------------------------------------------

    def deliver(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Send a frame, waiting for bandwidth, acknowledgements and the end of a pause; raises PeerClosed."""
        self._pump(0)
        while self._settings.paused or self._unacknowledged_bytes > self._parts.unacknowledged_limit:
            self._pump(IDLE_SECONDS)
        delay = self._parts.pace.take(len(payload))
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0:
            self._pump(min(left, IDLE_SECONDS))
        self._channel.send(message, payload)
        if isinstance(message, Data | Zeros):
            self._unacknowledged.append((message.seq, len(payload)))
            self._unacknowledged_bytes += len(payload)
        elif isinstance(message, NeedDigests):
            self._questions.append(message)

    def await_digests(self) -> tuple[Digests, bytes]:
        """Return the next answer to NeedDigests and its payload; raises PeerClosed or WireError."""
        deadline = time.monotonic() + DIGEST_SECONDS
        while not self._answers:
            if time.monotonic() > deadline:
                raise PeerClosed("the process server does not answer a question for digests")
            self._pump(IDLE_SECONDS)
        return self._answers.popleft()

    def passed(self, size: int) -> None:
        """Count bytes for the progress, and tell it at most each second."""
        self._progress.done += size
        self._tell_progress()

    def check_point(self, point: str) -> None:
        """Raise FreezeFailed when the process server called the point off, or when events were lost."""
        if self._cancelled:
            raise FreezeFailed("Cancelled", "the process server called the point off")
        if self._machine.changed():
            raise FreezeFailed("DisksChanged", "a disk came, went or grew while the point was made")
        if self._machine.tracker.exact and self._ledger.waiting(Need.UNVERIFIED):
            raise FreezeFailed("ResyncRequired", "writes may have gone unseen: the disks are compared first")

    def _tell_progress(self, now: bool = False) -> None:
        progress = self._progress
        if progress.total and (now or time.monotonic() - progress.told_at >= PROGRESS_SECONDS):
            progress.told_at = time.monotonic()
            self._channel.send(Progress(progress.phase, progress.total, min(progress.done, progress.total)))

    # -- incoming --------------------------------------------------------------------------------------------------

    def _pump(self, timeout: float) -> None:
        """Handle the messages that have come in, waiting at most `timeout` seconds for the first."""
        if self._parts.stopping():
            raise Stopping
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            if self._machine.changed():
                raise DisksChanged
        received = self._channel.receive(timeout)
        while received is not None:
            self._handle(received.message, received.payload)
            received = self._channel.receive(0)

    def _handle(self, message: Message, payload: bytes) -> None:
        match message:
            case Ack():
                self._ledger.acknowledge(message.seq)
                while self._unacknowledged and self._unacknowledged[0][0] <= message.seq:
                    self._unacknowledged_bytes -= self._unacknowledged.popleft()[1]
            case Digests():
                self._accept_digests(message, payload)
            case TakePoint():
                if len(self._requests) >= MAX_REQUESTS:
                    raise WireError("more points are asked for than can be made")
                self._requests.append(message)
                if not self._synced:
                    self._requests.pop()
                    self._channel.send(PointFailed(message.id, "NotSynced", "the disks are not yet passed over"))
            case Committed():
                known = self._ledger.commit(message.id, message.point)
                fields = {"point": message.point, "slot": message.slot, "known": known}
                log.info("a point is committed", extra={"fields": fields})
                self._sample_due = True
                if self._hold is not None and message.id == self._point:
                    self._hold.committed = True
            case PointFailed():
                self._cancelled = self._cancelled or message.id == self._point
                if self._hold is not None and message.id == self._point:
                    self._hold.called_off = True
                self._requests = deque(r for r in self._requests if r.id != message.id)
                self._ledger.fail(message.id)
                log.warning("the process server gave up a point", extra={"fields": message.to_header()})
            case FreezeNow() | Cut():
                self._barrier.hear(message)
            case Settings():
                self._apply(message)
            case Bye():
                raise PeerClosed(f"the process server says goodbye: {message.reason}")
            case _:
                raise WireError(f"unexpected {message.kind.name}")

    def _accept_digests(self, message: Digests, payload: bytes) -> None:
        question = self._questions.popleft() if self._questions else None
        asked = question is not None and (question.disk, question.first, question.count)
        if asked != (message.disk, message.first, message.count) or len(payload) != message.count * DIGEST_SIZE:
            raise WireError("digests that nobody asked for")
        self._answers.append((message, payload))

    def _apply(self, settings: Settings) -> None:
        self._settings = settings
        self._parts.pace.set_limit(settings.bandwidth_limit)
