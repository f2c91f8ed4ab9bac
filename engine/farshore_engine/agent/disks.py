"""Finds the disks to protect, and names each so that the name survives a reboot.

Only a disk whose node exists in /dev and opens counts: in a container /sys shows the disks of the whole host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from farshore_engine.agent.config import DiskChoice
from farshore_engine.agent.mounts import device_number
from farshore_engine.agent.signatures import HEAD_SIZE, disk_signature, signature_of
from farshore_engine.agent.source import Reader
from farshore_engine.agent.tracker.interface import TrackedDisk
from farshore_engine.contract.faults import StopFault

WHOLE_DISK = re.compile(r"^(sd[a-z]+|vd[a-z]+|xvd[a-z]+|hd[a-z]+|nvme\d+n\d+|mmcblk\d+|dasd[a-z]+)$")
LOOP = re.compile(r"^loop\d+$")
LEAST_SERIAL = 12  # characters of a serial number that is the beginning of a name in the vault


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole disk: stable id, kernel name, device node, numbers, size in bytes, and whether it is protected."""

    id: str
    name: str
    path: str
    major: int
    minor: int
    size: int
    serial: str = ""
    model: str = ""
    sector: int = 512
    replicated: bool = True
    presence: str = ""  # changes when the disk is taken away and one comes back under the same name
    content: str = ""  # what its partition table or file system is called; goes where the disk's bytes go

    @property
    def tracked(self) -> TrackedDisk:
        """Return what a tracker needs to know."""
        return TrackedDisk(self.id, self.name, self.major, self.minor, self.size)


def _attribute(directory: Path, *names: str) -> str:
    for name in names:
        try:
            value = (directory / name).read_text(errors="replace").strip()
        except OSError:
            continue
        if value:
            return value
    return ""


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", text).strip("-")


def stable_id(directory: Path, path: str, head: bytes) -> str:
    """Return the best lasting name: WWN, serial number, partition table, file system, and only then the kernel's name.

    The order is fixed, since the name is the disk's in the vault. `head` holds the disk's first bytes. A recovered
    machine's disk has the beginning of its name in the vault for a serial number: it is that disk.
    """
    if wwid := _attribute(directory, "wwid", "device/wwid"):
        return _clean(f"wwn-{wwid}")
    serial = _attribute(directory, "serial", "device/serial")
    content = content_id(head)
    if serial and not (len(serial) >= LEAST_SERIAL and content.startswith(serial)):
        return _clean(f"serial-{serial}")
    return content or f"name-{Path(path).name}"


def content_id(head: bytes) -> str:
    """Return the name that a disk's first bytes give it: of its partition table, else its file system; "" for none."""
    if table := disk_signature(head):
        return table
    found = signature_of(head)
    return _clean(f"fs-{found.uuid}") if found is not None and found.uuid else ""


def _head_of(path: str) -> tuple[int, bytes] | None:
    """Return size and first bytes, read past the page cache; None when the node is missing or does not open."""
    try:
        reader = Reader(path)
    except OSError:
        return None
    try:
        return reader.size, bytes(reader.read(0, HEAD_SIZE))
    except OSError:
        return None
    finally:
        reader.close()


def _presence(directory: Path) -> str:
    """Return what tells a disk from one that had its name before: the kernel's count of disks and sysfs' number."""
    try:
        number = directory.stat().st_ino
    except OSError:
        number = 0
    return f"{_attribute(directory, 'diskseq')}-{number}"


def _inspect(directory: Path, dev: Path) -> Disk | None:
    name, path = directory.name, str(dev / directory.name)
    if _attribute(directory, "ro") == "1" or _attribute(directory, "size") in ("", "0"):
        return None
    if _attribute(directory, "hidden") == "1":
        return None
    number = device_number(path)
    opened = _head_of(path)
    if opened is None or opened[0] == 0 or number is None or _attribute(directory, "dev") != number:
        return None
    size, head = opened
    major, _, minor = number.partition(":")
    sector = int(_attribute(directory, "queue/logical_block_size") or 512)
    return Disk(
        id=stable_id(directory, path, head),
        name=name,
        path=path,
        major=int(major),
        minor=int(minor),
        size=size,
        serial=_attribute(directory, "serial", "device/serial"),
        model=_attribute(directory, "device/model"),
        sector=sector,
        presence=_presence(directory),
        content=content_id(head),
    )


def find_disks(
    sys_block: Path = Path("/sys/block"),
    dev: Path = Path("/dev"),
    only: tuple[str, ...] = (),
    names: Mapping[str, str] | None = None,
) -> list[Disk]:
    """Return all whole disks that could be protected, by name. Loop devices count only where there is nothing else.

    When every word of `only` is the name or path of a disk, be it there or not, no other disk is touched: one that
    hangs and is none of our business must not hold up the protection of the rest. `names` has ids by serial number,
    or by the name of what is on a disk.
    """
    nodes = _names(sys_block, only)
    for pattern in (WHOLE_DISK, LOOP):
        found = [disk for n in nodes if pattern.match(n) and (disk := _inspect(sys_block / n, dev)) is not None]
        if found:
            return _with_distinct_ids(named(found, names or {}))
    return []


