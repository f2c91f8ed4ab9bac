"""Exact reads and whole writes on a client's socket."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence

from farshore_engine.nbd.protocol import Disconnected

SEND_SECONDS = 60
MOST_PARTS = 512  # buffers of one system call; the kernel takes 1,024


class Stream:
    """A client's socket. One thread reads; any thread sends."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket. A peer that takes nothing for SEND_SECONDS is gone."""
        self._socket = connection
        self._sending = threading.Lock()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_SECONDS, 0))
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def limit_waiting(self, seconds: float | None) -> None:
        """Bound how long `read` waits for the next bytes; None for no bound."""
        whole = int(seconds or 0)
        part = int(((seconds or 0) - whole) * 1e6)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", whole, part))

    def read(self, count: int) -> bytearray:
        """Return exactly `count` bytes; raises Disconnected."""
        data = bytearray(count)
        view = memoryview(data)
        while len(view):
            try:
                done = self._socket.recv_into(view)
            except OSError as error:
                raise Disconnected(str(error)) from error
            if done == 0:
                raise Disconnected("the peer closed the connection")
            view = view[done:]
        return data

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send all buffers, with nothing of another thread in between; raises Disconnected."""
        pending = [memoryview(part) for part in parts if len(part)]
        with self._sending:
            while pending:
                try:
                    done = self._socket.sendmsg(pending[:MOST_PARTS])
                except OSError as error:
                    self.shut()  # what was sent of it cannot be taken back
                    raise Disconnected(str(error)) from error
                while pending and done >= len(pending[0]):
                    done -= len(pending.pop(0))
                if done:
                    pending[0] = pending[0][done:]

    def shut(self) -> None:
        """End the connection for whoever reads or sends now."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()
