"""One machine's replication as it runs: the vault, the spool, the connected agent, and the point being made.

Opened by the supervisor once a machine is assigned; closed and opened anew when something in it failed. Threads that
come in here: the connection's (receives), the spooler's (acknowledges), the point keeper's (asks and commits).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import structlog

from farshore_engine.blocks.encoded import EncodedBlocks
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes
from farshore_engine.contract.assignment import Desired, MachineAssignment
from farshore_engine.contract.replication import TransferProgress
from farshore_engine.processserver.attempts import Attempts
from farshore_engine.processserver.budget import SpoolShare
from farshore_engine.processserver.generation import AgentSession
from farshore_engine.processserver.intake import Intake
from farshore_engine.processserver.missing import missing_disks
from farshore_engine.processserver.progress import ProgressMeter
from farshore_engine.processserver.session import Session
from farshore_engine.processserver.shared import Link as Link
from farshore_engine.processserver.shared import Shared as Shared
from farshore_engine.processserver.silence import Silence
from farshore_engine.processserver.spool import Spool
from farshore_engine.processserver.syncmode import Held, plan_sync
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import PointWriter
from farshore_engine.wire.frames import PeerClosed
from farshore_engine.wire.messages import (
    SILENT_CHANGE,
    Ack,
    Committed,
    Progress,
    ResyncRequired,
    Settings,
    SyncMode,
    Welcome,
)

log = structlog.get_logger(__name__)


@dataclass
class Replica:
    """See the module; made by `open_replica`. Public methods are thread-safe."""

    assignment: MachineAssignment
    shared: Shared
    vault: MachineVault
    writer: PointWriter
    spool: Spool
    uploader: PackUploader
    intake: Intake
    held_disks: set[str]
    room: SpoolShare
    link: Link = field(default_factory=Link)
    session: Session | None = None
    first_copy_since: float | None = None
    first_copy: tuple[int, float] | None = None  # bytes passed over, seconds
    changed: threading.Condition = field(default_factory=threading.Condition)
    meter: ProgressMeter = field(default_factory=ProgressMeter)
    receiving: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False
    last_committed: Committed | None = None
    lost: str = ""  # what the vault lost of the newest point, until a session has compared the disks
    healing: Session | None = None  # that session

    def __post_init__(self) -> None:
        """Begin without an attempt."""
        self.attempts = Attempts(self)
        self.silence = Silence(self.shared.monotonic)

    # -- the session -----------------------------------------------------------------------------------------------

    def attach(self, session: Session) -> Welcome:
        """Take over from an earlier session of the machine and return the answer to Hello."""
        with self.changed:
            earlier, self.session = self.session, session
            self.silence.broken()
        self.attempts.abandon("its agent connected anew")
        if earlier is not None:
            earlier.cut()
        with self.receiving:  # a frame of the earlier connection that is still on its way in must not come behind ours
            self.intake.flush()  # and digests must not speak of blocks that a crash could still take away
        baseline = session.hello.baseline
        plan = plan_sync(session.hello.disks, baseline, self._held())
        if self.spool.current.session is None or self.spool.current.session.id != baseline.session:
            self.spool.begin_session(AgentSession(baseline.session))
        modes = {disk.mode for disk in plan.disks}
        mode = next((m for m in (SyncMode.FULL, SyncMode.RESYNC, SyncMode.DELTA) if m in modes), None)
        with self.changed:
            self.meter = ProgressMeter()
            self.healing = session if self.lost else None
            waited = max(0.0, self.shared.monotonic() - session.accepted)
            self.link = Link.of(session.hello, mode, plan.resync_reason, self.shared.now(), waited)
            if mode is SyncMode.FULL and self.writer.last is None and self.first_copy_since is None:
                self.first_copy_since = self.shared.monotonic()
            self.changed.notify_all()
        log.info(
            "agent connected", machine=self.machine_id, peer=session.peer, resync=plan.resync_reason,
            modes={d.id: d.mode.value for d in plan.disks}, agent=session.hello.agent_version,
        )  # fmt: skip
        return Welcome(
            spool=self.spool.id,
            resume_after=plan.resume_after,
            keep_pending=plan.keep_pending,
            digest_key=self.vault.digest_key.hex(),
            disks=plan.disks,
            settings=self.settings(),
        )

    def greeted(self, session: Session) -> None:
        """Acknowledge from now on, and tell of a point that was committed while the agent was away."""
        self.intake.on_durable = lambda seq: self._acknowledge(session, seq)
        committed = self.last_committed
        if committed is not None and session.hello.baseline.point != committed.point:
            session.send(committed)

    def detach(self, session: Session, reason: str) -> None:
        """The session ended."""
        with self.changed:
            if self.session is not session:
                return
            self.session = None
            self.link = replace(self.link, connected=False, synced=False, last_seen=self.shared.now())
            self.changed.notify_all()
        self.attempts.abandon(f"the connection of its agent ended: {reason}")
        log.info("agent disconnected", machine=self.machine_id, peer=session.peer, reason=reason)

    def receive_data(self, session: Session, seq: int, disk: str, blocks: Indexes, encoded: EncodedBlocks) -> None:
        """Take in a Data frame; waits while the spool is full or a point is being committed."""
        self.shared.metrics.note_received(self.machine_id, blocks.size * BLOCK_SIZE)

        def gone() -> bool:
            return self.closed or self.session is not session

        with self._turn_of(session):
            self.shared.bandwidth.take(self.machine_id, encoded.size, gone)
            self.intake.data(seq, disk, blocks, encoded, gone)
            self.held_disks.add(disk)

    def receive_zeros(self, session: Session, seq: int, disk: str, blocks: Indexes) -> None:
        """Take in a Zeros frame."""
        with self._turn_of(session):
            self.intake.zeros(seq, disk, blocks)

    def digests(self, session: Session, disk: str, first: int, count: int) -> bytes:
        """Return digests as the next point would have them now."""
        with self._turn_of(session):
            return self.intake.digests(disk, first, count)

    def synced(self, session: Session) -> None:
        """Every disk has been passed over: points may be taken."""
        with self.changed:
            if self.session is not session:
                return
            self.silence.broken()
            if self.healing is session:
                self.lost, self.healing = "", None
            self.link = replace(self.link, synced=True)
            if self.first_copy_since is not None and self.first_copy is None:
                total = sum(disk.size_bytes for disk in self.link.disks)
                self.first_copy = (total, self.shared.monotonic() - self.first_copy_since)
            self.changed.notify_all()
        log.info("in sync", machine=self.machine_id)

    def resync_required(self, session: Session, message: ResyncRequired) -> None:
        """The tracker lost something; the agent compares the disk and says Synced again."""
        with self.changed:
            if self.session is session:
                self.link = replace(
                    self.link, synced=False, mode=SyncMode.RESYNC, resync_reason=f"{message.disk}: {message.reason}"
                )
                self.changed.notify_all()
        self.shared.metrics.resyncs.labels(self.machine_id).inc()
        if message.reason.startswith(SILENT_CHANGE):
            self.shared.metrics.silent_changes.labels(self.machine_id).inc()
        log.warning("resync required", machine=self.machine_id, disk=message.disk, reason=message.reason)

    def compare_again(self, why: str) -> None:
        """Have the agent dial in anew and compare its disks: blocks that the vault lost are told as different."""
        with self.changed:
            self.lost = why
            session = self.session
        log.warning("resync required", machine=self.machine_id, reason=why)
        self.shared.metrics.resyncs.labels(self.machine_id).inc()
        if session is not None:
            session.cut()

    def progressed(self, session: Session, message: Progress) -> None:
        """Note how far the pass over the disks is."""
        with self.changed:
            self.silence.broken()
            if self.session is session:
                self.meter.note(self.shared.monotonic(), message.total, message.done)

    # -- points ----------------------------------------------------------------------------------------------------

    def point_committed(self, committed: Committed) -> None:
        """The point of the closed generation is visible: tell the agent, and let held-back data in."""
        with self.changed:
            self.spool.committed(committed.slot)
            self.last_committed = committed
            self.link = replace(self.link, resync_reason="")  # told until a point shows that it is over
            session = self.session
            self.changed.notify_all()
        if session is not None:
            with contextlib.suppress(PeerClosed):
                session.send(committed)

    # -- the supervisor --------------------------------------------------------------------------------------------

    @property
    def machine_id(self) -> str:
        """The machine."""
        return self.assignment.machine_id

    @property
    def progress(self) -> TransferProgress | None:
        """How far the first copy or resync is; None when in sync."""
        with self.changed:
            return None if self.link.synced else self.meter.report()

    @property
    def missing(self) -> tuple[str, ...]:
        """Disks that should be in the machine and are not, in words; nothing while its agent is away."""
        with self.changed:
            link, last = self.link, self.writer.last
        if not link.connected:
            return ()
        return missing_disks(last.manifest.disks if last is not None else (), link.disks, self.assignment.source)

    def settings(self) -> Settings:
        """Return the knobs that the agent gets."""
        policy = self.assignment.policy
        return Settings(
            bandwidth_limit=policy.bandwidth_limit,  # the appliance's own is kept here, for all machines together
            freeze_bound=policy.freeze_bound.total_seconds(),
            hooks=tuple(hook.value for hook in policy.hooks),
            hook_timeout=policy.hook_timeout.total_seconds(),
            hook_window=policy.hook_window.total_seconds(),
            paused=self.assignment.desired is Desired.PAUSE,
        )

    def update(self, assignment: MachineAssignment) -> None:
        """Take over a changed assignment of the same epoch and vault, and tell the agent."""
        before = self.settings()
        with self.changed:
            self.assignment = assignment
            session = self.session
            self.changed.notify_all()
        if session is not None and self.settings() != before:
            with contextlib.suppress(PeerClosed):
                session.send(self.settings())

    @property
    def silent_for(self) -> float:
        """Seconds for which an agent that owes something (its disks, a point) has said nothing, else 0."""
        with self.changed:
            owes = self.session is not None and (self.attempts.current is not None or not self.link.synced)
            return self.silence.seconds(owes=owes and self.assignment.desired is Desired.REPLICATE)

    def disconnect(self, reason: str) -> None:
        """Take no more from the agent, at once; `close` must follow."""
        with self.changed:
            self.closed = True
            session = self.session
            self.changed.notify_all()
        if session is not None:
            log.info("hanging up", machine=self.machine_id, reason=reason)
            session.cut()

    def close(self, reason: str) -> None:
        """Hang up and stop; what is durable stays for the next opening."""
        with self.changed:
            self.closed = True
            session = self.session
            self.changed.notify_all()
        self.intake.stop()
        if session is not None:
            session.hang_up(reason)
        self.uploader.close(abandon=True)
        self.spool.close()
        self.room.close()
        self.vault.close()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _held(self) -> Held:
        session = self.spool.current.session
        last = self.writer.last
        return Held(
            spool=self.spool.id,
            session=session.id if session else "",
            durable=session.durable if session else 0,
            head=last.manifest.name if last is not None else "",
            disks=frozenset(self.held_disks),
            lost=self.lost,
        )

    def _acknowledge(self, session: Session, seq: int) -> None:
        with contextlib.suppress(PeerClosed):
            session.send(Ack(seq))

    @contextlib.contextmanager
    def _turn_of(self, session: Session) -> Iterator[None]:
        """Let one frame of the current session in, once no point is being committed: the writer knows no two points."""
        with self.silence.busy():
            with self.changed:
                self.changed.wait_for(
                    lambda: self.closed or self.session is not session or self.spool.committing is None
                )
            with self.receiving:
                if self.closed or self.session is not session:
                    raise PeerClosed("the session was replaced")
                yield
