"""Which file systems and swap areas lie on a disk, through partitions and device stacks such as LVM and md."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


def unescape(text: str) -> str:
    """Undo the octal escapes of /proc/self/mountinfo and /proc/swaps."""
    return _OCTAL.sub(lambda m: chr(int(m[1], 8)), text)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: its device number as "major:minor", where and how it is mounted."""

    device: str
    point: str
    kind: str
    source: str
    options: str
    root: str


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap area: a partition or a file."""

    path: str
    is_file: bool


def device_number(path: str) -> str | None:
    """Return "major:minor" of a device node, None when it is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if status.st_rdev else None


def parse_mountinfo(text: str) -> list[Mount]:
    """Return the mounts in the order in which they were made."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 3:
            continue
        mounts.append(
            Mount(fields[2], unescape(fields[4]), rest[0], unescape(rest[1]), f"{fields[5]},{rest[2]}", fields[3])
        )
    return mounts


def current_mounts() -> list[Mount]:
    """Return the mounts of this process; device numbers of btrfs, which are its own, become those of its device."""
    mounts = []
    for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")):
        if mount.device.startswith("0:") and mount.source.startswith("/dev/"):
            real = device_number(mount.source)
            if real is not None:
                mount = Mount(real, mount.point, mount.kind, mount.source, mount.options, mount.root)
        mounts.append(mount)
    return mounts


def parse_swaps(text: str) -> list[Swap]:
    """Return the areas of /proc/swaps."""
    return [Swap(unescape(f[0]), f[1] == "file") for f in (line.split() for line in text.splitlines()[1:]) if f]


def current_swaps() -> list[Swap]:
    """Return the swap areas in use."""
    try:
        return parse_swaps(Path("/proc/swaps").read_text(encoding="utf-8"))
    except OSError:
        return []


def devices_on(name: str, sys_block: Path = Path("/sys/block")) -> set[str]:
    """Return "major:minor" of a disk, of its partitions, and of all that is stacked on them."""
    found: set[str] = set()
    waiting = [sys_block / name]
    while waiting:
        directory = waiting.pop()
        try:
            number = (directory / "dev").read_text().strip()
        except OSError:
            continue
        if number in found:
            continue
        found.add(number)
        waiting += [p.parent for p in directory.glob("*/partition")]
        holders = directory / "holders"
        if holders.is_dir():
            waiting += [h.resolve() for h in holders.iterdir()]
    return found


def file_systems(devices: set[str], mounts: list[Mount]) -> list[Mount]:
    """Return one mount of each file system on the given devices, in the order in which they were mounted.

    A mount of the whole file system is preferred to a bind mount of a part of it.
    """
    chosen: dict[str, Mount] = {}
    for mount in mounts:
        if mount.device in devices and (mount.device not in chosen or chosen[mount.device].root != "/" == mount.root):
            chosen[mount.device] = mount
    return list(chosen.values())
