"""The fixed VHD format: the disk's bytes and a footer behind them, which is how Azure takes disks.

After Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0. Azure wants the disk's size to be a whole
number of MiB; what is added to a smaller one is zeros.
"""

from __future__ import annotations

import os
import struct
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.image import translated
from farshore_engine.hydrate.raw import THREADS, Progress, Report, hydrate, silent
from farshore_engine.vault.reader import PointReader

FOOTER_SIZE = 512
ALIGNMENT = 1 << 20  # bytes; Azure refuses disks of other sizes
LARGEST = (8 << 40) - ALIGNMENT  # bytes; a page blob holds 8 TiB, and the footer has to go in too
SECTOR = 512
COOKIE = b"conectix"
FEATURES = 2  # reserved, always set
VERSION = 0x00010000
NO_OFFSET = 0xFFFFFFFFFFFFFFFF  # a fixed disk has nothing at another place
FIXED = 2
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
# Readers take the size from the geometry, which is coarser, unless they know the creator to mean the size field. This
# one they know: it is what Windows writes, and what QEMU and Azure take at its word.
CREATOR, CREATOR_VERSION, CREATOR_HOST = b"win ", 0x000A0000, b"Wi2k"
FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
CHECKSUM_AT = 64


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer of a fixed VHD says. `size` in bytes, `created` in seconds since 2000."""

    size: int
    identifier: uuid.UUID
    created: int

    @classmethod
    def of(cls, size: int, point: str, disk: str, time: datetime) -> Footer:
        """Return the footer for a disk of a point: always the same, so that a repeated hydration writes no other."""
        identifier = uuid.uuid5(uuid.NAMESPACE_URL, f"farshore:{point}:{disk}")
        seconds = int((time - EPOCH).total_seconds())
        return cls(virtual_size(size), identifier, min(max(seconds, 0), 0xFFFFFFFF))

    def encode(self) -> bytes:
        """Return its 512 bytes."""
        cylinders, heads, sectors = geometry(self.size // SECTOR)
        fields = (COOKIE, FEATURES, VERSION, NO_OFFSET, self.created, CREATOR, CREATOR_VERSION, CREATOR_HOST)
        sizes = (self.size, self.size, cylinders, heads, sectors, FIXED)
        blank = FOOTER.pack(*fields, *sizes, 0, self.identifier.bytes, 0)
        return FOOTER.pack(*fields, *sizes, checksum(blank), self.identifier.bytes, 0)


def virtual_size(size: int) -> int:
    """Return the size of the VHD's disk for a disk of `size` bytes.

    Raises:
        StopFault: it would not fit into a page blob.
    """
    rounded = -(-size // ALIGNMENT) * ALIGNMENT
    if rounded > LARGEST:
        raise StopFault(
            f"a disk of {size} bytes is larger than a page blob can hold ({LARGEST} bytes)",
            "Recover it to a raw or qcow2 image",
            reason="TooLarge",
        )
    return rounded


def checksum(footer: bytes) -> int:
    """Return the footer's checksum: the complement of the sum of its bytes, its own four not counted."""
    return ~(sum(footer) - sum(footer[CHECKSUM_AT : CHECKSUM_AT + 4])) & 0xFFFFFFFF


def geometry(sectors: int) -> tuple[int, int, int]:
    """Return cylinders, heads and sectors of a track, as the specification's appendix computes them."""
    total = min(sectors, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        return total // 255 // 16, 16, 255
    track = 17
    cylinder_heads = total // track
    heads = max(4, (cylinder_heads + 1023) // 1024)
    if cylinder_heads >= heads * 1024 or heads > 16:
        track, heads = 31, 16
        cylinder_heads = total // track
    if cylinder_heads >= heads * 1024:
        track, heads = 63, 16
        cylinder_heads = total // track
    return cylinder_heads // heads, heads, track


def hydrate_vhd(
    reader: PointReader, disk: str, image: Path, *, threads: int = THREADS, report: Report = silent
) -> Progress:
    """Write a disk of the point to the fixed VHD file `image`; resumable, and without a footer until it is complete.

    Raises:
        PointSpoiled, WaitFault: as for `hydrate`.
        StopFault: also when no page blob is that large.
    """
    found, manifest = reader.disk(disk), reader.point.manifest
    footer = Footer.of(found.size_bytes, manifest.name, disk, manifest.time)
    done = hydrate(reader, disk, image, threads=threads, report=report)
    with translated(image):
        descriptor = os.open(image, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, footer.size)
            os.pwrite(descriptor, footer.encode(), footer.size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return done
