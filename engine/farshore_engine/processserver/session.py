"""One conversation with an agent, from its Hello to the end of the connection.

Runs in the connection's own thread; acknowledgements, points and pings are sent by others through `send`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from farshore_engine.blocks.buffers import Buffers
from farshore_engine.blocks.content import DIGEST_SIZE
from farshore_engine.blocks.encoded import EncodedBlocks, parse_payload
from farshore_engine.blocks.encoded import decode as decode_block
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, block_count
from farshore_engine.wire.frames import (
    MAX_PAYLOAD,
    Frame,
    FrameKind,
    PeerClosed,
    WireError,
    encode_prefix,
    receive_frame,
)
from farshore_engine.wire.messages import (
    Bye,
    Data,
    Digests,
    Frozen,
    Hello,
    Message,
    NeedDigests,
    Ping,
    PointEnd,
    PointFailed,
    PointReady,
    Pong,
    Progress,
    ResyncRequired,
    Run,
    Synced,
    Zeros,
    decode,
)
from farshore_engine.wire.stream import TlsStream

if TYPE_CHECKING:
    from farshore_engine.processserver.replica import Replica

PING_AFTER = 10.0  # seconds of silence
HANG_UP_AFTER = 30.0
MAX_DIGESTS = MAX_PAYLOAD // DIGEST_SIZE
MAX_DISKS = 256
MAX_FRAME_COVERS = 64 << 30  # bytes of a disk that one frame may speak of: a run of zeros costs the sender nothing

SPARE_BUFFERS = 8

_buffers = Buffers(MAX_PAYLOAD, SPARE_BUFFERS)  # of all sessions


class Session:
    """A connected agent that said a valid Hello. The replica decides, the session speaks the protocol."""

    def __init__(
        self, stream: TlsStream, hello: Hello, peer: str, replica: Replica, accepted: float = math.inf
    ) -> None:
        """Take a connection over; raises WireError when its Hello contradicts itself.

        Args:
            stream: the connection, its Hello received.
            hello: that.
            peer: the agent's address, for logs.
            replica: of the agent's machine.
            accepted: when the connection came in, monotonic; infinite counts as now.
        """
        self.hello = hello
        self.peer = peer
        self.accepted = accepted
        self.bytes_received = 0  # payload
        self._stream = stream
        self._digest_key = b""
        self._replica = replica
        self._sizes = {disk.id: disk.size for disk in hello.disks}
        if len(self._sizes) != len(hello.disks) or len(hello.disks) > MAX_DISKS:
            raise WireError(f"{len(hello.disks)} disks of {len(self._sizes)} names were announced")
        self._last_seq = 0
        self._pinged = time.monotonic()
        stream.timeout = HANG_UP_AFTER

    def run(self) -> None:
        """Talk until the connection ends.

        Raises:
            PeerClosed, TimeoutError: the connection ended or broke.
            WireError: the agent broke the protocol.
            IntakeBroken, Cancelled: the replica stops or failed.
        """
        self._digest_key = self._replica.vault.digest_key
        self.send(self._replica.attach(self))
        self._replica.greeted(self)
        while True:
            frame = receive_frame(self._stream, memory=lambda size: _buffers.take()[:size])
            self.bytes_received += len(frame.payload)
            self._handle(frame)

    def send(self, message: Message, payload: bytes = b"") -> None:
        """Send a message from any thread; raises PeerClosed."""
        head = encode_prefix(message.kind, message.to_header(), len(payload))
        with self._stream.send_lock:
            try:
                self._stream.sendall(head)
                if payload:
                    self._stream.sendall(payload)
            except TimeoutError:
                self._stream.hang_up()  # a frame was cut: nothing sensible can follow
                raise PeerClosed("the agent takes no data") from None
            except OSError as error:
                raise PeerClosed(str(error)) from error

    def ping(self, now: float) -> None:
        """Give a sign of life when it is time; an agent that waits for room in the spool must not hang up."""
        if now - self._pinged >= PING_AFTER and self._stream.can_send():  # else it has enough to hear
            self._pinged = now
            self.send(Ping())

    def cut(self) -> None:
        """End the connection at once, from any thread."""
        self._stream.hang_up()

    def hang_up(self, reason: str) -> None:
        """Say why and end the session, from any thread."""
        self._stream.timeout = 1.0
        with contextlib.suppress(PeerClosed):
            self.send(Bye(reason))
        self._stream.hang_up()

    def _handle(self, frame: Frame) -> None:
        message = decode(frame.kind, frame.header)
        if len(frame.payload) and frame.kind is not FrameKind.DATA:
            raise WireError(f"{frame.kind.name} carries a payload")
        match message:
            case Data():
                self._count(message.seq)
                blocks = self.blocks(message.disk, message.runs)
                encoded = self._encoded(message.seq, frame.payload, blocks.size)
                self._replica.receive_data(self, message.seq, message.disk, blocks, encoded)
            case Zeros():
                self._count(message.seq)
                self._replica.receive_zeros(self, message.seq, message.disk, self.blocks(message.disk, message.runs))
            case NeedDigests():
                self._answer_digests(message)
            case Synced():
                self._replica.synced(self)
            case PointEnd():
                self._check_disks(message)
                self._replica.attempts.ended(self, message)
            case PointFailed():
                self._replica.attempts.failed(self, message)
            case PointReady():
                self._replica.attempts.ready(self, message.id)
            case Frozen():
                self._replica.attempts.frozen(self, message.id)
            case Progress():
                self._replica.progressed(self, message)
            case ResyncRequired():
                self._replica.resync_required(self, message)
            case Ping():
                self.send(Pong())
            case Pong():
                pass
            case Bye():
                raise PeerClosed(f"the agent says goodbye: {message.reason}")
            case _:
                raise WireError(f"{frame.kind.name} has no place here")

    def _encoded(self, seq: int, payload: memoryview, count: int) -> EncodedBlocks:
        """Return what a payload holds; one block of each is looked into, for nobody else does before a recovery."""
        try:
            encoded = parse_payload(payload, count)
            decode_block(self._digest_key, encoded, seq % count)
        except ValueError as error:
            raise WireError(f"a Data frame is damaged: {error}") from error
        return encoded

    def blocks(self, disk: str, runs: Sequence[Run]) -> Indexes:
        """Return the block numbers of runs, ascending; raises WireError unless they lie on the grid and on the disk."""
        size = self._sizes.get(disk)
        if size is None:
            raise WireError(f"the disk {disk!r} was not announced")
        end = total = 0
        parts = []
        for run in runs:
            stop = run.offset + run.length
            if total + run.length > MAX_FRAME_COVERS:
                raise WireError(f"a frame covers more than {MAX_FRAME_COVERS} bytes")
            if run.offset % BLOCK_SIZE or run.length == 0 or stop > size or run.offset < end:
                raise WireError(f"a run of {run.length} bytes at {run.offset} is out of place on {disk}")
            if stop % BLOCK_SIZE and stop != size:
                raise WireError(f"a run of {run.length} bytes at {run.offset} ends inside a block")
            parts.append(np.arange(run.offset // BLOCK_SIZE, block_count(stop), dtype=np.int64))
            end, total = stop, total + run.length
        if not parts:
            raise WireError("a frame without runs")
        return np.concatenate(parts)

    def _count(self, seq: int) -> None:
        """Frames are numbered upwards: one that comes again would undo what came after it."""
        if seq <= self._last_seq:
            raise WireError(f"frame {seq} comes behind frame {self._last_seq}")
        self._last_seq = seq

    def _check_disks(self, message: PointEnd) -> None:
        sizes = {disk.id: disk.size for disk in message.disks}
        if len(sizes) != len(message.disks) or not sizes or not sizes.items() <= self._sizes.items():
            raise WireError("a point ends with other disks than were announced")

    def _answer_digests(self, question: NeedDigests) -> None:
        size = self._sizes.get(question.disk)
        if size is None or not 0 < question.count <= MAX_DIGESTS or question.first + question.count > block_count(size):
            raise WireError("a question for digests is out of place")
        digests = self._replica.digests(self, question.disk, question.first, question.count)
        self.send(Digests(question.disk, question.first, question.count), digests)
