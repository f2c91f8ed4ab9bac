"""An agent without a machine: it speaks the protocol over a real connection, and misbehaves where it is told to.

Its disk is a megabyte of memory, and its freeze a pair of times. So sixteen of them fit into one test, and each stage
of a conversation can be broken at will.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farshore_engine.blocks.content import DIGEST_SIZE
from farshore_engine.blocks.encoded import encode, payload_of
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.wire.frames import PROTOCOL, PeerClosed, WireError, receive_frame, send_frame
from farshore_engine.wire.messages import (
    Baseline,
    Committed,
    Consistency,
    Cut,
    Data,
    DiskInfo,
    FreezeNow,
    Frozen,
    Hello,
    Message,
    Ping,
    PointEnd,
    PointFailed,
    PointReady,
    Pong,
    Refuse,
    Run,
    Settings,
    Synced,
    TakePoint,
    Welcome,
    decode,
)
from farshore_engine.wire.stream import TlsStream

SIZE = 16 * BLOCK_SIZE


@dataclass
class Identity:
    """Where the data port is, and who the agent is."""

    port: int
    ca: Path
    certificate: Path
    key: Path

    def dial(self) -> ssl.SSLSocket:
        return dial(self.port, self.ca.read_text(), self.certificate, self.key)


def dial(
    port: int, ca: str, certificate: Path | None, key: Path | None, most: ssl.TLSVersion | None = None
) -> ssl.SSLSocket:
    """Connect to a data port of this host that `ca` (PEM) vouches for, with or without a certificate of one's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if most is not None:
        context.maximum_version = most
    context.load_verify_locations(cadata=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    plain = socket.create_connection(("127.0.0.1", port), timeout=120)
    return context.wrap_socket(plain, server_hostname="farshore-process-server")


def greeting(machine_id: str, clock: float, session: str = "s", disks: int = 1, unclean: bool = True) -> Hello:
    return Hello(
        protocol=PROTOCOL,
        agent_version="light",
        machine_id=machine_id,
        boot_id="b",
        tracker="memory",
        tracker_reason="",
        disks=tuple(DiskInfo(f"d{n}", f"/dev/d{n}", SIZE) for n in range(disks)),
        machine={"hostname": machine_id},
        baseline=Baseline(session, "", 0, ""),
        clock=clock,
        unclean=unclean,
    )


@dataclass
class LightAgent:
    """Runs in a thread until `stop`. `mood` says where it breaks: see `_at`. It reconnects as a real one does."""

    machine_id: str
    identity: Callable[[], Identity]
    mood: str = ""
    rounds: int = 1  # how often its first copy sends the whole disk
    ahead: float = 0.0  # seconds that its clock is
    freezes: dict[str, tuple[float, float]] = field(default_factory=dict)  # point → from, until
    committed: list[Committed] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)  # bandwidth, as it was told
    called_off: list[PointFailed] = field(default_factory=list)
    broken_at: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    synced: bool = False

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._digest_key = bytes(DIGEST_SIZE)
        self._seq = 0
        self._session = secrets.token_hex(4)
        self._frozen_since = 0.0
        self._point = ""
        self._thread = threading.Thread(target=self._run, name=f"light-{self.machine_id}", daemon=True)

    def start(self) -> LightAgent:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._converse()
            except (OSError, PeerClosed, WireError) as error:
                self._thaw()
                self.broken_at.append(str(error))
            except BaseException as error:  # noqa: BLE001 - the test looks at them
                self.errors.append(error)
                return
            self._stop.wait(0.2)

    def _converse(self) -> None:
        with contextlib.closing(self.identity().dial()) as sock:
            stream = TlsStream(sock, 0.25)
            self._say(stream, greeting(self.machine_id, time.time() + self.ahead, self._session))
            self._seq = 0
            while not self._stop.is_set():
                try:
                    frame = receive_frame(stream)
                except TimeoutError:
                    continue
                self._handle(stream, decode(frame.kind, frame.header))

    def _handle(self, stream: TlsStream, message: Message) -> None:
        match message:
            case Welcome():
                self.limits.append(message.settings.bandwidth_limit)
                self._seq = message.resume_after
                self._digest_key = bytes.fromhex(message.digest_key)
                for _ in range(self.rounds):
                    if not self._stop.is_set():
                        self._send_blocks(stream, range(16))
                self.synced = True
                self._say(stream, Synced(self._seq))
            case Refuse():
                self.refused.append(message)
                raise PeerClosed(message.reason)
            case TakePoint():
                self._take(stream, message)
            case FreezeNow() if message.id == self._point:
                self._freeze(stream)
            case Cut() if message.id == self._point:
                self._cut(stream)
            case PointFailed():
                self.called_off.append(message)
                if message.id == self._point:  # of one before, it may come after the next order
                    self._thaw()
                    self._point = ""
            case Settings():
                self.limits.append(message.bandwidth_limit)
            case Committed():
                self.committed.append(message)
            case Ping():
                self._say(stream, Pong())
            case _:
                pass

    # -- a point

    def _take(self, stream: TlsStream, order: TakePoint) -> None:
        self._point = order.id
        self._at(stream, "the order")
        self._send_blocks(stream, range(4))
        if not order.grouped:
            self._frozen_since = time.monotonic()
            self._thaw()
            self._end(stream)
        elif self.mood != "never ready":
            self._say(stream, PointReady(order.id))

    def _freeze(self, stream: TlsStream) -> None:
        self._at(stream, "ready")
        if self.mood == "never frozen":
            return
        self._frozen_since = time.monotonic()
        self._say(stream, Frozen(self._point))
        if self.mood == "thaws early":
            self._thaw()
            self._say(stream, PointFailed(self._point, "FreezeOverran", "the watchdog ended the freeze"))
            self._point = ""
            return
        self._at(stream, "frozen")

    def _cut(self, stream: TlsStream) -> None:
        self._thaw()
        self._at(stream, "the cut")
        self._end(stream)

    def _thaw(self) -> None:
        if self._frozen_since:
            self.freezes[self._point] = (self._frozen_since, time.monotonic())
            self._frozen_since = 0.0

    def _end(self, stream: TlsStream) -> None:
        since, until = self.freezes[self._point]
        self._say(
            stream,
            PointEnd(
                id=self._point,
                seq=self._seq,
                consistency=Consistency.CRASH,
                frozen_at=time.time() + self.ahead - (time.monotonic() - since),
                freeze_seconds=until - since,
                precopy_rounds=1,
                frozen_bytes=0,
                disks=(DiskInfo("d0", "/dev/d0", SIZE),),
                machine={"hostname": self.machine_id},
            ),
        )
        self._point = ""

    def _at(self, stream: TlsStream, stage: str) -> None:
        """Break here if the mood says so: once, so that the machine heals."""
        if self.mood == f"dies at {stage}":
            self.mood = ""
            self._thaw()
            stream.hang_up()
            raise PeerClosed(f"died at {stage}")
        if self.mood == f"hangs at {stage}":
            while not self._stop.wait(0.1) and self.mood:
                pass

    def _send_blocks(self, stream: TlsStream, blocks: range) -> None:
        for block in blocks:
            self._seq += 1
            content = payload_of([encode(self._digest_key, secrets.token_bytes(BLOCK_SIZE))[1]])
            self._say(stream, Data(self._seq, "d0", (Run(block * BLOCK_SIZE, BLOCK_SIZE),)), content)

    @staticmethod
    def _say(stream: TlsStream, message: Message, payload: bytes = b"") -> None:
        brief, stream.timeout = stream.timeout, 60.0  # who is held back waits
        try:
            with stream.send_lock:
                send_frame(stream, message.kind, message.to_header(), payload)
        finally:
            stream.timeout = brief
