"""The messages of the data port, one frozen dataclass for each frame kind.

The agent dials the process server, says Hello, and is then led: the process server decides how each disk is
brought up to date and when a point is taken. Payloads (block bytes, digests) travel beside the header, not in it.
Only the standard library is used, because the agent runs this code inside its bundle.

Order of a session::

    agent                                 process server
    Hello ------------------------------>
          <------------------------------ Welcome (a sync mode for each disk) or Refuse
    NeedDigests / Data / Zeros / Progress ->
          <------------------------------ Digests / Ack (durable up to a sequence number)
    Synced ----------------------------->     every disk has been passed over once
          <------------------------------ TakePoint
    Data / Zeros (pre-copy, frozen rest) ->
    PointReady ------------------------->     only for a point of a consistency group: see `barrier`
          <------------------------------ FreezeNow
    Frozen ----------------------------->
          <------------------------------ Cut
    PointEnd --------------------------->     or PointFailed
          <------------------------------ Committed (visible in the vault) or PointFailed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from farshore_engine.wire.barrier import Cut as Cut
from farshore_engine.wire.barrier import FreezeNow as FreezeNow
from farshore_engine.wire.barrier import Frozen as Frozen
from farshore_engine.wire.barrier import PointReady as PointReady
from farshore_engine.wire.enrolment import Enrol as Enrol
from farshore_engine.wire.enrolment import Enrolled as Enrolled
from farshore_engine.wire.frames import FrameKind
from farshore_engine.wire.message import Message as Message


class SyncMode(StrEnum):
    """How a disk is brought up to date after Welcome."""

    FULL = "full"  # the process server holds nothing: send every block that is not zero
    RESYNC = "resync"  # it holds something, tracking has a gap: compare digests, send the blocks that differ
    DELTA = "delta"  # tracking has no gap: send the blocks marked dirty


class Consistency(StrEnum):
    """What a point promises."""

    CRASH = "crash"  # every file system frozen together: as after a power cut, without torn writes
    APP = "app"  # crash, and the pre and post hooks of the applications succeeded
    UNMARKED = "unmarked"  # a part without freeze support saw writes in the window; the notes say which


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """A protected disk as the agent sees it. `id` is stable across reboots (see agent.disks); size in bytes."""

    id: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the agent's bitmaps are relative to, so that a reconnect needs no resync when nothing was lost.

    `session` names the agent process's unbroken stretch of tracking; `spool` the process server's spool that
    acknowledged `acked`; `point` is the last point that was committed while this session tracked ("" if none).
    """

    session: str
    spool: str
    acked: int
    point: str


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """First message of the agent. `machine` is the machine description as JSON (contract.machine)."""

    kind: ClassVar[FrameKind] = FrameKind.HELLO
    protocol: int
    agent_version: str
    machine_id: str
    boot_id: str
    tracker: str
    tracker_reason: str
    disks: tuple[DiskInfo, ...]
    machine: dict[str, Any]
    baseline: Baseline
    clock: float  # seconds since the epoch, to report skew
    unclean: bool = False  # the agent (re)started, so bitmaps of earlier sessions are gone


@dataclass(frozen=True, slots=True)
class DiskSync:
    """The mode chosen for one disk."""

    id: str
    mode: SyncMode


