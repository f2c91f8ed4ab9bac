"""Recognises partition tables and file systems by their first bytes, as blkid does, without needing blkid in the VM.

Offsets are those of the on-disk formats (util-linux, libblkid/src/superblocks).
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

HEAD_SIZE = 128 << 10  # bytes; the farthest superblock looked for is that of btrfs, at 64 KiB

FREEZABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "nilfs2", "reiserfs", "jfs", "gfs2"})


@dataclass(frozen=True, slots=True)
class Signature:
    """What lies on a device: its kind as blkid names it, UUID and label ("" if there is none)."""

    kind: str
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """An entry of a partition table: number, type (GUID or "0x83"), the partition's own UUID, the boot flag."""

    number: int
    type_id: str
    uuid: str
    active: bool


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode(errors="replace").strip()


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw)) if any(raw) else ""


def _ext(head: bytes) -> Signature:
    compatible, incompatible = struct.unpack_from("<II", head, 1024 + 92)
    kind = "ext4" if incompatible & 0x2C0 else "ext3" if compatible & 4 else "ext2"
    return Signature(kind, _uuid(head[1024 + 104 : 1024 + 120]), _text(head[1024 + 120 : 1024 + 136]))


def _vfat(head: bytes, at: int) -> Signature:
    low, high = struct.unpack_from("<HH", head, at)
    return Signature("vfat", f"{high:04X}-{low:04X}", head[at + 4 : at + 15].decode(errors="replace").strip())


def signature_of(head: bytes) -> Signature | None:
    """Return what the first bytes of a device show, None when nothing is recognised."""
    if len(head) < 4096:
        head = head.ljust(4096, b"\0")
    for page in (4096, 16384, 65536):
        if head[page - 10 : page] in (b"SWAPSPACE2", b"SWAP-SPACE"):
            return Signature("swap", _uuid(head[1024 + 12 : 1024 + 28]), _text(head[1024 + 28 : 1024 + 44]))
    if head[1024 + 56 : 1024 + 58] == b"\x53\xef":
        return _ext(head)
    if head[:4] == b"XFSB":
        return Signature("xfs", _uuid(head[32:48]), _text(head[108:120]))
    if head[65536 + 64 : 65536 + 72] == b"_BHRfS_M":
        return Signature("btrfs", _uuid(head[65536 + 32 : 65536 + 48]), _text(head[65536 + 299 : 65536 + 555]))
    if head[512:520] == b"LABELONE" and head[536:544] == b"LVM2 001":
        return Signature("LVM2_member", _text(head[544:576]))
    if head[:6] == b"LUKS\xba\xbe":
        return Signature("crypto_LUKS", _text(head[168:208]))
    if head[510:512] == b"\x55\xaa" and head[82:87] == b"FAT32":
        return _vfat(head, 67)
    if head[510:512] == b"\x55\xaa" and head[54:58] == b"FAT1":
        return _vfat(head, 39)
    return None


def disk_signature(head: bytes) -> str:
    """Return the identity of a partition table from a disk's first KiB or more, "" if there is none."""
    if head[512:520] == b"EFI PART":
        return f"gpt-{uuid.UUID(bytes_le=head[568:584])}"
    if table_kind(head) == "dos" and any(head[440:444]):
        return f"dos-{struct.unpack_from('<I', head, 440)[0]:08x}"
    return ""


def table_kind(head: bytes) -> str:
    """Return "gpt", "dos" or "" for no partition table."""
    if head[512:520] == b"EFI PART":
        return "gpt"
    if head[510:512] != b"\x55\xaa" or signature_of(head) is not None:
        return ""
    entries = [head[446 + 16 * i : 462 + 16 * i] for i in range(4)]
    plausible = all(e[0] in (0, 0x80) for e in entries) and any(e[4] for e in entries)
    return "dos" if plausible else ""


def table_entries(head: bytes) -> list[TableEntry]:
    """Return the entries of a GPT, or the four primary ones of a DOS table, that are in use."""
    kind = table_kind(head)
    if kind == "dos":
        identity = struct.unpack_from("<I", head, 440)[0]
        rows = [(i + 1, head[446 + 16 * i : 462 + 16 * i]) for i in range(4)]
        return [TableEntry(n, f"0x{e[4]:02x}", f"{identity:08x}-{n:02x}", e[0] == 0x80) for n, e in rows if e[4]]
    if kind != "gpt":
        return []
    start, count, size = struct.unpack_from("<QII", head, 512 + 72)
    found = []
    for index in range(min(count, 128)):
        row = head[start * 512 + index * size :][:size]
        if len(row) >= 56 and any(row[:16]):
            flags = struct.unpack_from("<Q", row, 48)[0]
            type_id, own = uuid.UUID(bytes_le=row[:16]), uuid.UUID(bytes_le=row[16:32])
            found.append(TableEntry(index + 1, str(type_id), str(own), bool(flags & 4)))
    return found


ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT_TYPE = "21686148-6449-6e6f-744e-656564454649"


def is_bootable(head: bytes) -> bool:
    """Return whether firmware would find something to start: boot code in the MBR, or an EFI system partition."""
    if not table_kind(head):
        return False
    return any(head[:440]) or any(e.type_id in (ESP_TYPE, "0xef") for e in table_entries(head))
