"""Which disk of a point is which of a machine that this host knows: by id, by what is on it, by place, by size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farshore_engine.agent.signatures import HEAD_SIZE, disk_signature, signature_of
from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.qemu_command import serial_of
from farshore_engine.machines.spec import DiskFile
from farshore_engine.vault.records import PointDisk

GIB = 1 << 30
OF_CONTENT = ("gpt-", "dos-", "fs-")
"""Beginnings of ids that an agent has given by what is on a disk."""


def match_disks(pointed: Sequence[PointDisk], own: Sequence[DiskFile]) -> dict[str, DiskFile]:
    """Return the machine's disk for each disk of a point, by its id.

    A disk whose names tell nothing (its file is new or gone) is matched by its place among those that are left, if as
    many are left on either side. If the machine has more, as where some are not replicated, the size tells, if only one
    has it.

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
    if len(open_ones) < len(left):
        sizes = [_size(file.path) for file in left]
        for number, at in _by_size([one.size_bytes for one in open_ones], sizes).items():
            found[open_ones[number].id] = left[at]
        left = [file for file in left if file not in found.values()]
        open_ones = [disk for disk in open_ones if disk.id not in found]
    if len(open_ones) > len(left) or (len(open_ones) < len(left) and open_ones):
        have = ", ".join(str(file.path) for file in own) or "none"
        raise StopFault(
            f"the point has the disks {', '.join(f'{d.name} ({d.id})' for d in pointed)}, the machine has {have}",
            "Give the machine the disks that it had, in their order",
            reason="DisksDiffer",
        )
    found.update({disk.id: file for disk, file in zip(open_ones, left, strict=False)})
    return found


def can_be_told(pointed: Sequence[PointDisk], sizes: Sequence[int]) -> bool:
    """Tell whether `match_disks` will know a machine's disks by a point's, from their sizes alone (bytes, whole GiB).

    A disk that is named by what is on it is not looked at: what is on the machine's disks is not known yet.
    """
    wanted = [-(-disk.size_bytes // GIB) * GIB for disk in pointed]
    if len(pointed) >= len(sizes):
        return len(pointed) == len(sizes)
    sized = _by_size(wanted, sizes)
    return all(number in sized for number, disk in enumerate(pointed) if not disk.id.startswith(OF_CONTENT))


def _by_size(wanted: Sequence[int], there: Sequence[int]) -> dict[int, int]:
    """Return which of the wanted sizes is which of those that are there, where each has it only once."""
    return {
        number: there.index(size)
        for number, size in enumerate(wanted)
        if wanted.count(size) == there.count(size) == 1 and size
    }


def _size(path: Path) -> int:
    """Return the bytes of a disk, 0 where it is not there."""
    try:
        with path.open("rb") as file:
            return file.seek(0, 2)
    except OSError:
        return 0


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
