"""The spool's journal: an append-only file of checksummed records that survives a crash at any byte.

    magic   8 bytes  "FSJRNv01"
    records          u32 length of the payload, u32 CRC-32 of kind and payload, u8 kind, payload

Little-endian. A record counts once it and everything before it is whole: the first record that does not verify ends
the journal, and what follows is cut off when the journal is opened for appending. Callers make a group of records
durable with one `sync`.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

MAGIC = b"FSJRNv01"
PREFIX = struct.Struct("<IIB")
MAX_PAYLOAD = 64 << 20


class Kind(IntEnum):
    """What a record says; the payloads are built and read in `generation`."""

    OPENED = 1  # first record of each journal: which spool, on top of which point
    SESSION = 2  # an agent's session began to feed this spool
    FRAME = 3  # one Data or Zeros frame is durable: the references of its blocks
    SEALED = 4  # a pack is complete
    UPLOADED = 5  # a pack is durable in the vault
    POINT = 6  # every block of a point is in: it may be committed; nothing of the generation follows
    BASE = 7  # the point on top of which this generation's changes lie is now known
    RESTARTED = 8  # disks that are copied anew: what the point below holds of them does not count


KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Record:
    """One record, verified."""

    kind: Kind
    payload: bytes


class JournalDamaged(Exception):
    """The file is not a journal at all: its start does not verify."""


class SyncFailed(OSError):
    """The disk did not keep what was written, and need not say so again: a file that met this is not trusted any more.

    After a failed fsync the kernel may show the lost pages as clean, so that what is read back never reached the disk.
    """


def records(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield the whole records of a journal, each with the offset behind it; a torn tail is left out.

    It is read as it is asked for: the journal of a large first copy is larger than memory should be.

    Raises:
        JournalDamaged: the magic is missing.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise JournalDamaged(f"{path.name} does not begin as a journal")
        size = os.fstat(file.fileno()).st_size
        at = len(MAGIC)
        while len(prefix := file.read(PREFIX.size)) == PREFIX.size:
            length, checksum, kind = PREFIX.unpack(prefix)
            end = at + PREFIX.size + length
            if length > MAX_PAYLOAD or end > size:
                return
            payload = file.read(length)
            if zlib.crc32(payload, zlib.crc32(prefix[8:])) != checksum or kind not in KINDS:
                return
            yield Record(Kind(kind), payload), end
            at = end


class Journal:
    """An open journal. Not thread-safe: the spool serialises its callers."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size  # bytes
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path, first: Record) -> Journal:
        """Make a new journal with its first record, durable, its name in the directory included."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        journal = cls(path, descriptor, 0)
        journal._write(MAGIC + encode(first))
        journal.sync()
        sync_directory(path.parent)
        return journal

    @classmethod
    def reopen(cls, path: Path, end: int) -> Journal:
        """Open an existing journal for appending and cut what lies behind `end`."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(descriptor, end)
        sync_file(descriptor)
        return cls(path, descriptor, end)

    def append(self, records: list[Record]) -> None:
        """Write records behind the last one; they are durable after `sync`."""
        self._write(b"".join(encode(record) for record in records))

    def sync(self) -> None:
        """Make everything appended durable; raises SyncFailed."""
        sync_file(self._descriptor)

    def close(self) -> None:
        """Close the file; what was not synced may be lost."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data, self.size)
        self.size += len(data)


def encode(record: Record) -> bytes:
    """Return the bytes of a record."""
    body = bytes([record.kind]) + record.payload
    return struct.pack("<II", len(record.payload), zlib.crc32(body)) + body


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def sync_file(descriptor: int) -> None:
    """Make a file's content durable; raises SyncFailed."""
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise SyncFailed(
            error.errno, f"the disk of the spool does not keep what is written: {error.strerror}"
        ) from error


def sync_directory(path: Path) -> None:
    """Make names made or removed in a directory durable; raises SyncFailed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)
