"""What is outside Azure: the machines of the source site, and what replication has kept of their disks.

A test gives a machine's disks as files. A recovery point is a copy of their bytes, so a recovered VM can be compared
with what the machine held when the point was made.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

BLOCK = 1 << 20


@dataclass
class Clock:
    """Azure's time: real time plus what a test has put forward."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class SourceDisk:
    """One disk of a machine; `id` is how the Mobility service names it."""

    id: str
    path: Path
    is_os: bool = False

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass
class SourceMachine:
    """A machine of the source site, found by its private IP.

    `push_error`: code of the catalogue with which the installation of the Mobility service fails.
    `errors`: codes of health errors that its replication has now.
    `shuts_down`: whether an orderly shutdown through Site Recovery works.
    """

    name: str
    ip: str
    os_type: str
    disks: list[SourceDisk]
    powered_on: bool = True
    shuts_down: bool = True
    firmware: str = "BIOS"
    cpus: int = 2
    memory_mb: int = 4096
    agent_version: str = "9.63.7187.1"
    agent_installed: bool = False
    push_error: str = ""
    errors: list[str] = field(default_factory=list)
    app_consistent: bool = True
    """Whether application-consistent points succeed; when not, replication warns with 78144."""
    sends: bool = True
    """Whether replication data and heartbeats come through."""
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def suffer(self, code: str) -> None:
        """From now on its replication has this health error (`catalog`)."""
        if code not in self.errors:
            self.errors.append(code)

    def recover(self, code: str = "") -> None:
        """Take one error away, or all."""
        self.errors = [one for one in self.errors if code and one != code]

    @property
    def talks(self) -> bool:
        return self.powered_on and self.sends


@dataclass
class Snapshot:
    """The bytes of all protected disks at one moment, by disk id; points of one moment share it."""

    files: dict[str, Path]
    holders: int = 0

    def take(self) -> Snapshot:
        self.holders += 1
        return self

    def release(self) -> None:
        self.holders -= 1
        if self.holders <= 0:
            for path in self.files.values():
                path.unlink(missing_ok=True)


@dataclass
class World:
    """The source sites' machines and the shelf on which snapshots lie (`folder`)."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    machines: list[SourceMachine] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def machine(
        self, name: str, ip: str, disks: Sequence[Path], *, os_type: str = "Linux", firmware: str = "BIOS"
    ) -> SourceMachine:
        """Put a machine into the source site. The first disk is its OS disk."""
        # The Mobility service names disks "{guid}" on Windows and "/dev/sdX" on Linux [inf, from the portal's screens].
        made = [
            SourceDisk(
                f"/dev/sd{'abcdefghijklmnop'[number]}" if os_type == "Linux" else f"{{{uuid.uuid4()}}}",
                path,
                number == 0,
            )
            for number, path in enumerate(disks)
        ]
        found = SourceMachine(name, ip, os_type, made, firmware=firmware)
        self.machines.append(found)
        return found

    def at(self, ip: str) -> SourceMachine | None:
        return next((one for one in self.machines if one.ip == ip), None)

    def snapshot(self, machine: SourceMachine, disk_ids: Sequence[str]) -> Snapshot:
        files = {}
        for disk in machine.disks:
            if disk.id in disk_ids:
                files[disk.id] = self.folder / f"snapshot-{next(self._numbers)}"
                copy_sparse(disk.path, files[disk.id])
        return Snapshot(files)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy the bytes; blocks of zeros become holes."""
    zeros = bytes(BLOCK)
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as given, target.open("wb") as kept:
        while block := given.read(BLOCK):
            if block == zeros[: len(block)]:
                kept.seek(len(block), os.SEEK_CUR)
            else:
                kept.write(block)
        kept.truncate(given.tell())