@dataclass(frozen=True, slots=True)
class Settings(Message):
    """Knobs of the session; sent inside Welcome and again when the policy changes."""

    kind: ClassVar[FrameKind] = FrameKind.SETTINGS
    bandwidth_limit: int = 0  # bytes per second, 0: none
    freeze_bound: float = 10.0  # seconds after which the watchdog thaws
    precopy_target: int = 4 << 20  # bytes left to copy under the freeze, at most
    paused: bool = False
    hooks: tuple[str, ...] = ()  # shipped hooks that run beside the machine's own at an application-consistent point
    hook_timeout: float = 30.0  # seconds that one call of a hook may take
    hook_window: float = 60.0  # seconds from the first pre hook to the last post hook


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The process server's answer. `resume_after`: frames up to this sequence number of the same session and spool
    are durable; `keep_pending` False tells the agent to mark everything since its last committed point dirty again."""

    kind: ClassVar[FrameKind] = FrameKind.WELCOME
    spool: str
    resume_after: int
    keep_pending: bool
    digest_key: str  # hex, 32 bytes: key of the BLAKE3 digests of this machine
    disks: tuple[DiskSync, ...]
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Refuse(Message):
    """The process server will not talk; the agent waits `retry_after` seconds before it dials again."""

    kind: ClassVar[FrameKind] = FrameKind.REFUSE
    reason: str
    message: str
    retry_after: float = 30.0


@dataclass(frozen=True, slots=True)
class NeedDigests(Message):
    """Ask for the digests of blocks [first, first + count) of a disk."""

    kind: ClassVar[FrameKind] = FrameKind.NEED_DIGESTS
    disk: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Digests(Message):
    """The payload holds count x 32 bytes; 32 zero bytes stand for a hole."""

    kind: ClassVar[FrameKind] = FrameKind.DIGESTS
    disk: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run of bytes on a disk; offset and length are multiples of the 64 KiB grid, but for a disk's tail."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Data(Message):
    """Blocks of one disk, none of them only zeros; `blocks.encoded` tells the payload. `seq` counts Data and Zeros."""

    kind: ClassVar[FrameKind] = FrameKind.DATA
    seq: int
    disk: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Zeros(Message):
    """Runs of one disk that hold zeros only."""

    kind: ClassVar[FrameKind] = FrameKind.ZEROS
    seq: int
    disk: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Ack(Message):
    """Every Data and Zeros frame up to `seq` is durable in the spool."""

    kind: ClassVar[FrameKind] = FrameKind.ACK
    seq: int


@dataclass(frozen=True, slots=True)
class Synced(Message):
    """Each disk has been passed over once in its mode: a point may be taken."""

    kind: ClassVar[FrameKind] = FrameKind.SYNCED
    seq: int


@dataclass(frozen=True, slots=True)
class TakePoint(Message):
    """Pre-copy, freeze, read the rest, thaw, send. `id` is the process server's name for this attempt."""

    kind: ClassVar[FrameKind] = FrameKind.TAKE_POINT
    id: str
    consistency: Consistency
    grouped: bool = False  # other machines freeze at the same time: say PointReady and wait for FreezeNow, then for Cut
    hold: float = 0.0  # the machine's last point: stay frozen behind PointEnd for at most so many seconds
    power_off: bool = False  # with hold: the machine cuts its own power once the point is committed


@dataclass(frozen=True, slots=True)
class PointEnd(Message):
    """All blocks of the point were sent; `seq` is the last of them. Times are seconds since the epoch."""

    kind: ClassVar[FrameKind] = FrameKind.POINT_END
    id: str
    seq: int
    consistency: Consistency
    frozen_at: float
    freeze_seconds: float
    precopy_rounds: int
    frozen_bytes: int
    disks: tuple[DiskInfo, ...]
    machine: dict[str, Any]
    notes: tuple[str, ...] = ()
    churn: float = 0.0  # bytes of distinct blocks that programs write each second, 0: unknown
    link_rate: float = 0.0  # bytes each second at which they were sent, when rounds took long enough to tell


@dataclass(frozen=True, slots=True)
class PointFailed(Message):
    """Either side gives up a point; what was sent stays pending for the next one."""

    kind: ClassVar[FrameKind] = FrameKind.POINT_FAILED
    id: str
    reason: str
    message: str
    churn: float = 0.0  # as in PointEnd
    link_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Committed(Message):
    """The point is visible in the vault; the agent forgets the changes that it carries."""

    kind: ClassVar[FrameKind] = FrameKind.COMMITTED
    id: str
    point: str
    slot: int


@dataclass(frozen=True, slots=True)
class Progress(Message):
    """How far the pass over the disks is: bytes passed over and bytes to pass over; sent at most each second."""

    kind: ClassVar[FrameKind] = FrameKind.PROGRESS
    phase: SyncMode
    total: int
    done: int


SILENT_CHANGE = "blocks believed clean differ"  # the reason of a ResyncRequired that is an alarm begins so


@dataclass(frozen=True, slots=True)
class ResyncRequired(Message):
    """The tracker lost events of a disk or cannot be sure; the agent starts a resync of it by itself."""

    kind: ClassVar[FrameKind] = FrameKind.RESYNC_REQUIRED
    disk: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Asks for a sign of life; either side sends it after 10 s of silence and hangs up after 30 s without any frame."""

    kind: ClassVar[FrameKind] = FrameKind.PING


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """The answer to Ping."""

    kind: ClassVar[FrameKind] = FrameKind.PONG


@dataclass(frozen=True, slots=True)
class Bye(Message):
    """The sender closes the session in good order and says why."""

    kind: ClassVar[FrameKind] = FrameKind.BYE
    reason: str


MESSAGES: dict[FrameKind, type[Message]] = {
    m.kind: m
    for m in (
        Hello, Welcome, Refuse, NeedDigests, Digests, Data, Zeros, Ack, Synced, TakePoint, PointEnd, PointFailed,
        Committed, Progress, ResyncRequired, Settings, Ping, Pong, Bye, Enrol, Enrolled,
        PointReady, FreezeNow, Frozen, Cut,
    )
}  # fmt: skip


def decode(kind: FrameKind, header: dict[str, Any]) -> Message:
    """Return the message of a received frame; raises WireError when it is malformed."""
    return MESSAGES[kind].from_header(header)
