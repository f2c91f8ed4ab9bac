"""The bytes of managed disks, in sparse files, and the shared access signatures that lead to them.

A disk's file holds the disk without a footer. While a disk is being uploaded the file is longer by the VHD's footer;
an exported disk shows one that is made on the fly.
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.azuresim.arm.errors import ArmError

FOOTER = 512
COOKIE = b"conectix"
MIB = 1024 * 1024
GIB = 1024 * MIB
MADE = 0x2F000000
"""Every footer's time, in seconds since 2000: an export reads the same each time."""


@dataclass
class Access:
    """One signature: what it permits and until when (seconds since 1970)."""

    disk_id: str
    identifier: str
    signature: str
    write: bool
    expires: float


@dataclass
class DiskFiles:
    """Files by lower-case disk id."""

    directory: Path
    files: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Length in bytes as the blob shows it while it may be written."""
    access: dict[str, Access] = field(default_factory=dict)
    """By the blob's path in the data plane."""
    etags: dict[str, int] = field(default_factory=dict)

    def path(self, disk_id: str) -> Path:
        return self.files[disk_id.lower()]

    def create(self, disk_id: str, size: int) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{uuid.uuid4().hex}.disk"
        with path.open("wb") as file:
            file.truncate(size)
        self.files[disk_id.lower()] = path
        return path

    def copy(self, source_id: str, disk_id: str, size: int) -> None:
        """A copy that keeps holes, grown to `size`."""
        target = self.create(disk_id, size)
        with self.path(source_id).open("rb") as source, target.open("r+b") as file:
            for begin, end in data_ranges(source.fileno(), min(size, os.fstat(source.fileno()).st_size)):
                source.seek(begin)
                file.seek(begin)
                left = end - begin
                while left and (data := source.read(min(left, 4 * MIB))):
                    file.write(data)
                    left -= len(data)

    def resize(self, disk_id: str, size: int) -> None:
        with self.path(disk_id).open("r+b") as file:
            file.truncate(size)

    def remove(self, disk_id: str) -> None:
        self.revoke(disk_id)
        path = self.files.pop(disk_id.lower(), None)
        if path is not None:
            path.unlink(missing_ok=True)

    def grant(self, disk_id: str, write: bool, seconds: int) -> tuple[str, str]:
        """Path and query of a new signature for the disk; older ones stay good until they expire or are revoked."""
        account = f"md-impexp-{uuid.uuid5(uuid.NAMESPACE_URL, disk_id.lower()).hex[:12]}"
        container = uuid.uuid5(uuid.NAMESPACE_OID, disk_id.lower()).hex[:12]
        path = f"/{account}/{container}/abcd"
        identifier, signature = str(uuid.uuid4()), secrets.token_urlsafe(32)
        self.access[signature] = Access(disk_id.lower(), identifier, signature, write, time.time() + seconds)
        self.blobs[path] = disk_id.lower()
        return path, f"sv=2018-03-28&sr=b&si={identifier}&sig={signature}"

    blobs: dict[str, str] = field(default_factory=dict)
    """Disk id by the blob's path."""

    def revoke(self, disk_id: str) -> None:
        for signature, access in list(self.access.items()):
            if access.disk_id == disk_id.lower():
                del self.access[signature]

    def expire(self, disk_id: str) -> None:
        """For tests: the signatures of a disk are past their time now, as after a long upload."""
        for access in self.access.values():
            if access.disk_id == disk_id.lower():
                access.expires = 0

    def finish_upload(self, disk_id: str, upload_size: int, name: str) -> None:
        """Check the footer of an uploaded disk and take it off. Raises ArmError `InvalidVhd`.

        Source of code and first message: microsoft/AzureStorageExplorer issue 6654 (the answer of endGetAccess); that
        size, kind and checksum are looked at as well is [inf] from "prepare a VHD for upload": fixed, whole MiB.
        """
        path = self.path(disk_id)
        with path.open("rb") as file:
            file.seek(upload_size - FOOTER)
            found = file.read(FOOTER)
        blob = next((one for one, disk in self.blobs.items() if disk == disk_id.lower()), "")
        if found[:8] != COOKIE:
            raise ArmError(
                400, "InvalidVhd", f"The specified cookie value in VHD footer indicates that disk 'abcd' with blob "
                f"https://{blob.lstrip('/')} is not a supported VHD. Disk is expected to have cookie value 'conectix'.",
            )  # fmt: skip
        current, kind = struct.unpack(">Q", found[48:56])[0], struct.unpack(">I", found[60:64])[0]
        if kind != 2 or current != upload_size - FOOTER or checksum(found) != struct.unpack(">I", found[64:68])[0]:
            raise ArmError(
                400, "InvalidVhd", f"The specified VHD footer of disk '{name}' does not describe a fixed disk of "
                f"{upload_size - FOOTER} bytes.",
            )  # fmt: skip
        self.resize(disk_id, upload_size - FOOTER)


def data_ranges(descriptor: int, size: int) -> list[tuple[int, int]]:
    """(begin, end) in bytes of what a sparse file holds below `size`."""
    found, at = [], 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            break
        if begin >= size:
            break
        end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        found.append((begin, end))
        at = end
    return found


def footer(size: int) -> bytes:
    """The footer of a fixed VHD of `size` bytes (source: Virtual Hard Disk Image Format Specification, 1.0)."""
    cylinders, heads, sectors = _geometry(size // 512)
    head = struct.pack(
        ">8sIIQI4sI4sQQHBBI", COOKIE, 2, 0x00010000, 0xFFFFFFFFFFFFFFFF, MADE, b"win ",
        0x000A0000, b"Wi2k", size, size, cylinders, heads, sectors, 2,
    )  # fmt: skip
    body = head + b"\0\0\0\0" + uuid.uuid5(uuid.NAMESPACE_OID, str(size)).bytes + b"\0" * 428
    return body[:64] + struct.pack(">I", checksum(body)) + body[68:]


def checksum(found: bytes) -> int:
    """One's complement of the sum of all bytes but the checksum's own."""
    return ~(sum(found[:64]) + sum(found[68:])) & 0xFFFFFFFF


def _geometry(total: int) -> tuple[int, int, int]:
    """Cylinders, heads, sectors per track, as the specification's appendix computes them."""
    total = min(total, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    sectors, heads = 17, max(4, (total // 17 + 1023) // 1024)
    if total // 17 >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
    if total // sectors >= heads * 1024:
        sectors, heads = 63, 16
    return total // sectors // heads, heads, sectors


def remove_tree(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
