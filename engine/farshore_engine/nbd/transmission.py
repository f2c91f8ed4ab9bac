"""The second half of a connection: requests and replies.

One thread reads requests. What is at hand is answered by it; the rest by workers, so that requests which wait for the
vault do not hold up others. The bytes of all requests that are being worked on are bounded, for all clients together.
"""

from __future__ import annotations

import functools
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from farshore_engine.nbd.device import DeviceError, Extent
from farshore_engine.nbd.handshake import LARGEST_REQUEST, Session
from farshore_engine.nbd.protocol import (
    ALLOCATION_ID,
    CHUNK,
    CHUNK_DONE,
    EXTENT,
    REQUEST,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Chunk,
    Command,
    CommandFlag,
    Disconnected,
    Error,
    ProtocolError,
    Request,
)
from farshore_engine.nbd.stream import Stream

log = structlog.get_logger(__name__)

WORKERS = 8  # of one connection
MOST_EXTENTS = 4096  # in one answer
LONGEST_EXTENT = 0xFFFF0000  # bytes, so that the sum of several fits
WRITES = (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)
ALLOWED = {
    Command.READ: CommandFlag.FUA | CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA,
    Command.FLUSH: CommandFlag.FUA,
    Command.TRIM: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE,
    Command.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
Parts = Sequence[bytes | memoryview]


class Budget:
    """Bytes that may be held for requests at once."""

    def __init__(self, size: int) -> None:
        """Begin with `size` bytes free, at least one request of the largest kind."""
        self._size = self._free = max(size, LARGEST_REQUEST)
        self._changed = threading.Condition()

    def take(self, count: int) -> None:
        """Wait until `count` bytes are free, and take them."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    def give(self, count: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._free += count
            self._changed.notify_all()


def transmit(stream: Stream, session: Session, budget: Budget) -> None:
    """Answer requests until the client leaves.

    Raises:
        ProtocolError: it sends what is no request, or more data than a request may carry.
        Disconnected: it is gone.
    """
    answers = _Answers(stream, session)
    with ThreadPoolExecutor(WORKERS, "nbd") as workers:
        try:
            while True:
                request = Request.parse(stream.read(REQUEST.size))
                if request.command == Command.DISCONNECT:
                    return
                held = request.length if request.command in (Command.READ, Command.WRITE) else 0
                if request.command == Command.WRITE and held > LARGEST_REQUEST:
                    raise ProtocolError(f"a write of {held} bytes")
                held = min(held, LARGEST_REQUEST)
                budget.take(held)
                try:
                    data = stream.read(request.length) if request.command == Command.WRITE else bytearray()
                    if request.command == Command.READ and answers.at_hand(request):
                        answers.answer(request, data)
                        budget.give(held)
                        continue
                    done = workers.submit(answers.answer, request, data)
                except BaseException:
                    budget.give(held)
                    raise
                done.add_done_callback(functools.partial(_ended, stream, budget, held))
        finally:
            stream.shut()  # so that no worker waits for a client that takes nothing
            workers.shutdown(wait=True, cancel_futures=True)


def _ended(stream: Stream, budget: Budget, held: int, done: Future[None]) -> None:
    """Give a request's bytes back; a client whose request broke is hung up on, or it would wait for ever."""
    budget.give(held)
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("nbd request broke", exc_info=error)
        stream.shut()


class _Answers:
    """Carries requests out and sends replies."""

    def __init__(self, stream: Stream, session: Session) -> None:
        self._stream = stream
        self._session = session
        self._device = session.device

    def at_hand(self, request: Request) -> bool:
        """Whether a read can be answered at once."""
        return self._fault(request) is None and self._device.at_hand(request.offset, request.length)

    def answer(self, request: Request, data: bytearray) -> None:
        """Do it and reply; a client that is gone is somebody else's matter."""
        try:
            wrong = self._fault(request)
            if wrong is not None:
                self._send(request, error=wrong)
            else:
                self._send(request, self._done(request, memoryview(data)))
        except DeviceError as error:
            self._reply_error(request, error.error)
        except Disconnected:
            self._stream.shut()

    def _reply_error(self, request: Request, error: Error) -> None:
        try:
            self._send(request, error=error)
        except Disconnected:
            self._stream.shut()

    def _fault(self, request: Request) -> Error | None:
        """Return why the request is refused, None when it is not."""
        device, command = self._device, request.command
        if command not in ALLOWED or request.flags & ~int(ALLOWED[Command(command)]):
            return Error.EINVAL
        if command == Command.BLOCK_STATUS and not self._session.allocation:
            return Error.EINVAL
        if command in WRITES and device.read_only:
            return Error.EPERM
        if command == Command.FLUSH:
            return None
        if request.offset + request.length > device.size:
            return Error.ENOSPC if command in WRITES else Error.EINVAL
        if command == Command.READ and request.length > LARGEST_REQUEST:
            return Error.EOVERFLOW
        return Error.EINVAL if command == Command.BLOCK_STATUS and request.length == 0 else None

    def _done(self, request: Request, data: memoryview) -> Parts:
        """Carry the request out and return the data of the reply."""
        device = self._device
        if request.command == Command.READ:
            return device.read(request.offset, request.length)
        if request.command == Command.BLOCK_STATUS:
            return [self._status(request)]
        if request.command == Command.WRITE:
            device.write(request.offset, data)
        elif request.command == Command.TRIM:
            device.trim(request.offset, request.length)
        elif request.command == Command.WRITE_ZEROES:
            device.zero(request.offset, request.length, keep_space=bool(request.flags & CommandFlag.NO_HOLE))
        if request.command == Command.FLUSH or (request.command in WRITES and request.flags & CommandFlag.FUA):
            device.flush()
        return []

    def _status(self, request: Request) -> bytes:
        merged: list[tuple[int, Extent]] = []
        for length, kind in self._device.extents(request.offset, request.length):
            if merged and merged[-1][1] is kind and merged[-1][0] + length <= LONGEST_EXTENT:
                merged[-1] = (merged[-1][0] + length, kind)
                continue
            if merged and (request.flags & CommandFlag.REQ_ONE or len(merged) == MOST_EXTENTS):
                break
            merged.append((length, kind))
        return struct.pack(">I", ALLOCATION_ID) + b"".join(EXTENT.pack(*extent) for extent in merged)

    def _send(self, request: Request, data: Parts = (), error: Error | None = None) -> None:
        structured = self._session.structured and request.command in (Command.READ, Command.BLOCK_STATUS)
        if not structured:
            head = SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error or 0, request.cookie)
            self._stream.send([head, *data])
            return
        if error is not None:
            kind, payload = Chunk.ERROR, [struct.pack(">IH", error, 0)]
        elif request.command == Command.BLOCK_STATUS:
            kind, payload = Chunk.BLOCK_STATUS, list(data)  # type: ignore[arg-type]
        elif request.length == 0:
            kind, payload = Chunk.NONE, []
        else:
            kind, payload = Chunk.OFFSET_DATA, [struct.pack(">Q", request.offset), *data]  # type: ignore[list-item]
        length = sum(len(part) for part in payload)
        head = CHUNK.pack(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, kind, request.cookie, length)
        self._stream.send([head, *payload])
