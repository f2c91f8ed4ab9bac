"""Notices that a machine's disk is gone: a recovery point without a disk that was there is not the machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.replication import Disk
from farshore_engine.vault.records import PointDisk

GIB = 1 << 30
REASON = "DiskMissing"
REMEDY = (
    "Attach it again, and points go on by themselves; or go on without it: list it in spec.source.disks.exclude, or "
    "take it out of spec.source.disks.include"
)


def missing_disks(pointed: Iterable[PointDisk], present: Iterable[Disk], source: Source) -> tuple[str, ...]:
    """Return what is missing, in words: disks of the newest point, and disks that the source lists, that are not there.

    A disk that has another id under its old name is not missing: a partition table or a file system was made on it.
    """
    pointed, present = list(pointed), list(present)
    here = {disk.id for disk in present}
    renamed = {disk.name for disk in present if disk.id not in {old.id for old in pointed}}
    found = [
        f"disk {disk.name} ({disk.id}, {disk.size_bytes / GIB:.1f} GiB) of the last recovery point"
        for disk in pointed
        if disk.id not in here and disk.name not in renamed and _wanted(disk, source)
    ]
    known = set().union(*map(_words, present), *map(_words, pointed))
    listed = [word for word in source.include_disks if word not in known]
    found += [f"disk {word}, which spec.source.disks.include lists," for word in listed]
    return tuple(found)


def explain(missing: tuple[str, ...]) -> str:
    """Return the sentence for status."""
    return f"no recovery point is taken: {' and '.join(missing)} is not in the machine"


def _words(disk: PointDisk | Disk) -> set[str]:
    name = disk.name.removeprefix("/dev/")
    return {disk.id, name, f"/dev/{name}"}


def _wanted(disk: PointDisk, source: Source) -> bool:
    words = _words(disk)
    included = not source.include_disks or bool(words & set(source.include_disks))
    return included and not words & set(source.exclude_disks)
