"""A process server reduced to its contract: it applies frames to a replica file and can lose, delay and hang up.

It is the judge in the agent's tests, so it is as simple as can be: what has been acknowledged is in the replica, what
has not may vanish with the connection, and `lose_spool` forgets everything since the last committed point.
"""

from __future__ import annotations

import os
import queue
import random
import secrets
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farshore_engine.blocks.content import digest_blocks
from farshore_engine.blocks.encoded import decode as decode_block
from farshore_engine.blocks.encoded import parse_payload
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count
from farshore_engine.wire.frames import Frame, FrameKind, PeerClosed, WireError, receive_frame, send_frame
from farshore_engine.wire.messages import (
    Ack,
    Bye,
    Committed,
    Consistency,
    Data,
    Digests,
    DiskSync,
    Hello,
    Message,
    NeedDigests,
    Ping,
    PointEnd,
    PointFailed,
    Pong,
    Progress,
    ResyncRequired,
    Settings,
    Synced,
    SyncMode,
    TakePoint,
    Welcome,
    Zeros,
    decode,
)
from farshore_engine.wire.stream import TlsStream


@dataclass
class Behaviour:
    """How the peer misbehaves.

    Args:
        hang_up: probability, for each frame of data, of closing the connection before it is acknowledged.
        acknowledge_every: frames between two acknowledgements; those since the last one are lost on a hang-up.
        random: the source of chance.
    """

    hang_up: float = 0.0
    acknowledge_every: int = 8
    random: random.Random = field(default_factory=lambda: random.Random(1))


@dataclass
class Heard:
    """Everything that the agent said and a test may want to know."""

    hellos: list[Hello] = field(default_factory=list)
    modes: list[dict[str, SyncMode]] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    resyncs: list[ResyncRequired] = field(default_factory=list)
    failed: list[PointFailed] = field(default_factory=list)
    byes: list[str] = field(default_factory=list)
    synced: int = 0
    data_bytes: int = 0
    zero_bytes: int = 0
    digests: int = 0  # asked for while the disks were passed over
    sampled: int = 0  # and at rest
    zero_frames: int = 0


