"""Which disk of a point is which disk of a machine that this host knows: by id, by what is on it, else by place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farshore_engine.agent.signatures import HEAD_SIZE, disk_signature, signature_of
from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.qemu_command import serial_of
from farshore_engine.machines.spec import DiskFile
from farshore_engine.vault.records import PointDisk


def match_disks(pointed: Sequence[PointDisk], own: Sequence[DiskFile]) -> dict[str, DiskFile]:
    """Return the machine's disk for each disk of a point, by its id.

    A disk whose names tell nothing (its file is new or gone) is matched by its place among those that are left, if as
    many are left on either side.

    Raises:
        StopFault: it cannot be told.
    """
    left = list(own)
    found: dict[str, DiskFile] = {}
    for disk in pointed:
        mine = [file for file in left if disk.id in _names(file)]
        if len(mine) == 1:
            found[disk.id] = mine[0]
            left.remove(mine[0])
    open_ones = [disk for disk in pointed if disk.id not in found]
    if len(open_ones) > len(left) or (len(open_ones) < len(left) and open_ones):
        have = ", ".join(str(file.path) for file in own) or "none"
        raise StopFault(
            f"the point has the disks {', '.join(f'{d.name} ({d.id})' for d in pointed)}, the machine has {have}",
            "Give the machine the disks that it had, in their order",
            reason="DisksDiffer",
        )
    found.update({disk.id: file for disk, file in zip(open_ones, left, strict=False)})
    return found


def _names(file: DiskFile) -> set[str]:
    """Every id that an agent could have given to this disk."""
    names = {file.id, f"serial-{serial_of(file)}"}
    head = _head(file.path)
    if table := disk_signature(head):
        names.add(table)
    elif (found := signature_of(head)) is not None and found.uuid:
        names.add(f"fs-{found.uuid}")
    return names


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_SIZE).ljust(HEAD_SIZE, b"\0")
    except OSError:
        return bytes(HEAD_SIZE)