def _names(sys_block: Path, only: tuple[str, ...]) -> list[str]:
    names = sorted((p.name for p in sys_block.iterdir()), key=lambda n: (len(n), n))
    chosen = {word.removeprefix("/dev/") for word in only}
    if chosen and all(WHOLE_DISK.match(word) or LOOP.match(word) for word in chosen):
        names = [name for name in names if name in chosen]
    return names


def glance(sys_block: Path = Path("/sys/block"), only: tuple[str, ...] = ()) -> frozenset[tuple[str, ...]]:
    """Return what shows that a disk came, went, grew or was exchanged, without opening any: for looking often."""
    return frozenset(
        (name, _attribute(sys_block / name, "dev"), _attribute(sys_block / name, "size"), _presence(sys_block / name))
        for name in _names(sys_block, only)
        if WHOLE_DISK.match(name) or LOOP.match(name)
    )


def follow(before: Iterable[Disk], found: Iterable[Disk]) -> list[Disk]:
    """Return the disks that were found, under the ids that they had: a file system made meanwhile renames no disk."""
    ids = {(d.name, d.major, d.minor, d.presence): d.id for d in before}
    return [replace(d, id=ids.get((d.name, d.major, d.minor, d.presence), d.id)) for d in found]


def named(disks: Iterable[Disk], names: Mapping[str, str]) -> list[Disk]:
    """Return the disks, those with one of the serial numbers, or of the names of contents, under the id that belongs
    to it. A cloud gives its disks serial numbers of its own; what is on them came from the vault."""
    return [replace(disk, id=names.get(disk.serial) or names.get(disk.content) or disk.id) for disk in disks]


def _with_distinct_ids(disks: list[Disk]) -> list[Disk]:
    """Two disks with one id (a cloned file system) are told apart by their names."""
    ids = [d.id for d in disks]
    return [d if ids.count(d.id) == 1 else replace(d, id=f"{d.id}-{d.name}") for d in disks]


def choose(disks: Iterable[Disk], choice: DiskChoice) -> list[Disk]:
    """Return the disks with `replicated` set by the configuration's include and exclude lists.

    A listed disk that is not there is left out and told by the process server, which knows the list too: the others
    are replicated meanwhile, and it is taken up when it comes.

    Raises:
        StopFault: nothing is left to protect.
    """
    disks = list(disks)

    def wanted(disk: Disk) -> bool:
        words = {disk.id, disk.name, disk.path}
        return (not choice.include or bool(words & set(choice.include))) and not words & set(choice.exclude)

    chosen = [replace(d, replicated=wanted(d)) for d in disks]
    if not any(d.replicated for d in chosen):
        have = ", ".join(f"{d.name} ({d.id})" for d in disks) or "no disk that can be opened"
        raise StopFault(
            f"no disk to protect: this machine has {have}",
            "Attach one, or correct disks.include and disks.exclude",
            reason="NoDisk",
        )
    return chosen


class DiskWatch:
    """Notices that the protected disks are no longer those that `look` returned."""

    def __init__(self, choice: DiskChoice, sys_block: Path = Path("/sys/block"), dev: Path = Path("/dev")) -> None:
        self._choice = choice
        self._sys_block = sys_block
        self._dev = dev
        self._seen: frozenset[tuple[str, ...]] = frozenset()
        self._disks: list[Disk] = []

    def look(self) -> list[Disk]:
        """Return all disks as they are now, with their choice; raises StopFault when none is to be protected."""
        self._seen = glance(self._sys_block, self._choice.include)
        found = follow(self._disks, self._find())
        self._disks = choose(found, self._choice)
        return self._disks

    def changed(self) -> bool:
        """Return whether a protected disk came, went, has another size, or is another one under an old name.

        Cheap while nothing changes: no disk is opened.
        """
        seen = glance(self._sys_block, self._choice.include)
        if seen == self._seen:
            return False
        try:
            found = follow(self._disks, self._find())
            now = choose(found, self._choice)
        except StopFault:
            return True
        if _protected(now) != _protected(self._disks):
            return True
        self._seen = seen  # a disk that is none of ours
        return False

    def _find(self) -> list[Disk]:
        return find_disks(self._sys_block, self._dev, self._choice.include, dict(self._choice.names))


def _protected(disks: Iterable[Disk]) -> list[Disk]:
    return [replace(d, serial="", model="", content="") for d in disks if d.replicated]
