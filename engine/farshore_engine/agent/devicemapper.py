"""The few device-mapper calls that a snapshot needs, as ioctls: inside a freeze no program can be started.

Structures and numbers are those of include/uapi/linux/dm-ioctl.h, version 4.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CONTROL = "/dev/mapper/control"
_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
_SPEC = struct.Struct("=Q Q i I 16s")
_SIZE = 16384
DEV_CREATE, DEV_REMOVE, DEV_SUSPEND, TABLE_LOAD, TABLE_CLEAR, TABLE_STATUS, LIST_DEVICES = 3, 4, 6, 9, 10, 12, 2
STATUS_TABLE, SKIP_LOCKFS = 1 << 4, 1 << 10
# Tells udev to make no links and run no scans: a copy of a file system must not be taken for the file system.
QUIET_UDEV = (0x2 | 0x4 | 0x8) << 16
REMOVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A line of a device's table; start and length in sectors of 512 bytes."""

    start: int
    length: int
    target: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device: its number as "major:minor"."""

    name: str
    uuid: str
    number: str

    @property
    def path(self) -> str:
        """Return the node that the kernel makes."""
        return f"/dev/dm-{self.number.split(':')[1]}"


class Mapper:
    """The control node; every call raises OSError."""

    def __init__(self) -> None:
        self._fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def create(self, name: str, uuid: str, table: list[Segment]) -> Device:
        """Make a device with an inactive table; `resume` activates it."""
        answer = self._call(DEV_CREATE, name, uuid, event=QUIET_UDEV)
        device = Device(name, uuid, _number(answer))
        try:
            self.load(name, table)
        except OSError:
            with suppress(OSError):
                self._call(DEV_REMOVE, name, event=QUIET_UDEV)
            raise
        return device

    def load(self, name: str, table: list[Segment]) -> None:
        """Put a table into the inactive slot."""
        body = b""
        for segment in table:
            text = segment.parameters.encode() + b"\0"
            text += bytes(-(_SPEC.size + len(text)) % 8)
            size = _SPEC.size + len(text)
            body += _SPEC.pack(segment.start, segment.length, 0, size, segment.target.encode()) + text
        self._call(TABLE_LOAD, name, table=(len(table), body))

    def clear(self, name: str) -> None:
        """Drop the inactive table."""
        self._call(TABLE_CLEAR, name)

    def resume(self, name: str, quiet: bool = True) -> None:
        """Activate the inactive table; one that is active is exchanged for it in this one call, without a freeze.

        Args:
            quiet: tell udev to keep its hands off the device.
        """
        self._call(DEV_SUSPEND, name, flags=SKIP_LOCKFS, event=QUIET_UDEV if quiet else 0)

    def remove(self, name: str) -> None:
        """Remove a device, waiting for those who still look at it."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            try:
                self._call(DEV_REMOVE, name, event=QUIET_UDEV)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def table(self, name: str) -> list[Segment]:
        """Return the active table."""
        answer = self._call(TABLE_STATUS, name, flags=STATUS_TABLE)
        fields = _HEADER.unpack_from(answer)
        start, count = fields[4], fields[5]
        at, found = start, []
        for _ in range(count):
            first, length, _, following, target = _SPEC.unpack_from(answer, at)
            text = answer[at + _SPEC.size :].split(b"\0")[0].decode()
            found.append(Segment(first, length, target.split(b"\0")[0].decode(), text))
            at = start + following
        return found

    def names(self, prefix: str) -> list[str]:
        """Return the devices whose names begin with `prefix`."""
        answer = self._call(LIST_DEVICES, "")
        at, found = _HEADER.unpack_from(answer)[4], []
        while True:
            _, following = struct.unpack_from("=QI", answer, at)
            name = answer[at + 12 :].split(b"\0")[0].decode()
            if name.startswith(prefix):
                found.append(name)
            if not following:
                return found
            at += following

    def _call(
        self,
        number: int,
        name: str,
        uuid: str = "",
        *,
        flags: int = 0,
        event: int = 0,
        table: tuple[int, bytes] = (0, b""),
    ) -> bytes:
        count, body = table
        size = max(_SIZE, _HEADER.size + len(body))
        head = _HEADER.pack(
            4, 0, 0, size, _HEADER.size, count, 0, flags, event, 0, 0, name.encode(), uuid.encode(), b""
        )
        buffer = bytearray(head + body).ljust(size, b"\0")
        fcntl.ioctl(self._fd, 0xC138FD00 | number, buffer)
        return bytes(buffer)


def _number(answer: bytes) -> str:
    device = _HEADER.unpack_from(answer)[10]
    return f"{os.major(device)}:{os.minor(device)}"


def name_of(number: str) -> str:
    """Return the name of the device-mapper device with this number, "" if it is none."""
    try:
        return Path(f"/sys/dev/block/{number}/dm/name").read_text(encoding="ascii").strip()
    except OSError:
        return ""
