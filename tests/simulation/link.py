"""The network: bytes that arrive late, stop in the middle of a frame, or vanish behind a partition without a word.

`AgentChannel` stands for agent.channel.Channel, `ServerStream` for wire.stream.TlsStream. Both use the real frames.
"""

from __future__ import annotations

import math
from collections import deque

from tests.simulation.threads import Condition, Lock
from tests.simulation.world import Process, World

from farshore_engine.agent.channel import Received, _FrameBuffer
from farshore_engine.wire.frames import FrameKind, PeerClosed, WireError, encode_prefix
from farshore_engine.wire.messages import Message, Ping, Pong, decode

WINDOW = 1 << 19  # bytes on the way in one direction, at most
PING_SECONDS, HANG_UP_SECONDS = 10.0, 30.0


class Pipe:
    """One direction of a connection."""

    def __init__(self, world: World, link: Link) -> None:
        self.world = world
        self.link = link
        self.changed = Condition(Lock())
        self.arrived = bytearray()
        self.size = 0  # bytes on the way and arrived
        self.ended = False
        self._last = 0.0

    def write(self, data: bytes | memoryview, timeout: float = math.inf) -> int:
        """Send a part of `data`, waiting for room; raises OSError when the connection is gone, TimeoutError."""
        world = self.world
        world.give_way()
        with self.changed:
            room = self.changed.wait_for(
                lambda: self.size < WINDOW or self.link.broken or self.ended, None if timeout == math.inf else timeout
            )
        if not room:
            raise TimeoutError("the peer takes nothing")
        if self.link.broken or self.ended:
            raise ConnectionResetError("the connection is gone")
        part = bytes(data[: max(1, min(len(data), WINDOW))])
        self.size += len(part)
        self._last = max(self._last, world.now + self.link.delay())
        world.at(self._last, lambda: self._arrive(part))
        return len(part)

    def _arrive(self, part: bytes) -> None:
        if self.link.broken:
            return
        if self.link.partitioned:  # it is sent again and again until the network is back
            self.link.held.append((self, part))
            return
        self.arrived += part
        self._tell()

    def read(self, most: int, timeout: float) -> bytes:
        """Return at least one byte, none at the end; raises TimeoutError."""
        world = self.world
        world.give_way()
        with self.changed:
            found = self.changed.wait_for(lambda: self.arrived or self.ended or self.link.broken, max(timeout, 0.0))
        if not found:
            raise TimeoutError("the peer was silent for too long")
        if not self.arrived:
            return b""
        taken = bytes(self.arrived[:most])
        del self.arrived[:most]
        self.size -= len(taken)
        self._tell()
        return taken

    def end(self) -> None:
        self.ended = True
        self._tell()

    def _tell(self) -> None:
        waiters, self.changed._waiters = self.changed._waiters, []
        for task, ticket in waiters:
            self.world.wake(task, ticket)


class Link:
    """One connection between an agent and a process server."""

    def __init__(self, world: World, agent: Process, server: Process, slow: float) -> None:
        self.world = world
        self.ends = (agent, server)
        self.slow = slow
        self.broken = False
        self.partitioned = False
        self.held: list[tuple[Pipe, bytes]] = []
        self.up = Pipe(world, self)
        self.down = Pipe(world, self)

    def delay(self) -> float:
        return self.world.chance.uniform(0.0002, self.slow)

    def cut(self) -> None:
        """Break the connection now: both sides see its end, what was on the way is gone."""
        self.broken = True
        self.up._tell()
        self.down._tell()

    def partition(self) -> None:
        self.partitioned = True

    def heal(self) -> None:
        self.partitioned = False
        held, self.held = self.held, []
        for pipe, part in held:
            pipe._arrive(part)


class ServerStream:
    """See the module."""

    def __init__(self, link: Link, timeout: float) -> None:
        self._link = link
        self.timeout = timeout
        self.receive_until = math.inf
        self.send_lock = Lock()

    def recv_into(self, buffer: memoryview) -> int:
        timeout = min(self.timeout, self.receive_until - 1000.0 - self._link.world.now)
        data = self._link.up.read(len(buffer), timeout)
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[self._link.down.write(view, self.timeout) :]

    def can_send(self) -> bool:
        return not self.send_lock.locked() and self._link.down.size < WINDOW and not self._link.broken

    def hang_up(self) -> None:
        self._link.world.check_alive()
        self._link.up.end()
        self._link.down.end()

    def close(self) -> None:
        self.hang_up()


