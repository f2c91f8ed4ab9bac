"""An NBD client that can also misbehave, for tests: it speaks the protocol from its own reading of its text."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED = 1, 2, 3, 5, 6, 7, 8
OPT_LIST_META, OPT_SET_META = 9, 10
ACK, SERVER, INFO, META = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_UNKNOWN = (1 << 31) + 1, (1 << 31) + 2, (1 << 31) + 3, (1 << 31) + 6
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, REQ_ONE = 1, 2, 8
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW = 1, 5, 22, 28, 75


class Refused(Exception):
    """The server answered an error number."""

    def __init__(self, error: int) -> None:
        super().__init__(str(error))
        self.error = error


class Client:
    """A connection. The handshake is up to the test, or `go` does all of it."""

    def __init__(self, where: Path | int) -> None:
        if isinstance(where, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(60)
            self.socket.connect(str(where))
        else:
            self.socket = socket.create_connection(("127.0.0.1", where), timeout=60)
        self.structured = False
        self.cookie = 0
        self.size = self.flags = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def greet(self, flags: int = 3) -> None:
        magic, option, offered = struct.unpack(">8s8sH", self.exactly(18))
        assert (magic, option) == (b"NBDMAGIC", b"IHAVEOPT")
        assert offered == 3
        self.send(struct.pack(">I", flags))

    def go(self, export: str = "", *, structured: bool = False, allocation: bool = False) -> Client:
        """Do the whole handshake."""
        self.greet()
        if structured or allocation:
            assert self.option(OPT_STRUCTURED) == [(ACK, b"")]
            self.structured = True
        if allocation:
            found = self.option(OPT_SET_META, meta(export, "base:allocation"))
            assert found == [(META, struct.pack(">I", 1) + b"base:allocation"), (ACK, b"")]
        replies = self.option(OPT_GO, name_data(export))
        assert replies[-1][0] == ACK, replies
        for kind, data in replies:
            if kind == INFO and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])
        return self

    def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option and return all replies to it."""
        self.send(struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data)
        replies = []
        while True:
            magic, answered, kind, length = struct.unpack(">QIII", self.exactly(20))
            assert (magic, answered) == (0x3E889045565A9, number)
            replies.append((kind, self.exactly(length)))
            if kind == ACK or kind >> 31:
                return replies

    def read(self, offset: int, length: int) -> bytes:
        return self.call(READ, offset, length)

    def write(self, offset: int, data: bytes, flags: int = 0) -> None:
        self.call(WRITE, offset, len(data), data, flags)

    def status(self, offset: int, length: int, flags: int = 0) -> list[tuple[int, int]]:
        """Return (length, flags) of the extents."""
        data = self.call(BLOCK_STATUS, offset, length, flags=flags)
        assert data[:4] == struct.pack(">I", 1)
        return [struct.unpack(">II", data[at : at + 8]) for at in range(4, len(data), 8)]  # type: ignore[misc]

    def call(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> bytes:
        """Send a request and return the data of its reply; raises Refused."""
        cookie = self.request(command, offset, length, data, flags)
        found, error, content = self.reply(length if command == READ else 0)
        assert found == cookie
        if error:
            raise Refused(error)
        return content

    def request(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> int:
        self.cookie += 1
        self.send(struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length) + data)
        return self.cookie

    def reply(self, length: int = 0) -> tuple[int, int, bytes]:
        """Return (cookie, error, data) of the next reply."""
        (magic,) = struct.unpack(">I", self.exactly(4))
        if magic == 0x67446698:
            error, cookie = struct.unpack(">IQ", self.exactly(12))
            return cookie, error, b"" if error else self.exactly(length)
        assert magic == 0x668E33EF
        flags, kind, cookie, size = struct.unpack(">HHQI", self.exactly(16))
        assert flags == 1, "one chunk is the whole reply"
        data = self.exactly(size)
        if kind == 0x8001:
            return cookie, struct.unpack(">I", data[:4])[0], b""
        return cookie, 0, data[8:] if kind == 1 else data

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the server hung up")
            data += part
        return data

    def hung_up(self) -> bool:
        """Whether the server ends the connection (it may have sent something before)."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            return True
        return True


def name_data(export: str, *infos: int) -> bytes:
    """Return the data of INFO and GO."""
    name = export.encode()
    return struct.pack(">I", len(name)) + name + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def meta(export: str, *queries: str) -> bytes:
    """Return the data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    parts = [text.encode() for text in (export, *queries)]
    name, *asked = [struct.pack(">I", len(part)) + part for part in parts]
    return name + struct.pack(">I", len(queries)) + b"".join(asked)
