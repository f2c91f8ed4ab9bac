"""Loop devices: a backing file as a block device, at most one device for a file.

Two devices on one file would be two writers that know nothing of each other, so `attach` refuses a file that has one.
A device is found by its backing file (device and inode), never by a remembered number alone: the kernel hands a
number to the next caller as soon as it is free.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.commands import attempt, run, run_json


@dataclass(frozen=True)
class LoopDevice:
    """An attached loop device: `/dev/loopN`, its backing file and that file's device and inode."""

    device: str
    backing: str
    device_number: tuple[int, int]
    inode: int


def attached() -> list[LoopDevice]:
    """Every loop device of this host that has a backing file."""
    listing = run_json(["losetup", "--json", "--list", "--output", "NAME,BACK-FILE,BACK-INO,BACK-MAJ:MIN"])
    devices = []
    for row in listing["loopdevices"] if listing else []:
        if not row["back-file"] or row["back-ino"] is None or not row["back-maj:min"]:
            continue  # somebody detached it while losetup was looking
        major, _, minor = str(row["back-maj:min"]).strip().partition(":")
        devices.append(
            LoopDevice(
                row["name"],
                str(row["back-file"]).removesuffix(" (deleted)"),
                (int(major), int(minor)),
                int(row["back-ino"]),
            )
        )
    return devices


def devices_of(path: Path) -> list[str]:
    """The loop devices whose backing file is, or before its deletion was, `path`."""
    real = os.path.realpath(path)
    try:
        status = Path(real).stat()
    except FileNotFoundError:
        return [loop.device for loop in attached() if loop.backing == real]
    identity = ((os.major(status.st_dev), os.minor(status.st_dev)), status.st_ino)
    return [loop.device for loop in attached() if (loop.device_number, loop.inode) == identity]


def attach(path: Path, *, sector_bytes: int = 512) -> str:
    """Attach `path` with direct I/O, where its file system allows that, and with its partitions; gives `/dev/loopN`.

    Args:
        sector_bytes: logical sector size of the disk. Left to itself, the kernel takes what direct I/O on that file
            needs (4096 for a file that shares extents on xfs), and then partition tables of 512-byte disks are unread.

    Raises:
        StopFault: the file is missing or attached already, or losetup failed (`CommandFailed`).
    """
    require_free(path)
    options = ["--direct-io=on", "--partscan", "--sector-size", str(sector_bytes)]
    device = run(["losetup", "--find", "--show", *options, str(path)]).strip()
    # A kernel without the parser for this partition table leaves them to user space. No table is no failure.
    attempt(["partx", "--update", device])
    return device


def require_free(path: Path) -> None:
    """Raise StopFault (`DiskMissing`, `DiskInUse`) unless `path` is a file without a loop device."""
    if not path.is_file():
        raise StopFault(f"the disk {path} is not there", "Hydrate the disk again", reason="DiskMissing")
    held = devices_of(path)
    if held:
        raise StopFault(
            f"the disk {path} is attached already, as {', '.join(held)}",
            "Stop the machine that uses it, or detach it with losetup -d",
            reason="DiskInUse",
        )


def detach(path: Path, patience: float = 10) -> list[str]:
    """Detach every loop device of `path`; gives the devices that are still there after `patience` seconds.

    A device stays busy until the kernel has torn down the last mount name space that had it mounted, which it does
    some time after the last process died.
    """
    deadline = time.monotonic() + patience
    while left := devices_of(path):
        for device in left:
            attempt(["losetup", "--detach", device])
        if time.monotonic() >= deadline:
            return devices_of(path)
        if devices_of(path):
            time.sleep(0.05)
    return []


def nodes_of(device: str) -> list[str]:
    """The block device nodes of `/dev/loopN`: itself and its partitions."""
    name = Path(device).name
    parts = sorted(entry.name for entry in Path(f"/sys/block/{name}").glob(f"{name}p*"))
    return [device, *(f"/dev/{part}" for part in parts)]