class AgentChannel:
    """See the module; a reader and a writer task, as the real one has a thread."""

    def __init__(self, link: Link, limit: int = 8 << 20) -> None:
        self._link = link
        self._world = link.world
        self._limit = limit
        self._changed = Condition(Lock())
        self._out: deque[memoryview] = deque()
        self._waiting = 0
        self._in: deque[Received] = deque()
        self._broken: Exception | None = None
        self._heard = self._pinged = self._world.now
        self.bytes_sent = 0
        task = self._world.task
        assert task is not None
        for name, work in (("reads", self._read), ("writes", self._write), ("pings", self._ping)):
            self._world.spawn(task.process, f"channel {name}", work)

    def send(self, message: Message, payload: bytes = b"") -> None:
        head = encode_prefix(message.kind, message.to_header(), len(payload))
        with self._changed:
            self._changed.wait_for(lambda: self._waiting < self._limit or self._broken is not None)
            self._raise_if_broken()
            self._put(head, payload)

    def receive(self, timeout: float | None) -> Received | None:
        with self._changed:
            self._changed.wait_for(lambda: self._in or self._broken is not None, timeout)
            if self._in:
                return self._in.popleft()
            self._raise_if_broken()
            return None

    def flush(self, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._broken is not None, timeout)

    def close(self) -> None:
        self._fail(PeerClosed("the connection is closed"))
        self._link.up.end()
        self._link.down.end()

    def _put(self, *parts: bytes) -> None:
        for part in parts:
            if part:
                self._out.append(memoryview(part))
                self._waiting += len(part)
        self._changed.notify_all()

    def _raise_if_broken(self) -> None:
        if isinstance(self._broken, WireError):
            raise WireError(str(self._broken))
        if self._broken is not None:
            raise PeerClosed(str(self._broken) or "the connection broke")

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._broken = self._broken or error
            self._out.clear()
            self._waiting = 0
            self._changed.notify_all()

    def _read(self) -> None:
        frames = _FrameBuffer()
        try:
            while self._broken is None:
                data = self._link.down.read(1 << 18, 1e9)
                if not data:
                    raise PeerClosed("the process server closed the connection")
                self._heard = self._world.now
                for kind, header, payload in frames.feed(data):
                    with self._changed:
                        if kind is FrameKind.PING:
                            self._put(_bare(Pong()))
                        elif kind is not FrameKind.PONG:
                            self._in.append(Received(decode(kind, header), payload))
                            self._changed.notify_all()
        except (OSError, PeerClosed, WireError) as error:
            self._fail(error)

    def _write(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._out or self._broken is not None)
                    if self._broken is not None:
                        return
                    part = self._out[0]
                count = self._link.up.write(part)
                with self._changed:
                    if self._broken is not None:
                        return
                    self._out[0] = part[count:]
                    if not self._out[0]:
                        self._out.popleft()
                    self._waiting -= count
                    self.bytes_sent += count
                    self._changed.notify_all()
        except OSError as error:
            self._fail(error)

    def _ping(self) -> None:
        while self._broken is None:
            self._world.sleep(1.0)
            now = self._world.now
            if now - self._heard > HANG_UP_SECONDS:
                self._fail(PeerClosed("no sign of life"))
                self._link.down.end()
                self._link.up.end()
            elif now - max(self._heard, self._pinged) > PING_SECONDS and self._broken is None:
                self._pinged = now
                with self._changed:
                    self._put(_bare(Ping()))


def _bare(message: Message) -> bytes:
    return encode_prefix(message.kind, message.to_header())


def killed_ends(links: list[Link], process: Process) -> None:
    """The kernel of a host closes the connections of a process that died."""
    for link in links:
        if process in link.ends:
            link.up.end()
            link.down.end()
