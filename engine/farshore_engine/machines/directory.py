"""A machine's directory: its record, written before anything is made, and the lock that keeps two callers apart."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.spec import DiskFile

VALID_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class MachineDirectory:
    """`RUN_DIR/NAME`, with `machine.json` (the record) and whatever the kind of machine keeps there."""

    run_dir: Path
    name: str

    def __post_init__(self) -> None:
        if not VALID_NAME.fullmatch(self.name):
            raise StopFault(
                f"{self.name!r} cannot be a machine's name",
                "Use at most 63 lower-case letters, digits, dots and dashes, with a letter or digit at both ends",
                reason="InvalidMachineName",
            )

    @property
    def path(self) -> Path:
        """The directory."""
        return self.run_dir / self.name

    @property
    def scope(self) -> str:
        """What sets this run directory's kernel names apart from those of another."""
        return os.path.realpath(self.run_dir)

    @property
    def console(self) -> Path:
        """The file that holds the machine's console output."""
        return self.path / "console.log"

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Keep other callers away from this machine; the kernel lets go of it when the holder dies.

        Gives the handle: a process that inherits it holds the lock too, until it ends.
        """
        locks = self.run_dir / ".locks"
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(locks / self.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def create(self) -> None:
        """Make the directory, readable by its owner alone."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, name: str) -> dict[str, Any] | None:
        """A record of the directory; None if there is none."""
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replace a record, whole or not at all."""
        new = self.path / f"{name}.new"
        new.write_text(json.dumps(content, indent=1))
        new.replace(self.path / name)

    def require_same_disks(self, disks: Sequence[DiskFile]) -> None:
        """Raise StopFault (`MachineConflict`) if a machine of this name is on record with other disks."""
        record = self.read("machine.json") or {"disks": []}
        held = [disk["path"] for disk in record["disks"]]
        if held and held != [str(disk.path) for disk in disks]:
            raise StopFault(
                f"a machine {self.name} runs already, with the disks {', '.join(held)}",
                "Stop it first, or give the new machine another name",
                reason="MachineConflict",
            )

    def remove(self) -> bool:
        """Remove the directory; True if there was one."""
        if not self.path.exists():
            return False
        shutil.rmtree(self.path)
        return True


def machine_names(run_dir: Path) -> list[str]:
    """The machines that have a directory here."""
    if not run_dir.is_dir():
        return []
    return sorted(entry.parent.name for entry in run_dir.glob("*/machine.json"))
