"""Tells from a raw disk's first sectors whether firmware could boot it. Reads; never writes.

A signature 0x55AA proves nothing: every partition table and every FAT file system has it, and some partitioning tools
write generic boot code to data disks. So for BIOS there must be boot code *and* something for it to start: a boot
loader's own mark in the code, or a partition marked active.
"""

from __future__ import annotations

import struct
import uuid
from pathlib import Path
from typing import BinaryIO

from farshore_engine.contract.machine import BootMode

EFI_SYSTEM_PARTITION = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
MBR_EFI_TYPE = 0xEF
BOOT_LOADER_MARKS = (b"GRUB", b"LILO", b"SYSLINUX", b"isolinux")
BOOT_CODE_BYTES = 440
SECTOR_SIZES = (512, 4096)


def boot_modes(disk: Path) -> frozenset[BootMode]:
    """The ways in which firmware could boot the raw disk; empty for a disk of data alone."""
    with disk.open("rb") as file:
        head = file.read(512)
        modes = set()
        if _has_bios_loader(head):
            modes.add(BootMode.BIOS)
        if any(_mbr_types(head, MBR_EFI_TYPE)) or any(_gpt_has(file, size) for size in SECTOR_SIZES):
            modes.add(BootMode.UEFI)
    return frozenset(modes)


def is_bootable(disk: Path) -> bool:
    """Whether firmware of either kind could boot the raw disk."""
    return bool(boot_modes(disk))


def _has_bios_loader(head: bytes) -> bool:
    if len(head) < 512 or head[510:512] != b"\x55\xaa" or not any(head[:BOOT_CODE_BYTES]):
        return False
    entries = [head[446 + 16 * index : 462 + 16 * index] for index in range(4)]
    if any(entry[0] not in (0x00, 0x80) for entry in entries):
        return False  # no partition table: the boot sector of a file system
    has_active = any(entry[0] == 0x80 and entry[4] for entry in entries)
    return has_active or any(mark in head[:446] for mark in BOOT_LOADER_MARKS)


def _mbr_types(head: bytes, wanted: int) -> list[bool]:
    if len(head) < 512 or head[510:512] != b"\x55\xaa":
        return []
    return [head[446 + 16 * index] in (0x00, 0x80) and head[450 + 16 * index] == wanted for index in range(4)]


def _gpt_has(file: BinaryIO, sector: int) -> bool:
    """Whether a GPT with this sector size lists an EFI system partition (UEFI specification 2.10, section 5.3)."""
    file.seek(sector)
    header = file.read(92)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return False
    first_lba, count, size = struct.unpack_from("<QII", header, 72)
    if size < 128 or count > 1024:
        return False
    file.seek(first_lba * sector)
    table = file.read(count * size)
    types = (table[at : at + 16] for at in range(0, len(table) - 15, size))
    return any(uuid.UUID(bytes_le=bytes(kind)) == EFI_SYSTEM_PARTITION for kind in types)
