"""Where the protected file systems lie on LVM: the logical volumes, their extents on the disks, and room for changes.

Only what is simple is used: linear volumes on protected disks, with their metadata once at the begin of each disk. All
else is read under the freeze, as without LVM.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.agent.devicemapper import Mapper, name_of
from farshore_engine.agent.mounts import Mount, device_number

SECTOR = 512
TAG = "farshore-point"  # of the volumes that hold what changes while a point is read
COMMAND_SECONDS = 30.0
# No backup of the metadata is written: what those files say would be in the point.
QUIETLY = ("--config", "backup { backup=0 archive=0 }")
_DM_NAME = re.compile(r"^((?:[^-]|--)+)-((?:[^-]|--)+)$")


class NoSnapshot(Exception):
    """A snapshot cannot be taken; the message says why."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a volume: where it begins in the volume and on the disk, and its length, in bytes."""

    disk: str
    volume_offset: int
    disk_offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume with a protected file system; `name` is that of its device."""

    name: str
    group: str
    size: int
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A volume group: its metadata's version, free bytes, and where on protected disks the metadata lies."""

    name: str
    version: int
    free: int
    extent_size: int
    metadata: tuple[tuple[str, int, int], ...]  # disk, offset, length


def command(*arguments: str) -> str:
    """Run an LVM command and return what it said; raises NoSnapshot."""
    try:
        done = subprocess.run(
            ["lvm", *arguments, *QUIETLY], check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoSnapshot(f"lvm {arguments[0]} failed: {error}") from error
    if done.returncode != 0:
        raise NoSnapshot(f"lvm {arguments[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def ranges_of(disks: dict[str, str], sys_dev: Path = Path("/sys/dev/block")) -> dict[str, tuple[str, int]]:
    """Return "major:minor" → (disk, offset in bytes) of disks and their partitions.

    Args:
        disks: device node of each disk, by id.
    """
    found = {}
    for disk, path in disks.items():
        number = device_number(path)
        if number is None:
            continue
        found[number] = (disk, 0)
        for marker in (sys_dev / number).glob("*/partition"):
            start = int((marker.parent / "start").read_text()) * SECTOR
            found[(marker.parent / "dev").read_text().strip()] = (disk, start)
    return found


def volumes(mapper: Mapper, mounts: list[Mount], ranges: dict[str, tuple[str, int]]) -> list[Volume]:
    """Return the logical volumes below the given file systems that a snapshot can be taken of."""
    found: dict[str, Volume] = {}
    for mount in mounts:
        name = name_of(mount.device)
        match = _DM_NAME.match(name)
        if not match or name in found:
            continue
        extents = _extents(mapper, name, ranges)
        if extents:
            size = sum(extent.length for extent in extents)
            found[name] = Volume(name, match[1].replace("--", "-"), size, tuple(extents))
    return list(found.values())


def _extents(mapper: Mapper, name: str, ranges: dict[str, tuple[str, int]]) -> list[Extent]:
    extents = []
    for segment in mapper.table(name):
        number, _, start = segment.parameters.partition(" ")
        if segment.target != "linear" or number not in ranges:
            return []
        disk, offset = ranges[number]
        place = offset + int(start) * SECTOR
        extents.append(Extent(disk, segment.start * SECTOR, place, segment.length * SECTOR))
    return extents


def group(name: str, ranges: dict[str, tuple[str, int]]) -> Group:
    """Return what is known of a volume group now; raises NoSnapshot when its metadata is not at the usual place."""
    plain = ("--noheadings", "--units", "b", "--nosuffix", "--separator", "|")
    version, free, extent = command("vgs", *plain, "-o", "vg_seqno,vg_free,vg_extent_size", name).strip().split("|")
    areas = []
    rows = command("pvs", *plain, "-o", "pv_name,pe_start,pv_mda_count", "-S", f"vg_name={name}").split()
    for row in rows:
        path, begin, count = row.split("|")
        number = device_number(path)
        if number not in ranges:
            continue
        if int(count) > 1:
            raise NoSnapshot(f"{path} holds metadata of {name} at its end too")
        disk, offset = ranges[number]
        areas.append((disk, offset, int(begin)))
    return Group(name, int(version), int(free), int(extent), tuple(areas))
