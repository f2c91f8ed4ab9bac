"""A disk whose writes can be caught on their way: a loop device on a file of a tiny FUSE file system.

`hold("before")` keeps a write from landing, `hold("after")` lets it land and keeps its completion back. This makes the
two halves of a race that last microseconds on a real disk last as long as a test wants.

The file system is served by a process of its own: one that waited for itself could never be killed.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

IN_HEADER, OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
WRITE, FORGET, INTERRUPT, BATCH_FORGET = 16, 2, 36, 42
ROOT, FILE = 1, 2
MAX_WRITE = 128 << 10
ASYNC_READ, ASYNC_DIO = 1, 1 << 15  # a held write must not hold up reads
libc = ctypes.CDLL(None, use_errno=True)


class SlowDisk:
    """`backing` is the plain file below, `device` the loop device on top; a context manager."""

    def __init__(self, backing: Path, mount: Path, size: int) -> None:
        self.backing = backing
        self.mount = mount
        self.size = size
        self.device = ""

    def __enter__(self) -> Self:
        from farshore_engine.machines import loop

        with self.backing.open("wb") as image:
            image.truncate(self.size)
        self.mount.mkdir(exist_ok=True)
        command = [sys.executable, __file__, str(self.backing), str(self.mount)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "mounted"
        self.device = loop.attach(self.mount / "disk")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from farshore_engine.machines import loop

        self.release()
        loop.detach(self.mount / "disk")
        self._server.kill()  # the kernel fails what still waits
        self._server.communicate()
        subprocess.run(["umount", "-l", str(self.mount)], check=True)

    def hold(self, when: Literal["before", "after"]) -> None:
        """Catch the writes from now on before they land, or after."""
        self._say(when)
        assert self._read() == "holding"

    def release(self) -> None:
        """Let all caught writes go, and hold no further ones."""
        self._say("release")

    def write_in_background(self, data: bytes, offset: int) -> threading.Thread:
        """Write past the page cache in a thread; returns once the write is caught."""
        thread = threading.Thread(target=write_direct, args=(self.device, data, offset), daemon=True)
        thread.start()
        assert self._read() == "caught"
        return thread

    def _say(self, word: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(word + "\n")
        self._server.stdin.flush()

    def _read(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


class Server:
    """The file system: one directory, one file."""

    def __init__(self, backing: Path, mount: Path) -> None:
        self.size = backing.stat().st_size
        self._held = ""
        self._go = threading.Event()
        self._answer = threading.Lock()
        self._file = os.open(backing, os.O_RDWR)
        self._fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._fuse},rootmode=40000,user_id=0,group_id=0"
        if libc.mount(b"slow", str(mount).encode(), b"fuse", ctypes.c_ulong(6), options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount fuse")

    def obey(self) -> None:
        """Read commands until the end of the input."""
        for line in sys.stdin:
            word = line.strip()
            if word == "release":
                self._held = ""
                self._go.set()
            else:
                self._go.clear()
                self._held = word
                print("holding", flush=True)

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._fuse, MAX_WRITE + 65536)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
            body = request[IN_HEADER.size :]
            if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            if opcode == WRITE:
                threading.Thread(target=self._write, args=(unique, body, self._held), daemon=True).start()
                continue
            failed, answer = self._handle(opcode, node, body)
            self._reply(unique, failed, answer)

    def _reply(self, unique: int, failed: int, answer: bytes) -> None:
        with self._answer, suppress(OSError):
            os.write(self._fuse, OUT_HEADER.pack(OUT_HEADER.size + len(answer), -failed, unique) + answer)

    def _write(self, unique: int, body: bytes, held: str) -> None:
        _, offset, size = struct.unpack_from("<QQI", body)
        data = body[40 : 40 + size]
        if held == "before":
            print("caught", flush=True)
            self._go.wait()
        os.pwrite(self._file, data, offset)
        if held == "after":
            print("caught", flush=True)
            self._go.wait()
        self._reply(unique, 0, struct.pack("<II", size, 0))

    def _attributes(self, node: int) -> bytes:
        mode = (stat.S_IFDIR | 0o755) if node == ROOT else (stat.S_IFREG | 0o600)
        size = self.size if node == FILE else 0
        return ATTRIBUTES.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _handle(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        match opcode:
            case 26:
                readahead = struct.unpack_from("<III", body)[2]
                limits = (7, 31, readahead, ASYNC_READ | ASYNC_DIO, 64, 48, MAX_WRITE, 1, 32)
                return 0, struct.pack("<IIIIHHIIHHIIIIIIII", *limits, *[0] * 9)
            case 1 if body.rstrip(b"\0") == b"disk":
                return 0, struct.pack("<QQQQII", FILE, 0, 3600, 3600, 0, 0) + self._attributes(FILE)
            case 1:
                return errno.ENOENT, b""
            case 3 | 4:
                return 0, struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
            case 14 | 27:
                return 0, struct.pack("<QII", 1, 0, 0)
            case 15:
                _, offset, size = struct.unpack_from("<QQI", body)
                return 0, os.pread(self._file, size, offset)
            case 17:
                return 0, bytes(80)
            case 18 | 20 | 25 | 29 | 38:
                return 0, b""
        return errno.ENOSYS, b""


def write_direct(device: str, data: bytes, offset: int) -> None:
    """Write to a device past the page cache; offset and length are multiples of 4096."""
    buffer = mmap.mmap(-1, len(data))
    buffer[:] = data
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        assert os.pwrite(fd, buffer, offset) == len(data)
    finally:
        os.close(fd)


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), Path(sys.argv[2]))
    threading.Thread(target=server.serve, daemon=True).start()
    print("mounted", flush=True)
    server.obey()
