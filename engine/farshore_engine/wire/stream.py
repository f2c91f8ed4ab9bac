"""A TLS connection that one thread reads while others write.

OpenSSL's connection object is not safe for two threads at once, and Python 3.11 does not guard it. So every call into
it happens under a lock and never blocks; waiting for the network happens outside of the lock.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import cast

from farshore_engine.wire.frames import PeerClosed


class TlsStream:
    """The part of a socket that `frames` uses, safe for one reader and several writers at once.

    Writers must not interleave frames: `send_lock` is theirs to hold around a frame.
    """

    def __init__(self, sock: ssl.SSLSocket, timeout: float) -> None:
        """Take over a connected socket after its handshake; `timeout` in seconds bounds each wait for the network."""
        self._sock = sock
        self._lock = threading.Lock()
        self.timeout = timeout
        self.receive_until = math.inf  # monotonic seconds after which nothing is waited for, however much has come
        self.send_lock = threading.Lock()
        sock.setblocking(False)

    def recv_into(self, buffer: memoryview) -> int:
        """Receive at least one byte; 0 at the end of the stream; raises TimeoutError."""
        deadline = min(time.monotonic() + self.timeout, self.receive_until)
        done, size = 0, len(buffer)
        read = cast("Callable[[int, memoryview], int]", self._sock.read)  # without the detour of its recv_into
        while True:
            try:
                with self._lock:
                    while done < size:  # a TLS record holds at most 16 KiB: take all that have come in one go
                        count = read(size - done, buffer[done:])
                        if not count:
                            return done
                        done += count
                return done
            except ssl.SSLWantReadError:
                if done:
                    return done
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)
            except ssl.SSLEOFError:
                return 0

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; raises TimeoutError when the peer takes nothing for `timeout` seconds."""
        view = memoryview(data).cast("B")
        deadline = time.monotonic() + self.timeout
        while view:
            try:
                with self._lock:
                    count = self._sock.send(view)
                view = view[count:]
                deadline = time.monotonic() + self.timeout
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)

    def can_send(self) -> bool:
        """Whether the network takes more bytes at once; False also when a writer is at work."""
        if self.send_lock.locked() or self._sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLOUT)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        """End the connection from any thread; its reader sees the end of the stream."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # SSLSocket's own would go on in plain text

    def close(self) -> None:
        """Release the descriptor: for the thread that reads, once no other can still write."""
        with self._lock:
            self._sock.close()

    def _wait(self, events: int, deadline: float) -> None:
        poll = select.poll()
        descriptor = self._sock.fileno()
        if descriptor < 0:
            raise PeerClosed("the connection was closed")
        poll.register(descriptor, events)
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise TimeoutError("the peer was silent for too long")