class ReferencePeer:
    """Listens on loopback. `on_point` runs when a point is complete, before any later frame is looked at."""

    def __init__(self, directory: Path, identity: Path, on_point: Callable[[PointEnd], None] | None = None) -> None:
        self.directory = directory
        self.behaviour = Behaviour()
        self.heard = Heard()
        self._settings = Settings()
        self.digest_key = bytes(range(32))
        self.on_point = on_point
        self.commit_points = True
        self.errors: list[BaseException] = []
        self.points: queue.Queue[PointEnd | PointFailed] = queue.Queue()
        self.spool = secrets.token_hex(4)
        self.committed = ""
        self._session = ""
        self._durable = 0
        self._waiting: list[tuple[Data | Zeros, bytes]] = []
        self._stream: TlsStream | None = None
        self._synced = threading.Event()
        self._passed_over = False  # what this connection's agent is at, whatever a test does meanwhile
        self._asked = 0
        self._forget = threading.Event()
        self._turn = threading.RLock()  # who begins or ends a connection, or forgets between two
        self._closing = False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(identity / "ca.pem")
        context.load_cert_chain(identity / "server.pem", identity / "server.key")
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    # -- for the test ----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What the agent is to obey: told to one that is connected already, and to whoever comes."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        with self._turn:
            self._settings = settings
            self.say(settings)

    def replica(self, disk: str) -> Path:
        """Where the copy of a disk is."""
        return self.directory / f"{disk}.replica"

    def wait_synced(self, timeout: float = 240.0) -> None:
        assert self._synced.wait(timeout), f"never synced: {self.heard.failed} {self.errors}"

    def take_point(
        self, point: str, timeout: float = 240.0, retry: bool = True, consistency: Consistency = Consistency.CRASH
    ) -> PointEnd | PointFailed:
        """Ask for a point, again after a lost connection, and return its end."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self._synced.wait(0.1):
                continue
            self._asked += 1
            asked = f"{point}.{self._asked}"  # no two are called the same, also when a test asks for one again
            self.say(TakePoint(asked, consistency))
            while self._synced.is_set() and time.monotonic() < deadline:
                try:
                    end = self.points.get(timeout=0.1)
                except queue.Empty:
                    continue
                if end.id != asked:
                    continue  # one that was asked for before
                if isinstance(end, PointEnd) or not retry:
                    return end
                break
        raise AssertionError(f"no point {point}: {self.heard.failed[-3:]} {self.errors}")

    def say(self, message: Message, payload: bytes = b"") -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            with stream.send_lock:
                send_frame(stream, message.kind, message.to_header(), payload)
        except (OSError, PeerClosed):
            pass

    def hang_up(self) -> None:
        """Close the connection; what is not acknowledged is lost."""
        self._synced.clear()
        stream = self._stream
        if stream is not None:
            stream.hang_up()

    def lose_spool(self) -> None:
        """Forget everything since the last committed point, as a new process server would."""
        with self._turn:
            self._forget.set()
            served = self._stream is not None
            if not served:
                self._forgotten()
        if served:  # by who serves it, before the agent can come again
            self.hang_up()
            deadline = time.monotonic() + 60
            while self._forget.is_set():
                assert time.monotonic() < deadline, "the connection does not end"
                time.sleep(0.01)

    def _forgotten(self) -> None:
        with self._turn:
            if not self._forget.is_set():
                return
            self.spool = secrets.token_hex(4)
            for replica in self.directory.glob("*.replica"):
                committed = replica.with_suffix(".committed")
                if committed.exists():
                    shutil.copyfile(committed, replica)
                else:
                    replica.unlink()
            self._forget.clear()

    def close(self) -> None:
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who waits in accept
        self._listener.close()
        self.hang_up()
        self._thread.join(60)

    # -- the connection --------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._closing:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._converse(TlsStream(self._context.wrap_socket(plain, server_side=True), 30.0))
            except (PeerClosed, TimeoutError, OSError):
                plain.close()
            except (WireError, AssertionError, KeyError, ValueError) as error:
                self.errors.append(error)
                plain.close()
            self._forgotten()  # at last, so that who waits for it hears nothing more of this connection

    def _converse(self, stream: TlsStream) -> None:
        try:
            while isinstance(hello := self._next(receive_frame(stream)), Ping):
                pass  # an agent that was long in saying who it is asks whether anybody is there
            assert isinstance(hello, Hello)
            self._passed_over = False
            with self._turn:
                self._stream = stream
                self._welcome(hello)
            while True:
                self._handle(receive_frame(stream))
        finally:
            self._synced.clear()
            self._waiting.clear()
            with self._turn:
                self._stream = None
            stream.close()

    @staticmethod
    def _next(frame: Frame) -> Message:
        return decode(frame.kind, frame.header)

    def _welcome(self, hello: Hello) -> None:
        self.heard.hellos.append(hello)
        base = hello.baseline
        same = base.session == self._session
        keep = same and base.spool == self.spool
        delta = keep or (same and bool(base.point) and base.point == self.committed)
        modes: dict[str, SyncMode] = {}
        for disk in hello.disks:
            if not self.replica(disk.id).exists():
                modes[disk.id] = SyncMode.FULL
                with self.replica(disk.id).open("wb") as replica:
                    replica.truncate(disk.size)
            else:
                modes[disk.id] = SyncMode.DELTA if delta else SyncMode.RESYNC
        if not keep:
            self._durable = 0
        self._session = base.session
        self.heard.modes.append(modes)
        disks = tuple(DiskSync(disk, mode) for disk, mode in modes.items())
        self.say(Welcome(self.spool, self._durable, keep, self.digest_key.hex(), disks, self.settings))

    def _handle(self, frame: Frame) -> None:
        message, heard = self._next(frame), self.heard
        match message:
            case Data() | Zeros():
                self._waiting.append((message, bytes(frame.payload)))
                if self.behaviour.random.random() < self.behaviour.hang_up:
                    raise PeerClosed("by chance")
                if len(self._waiting) >= self.behaviour.acknowledge_every:
                    self._make_durable()
            case NeedDigests():
                self._make_durable()
                self._answer(message)
            case Synced():
                heard.synced += 1
                self._make_durable()
                self._passed_over = True
                self._synced.set()
            case PointEnd():
                self._make_durable()
                # 0: nothing was sent since this peer forgot everything, while the agent counts on.
                assert self._durable in (0, message.seq), "a point ends before its last frame"
                if self.on_point is not None:
                    self.on_point(message)
                self._commit(message)
                self.points.put(message)
            case PointFailed():
                heard.failed.append(message)
                self.points.put(message)
            case Progress():
                heard.progress.append(message)
            case ResyncRequired():
                self._passed_over = False
                self._synced.clear()
                heard.resyncs.append(message)
            case Ping():
                self.say(Pong())
            case Bye():
                heard.byes.append(message.reason)
            case _:
                assert frame.kind is FrameKind.PONG, f"unexpected {message}"

    def _make_durable(self) -> None:
        for message, payload in self._waiting:
            self._apply(message, payload)
            self._durable = message.seq
        if self._waiting:
            self._waiting.clear()
            self.say(Ack(self._durable))

    def _apply(self, message: Data | Zeros, payload: bytes) -> None:
        at = 0
        plain = self._plain(message, payload)
        fd = os.open(self.replica(message.disk), os.O_WRONLY)
        try:
            for run in message.runs:
                assert run.offset % BLOCK_SIZE == 0
                if isinstance(message, Data):
                    data = plain[at : at + run.length]
                    assert len(data) == run.length
                    self.heard.data_bytes += run.length
                else:
                    data = bytes(run.length)
                    self.heard.zero_bytes += run.length
                os.pwrite(fd, data, run.offset)
                at += run.length
        finally:
            os.close(fd)
        self.heard.zero_frames += isinstance(message, Zeros)

    def _plain(self, message: Data | Zeros, payload: bytes) -> bytes:
        if isinstance(message, Zeros):
            return b""
        encoded = parse_payload(memoryview(payload), sum(block_count(run.length) for run in message.runs))
        return b"".join(decode_block(self.digest_key, encoded, at) for at in range(len(encoded)))

    def _answer(self, question: NeedDigests) -> None:
        if self._passed_over:
            self.heard.sampled += question.count
        else:
            self.heard.digests += question.count
        with self.replica(question.disk).open("rb") as replica:
            replica.seek(question.first * BLOCK_SIZE)
            data = replica.read(question.count * BLOCK_SIZE)
        digests = digest_blocks(self.digest_key, data)
        self.say(Digests(question.disk, question.first, question.count), digests.tobytes())

    def _commit(self, end: PointEnd) -> None:
        if not self.commit_points:
            return
        self.committed = f"point-{end.id}"
        for disk in end.disks:
            shutil.copyfile(self.replica(disk.id), self.replica(disk.id).with_suffix(".committed"))
        self.say(Committed(end.id, self.committed, 1))


def mismatches(replica: Path, truth: Path) -> list[int]:
    """Return the 64 KiB blocks in which two files differ."""
    wrong = []
    with replica.open("rb") as left, truth.open("rb") as right:
        at = 0
        while True:
            a, b = left.read(4 << 20), right.read(4 << 20)
            if not a and not b:
                return wrong
            if a != b:
                size = max(len(a), len(b))
                wrong += [
                    (at + o) // BLOCK_SIZE
                    for o in range(0, size, BLOCK_SIZE)
                    if a[o : o + BLOCK_SIZE] != b[o : o + BLOCK_SIZE]
                ]
            at += len(a)
