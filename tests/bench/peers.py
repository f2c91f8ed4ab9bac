"""What others need for the same disk: each at the setting that is fastest for disks, to a directory beside the vault.

They read the disk's backing file from the page cache, which favours them: an agent must read past it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BORG = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}


@dataclass(frozen=True)
class Timings:
    """Seconds: of a first copy, of a copy after the change, of a restore."""

    first: float
    again: float
    restore: float


class Peer:
    """One program with a directory of its own. Commands run in `restored`, where a restore belongs."""

    def __init__(self, directory: Path, disk: Path) -> None:
        self.directory, self.disk = directory, disk
        self.repository, self.restored = directory / "repository", directory / "restored"
        self.restored.mkdir(parents=True)
        self._environment = {
            **os.environ,
            **BORG,
            "BORG_BASE_DIR": str(directory),
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(directory / "cache"),
        }

    def prepare(self) -> None:
        """Make a repository, where there is one."""

    def copy(self, number: int) -> None:
        """Back the disk up."""
        raise NotImplementedError

    def restore(self, number: int) -> None:
        """Write what copy `number` holds to `restored`."""
        raise NotImplementedError

    def call(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self.restored, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")


class Restic(Peer):
    """Its chunker and encryption are fixed."""

    def prepare(self) -> None:
        self.call("restic", "init", "--quiet", "--repo", str(self.repository))

    def copy(self, number: int) -> None:
        self.call("restic", "backup", "--quiet", "--repo", str(self.repository), str(self.disk))

    def restore(self, number: int) -> None:
        self.call("restic", "restore", "latest", "--quiet", "--repo", str(self.repository), "--target", ".")


class Borg(Peer):
    """Chunks of a fixed size suit disks; without encryption it is faster."""

    def prepare(self) -> None:
        self.call("borg", "init", "--encryption=none", str(self.repository))

    def copy(self, number: int) -> None:
        setting = ("--chunker-params=fixed,65536", "--compression=lz4", "--files-cache=disabled")
        self.call("borg", "create", *setting, f"{self.repository}::{number}", str(self.disk))

    def restore(self, number: int) -> None:
        self.call("borg", "extract", f"{self.repository}::{number}")


class Rsync(Peer):
    """On one host it copies whole files, which is faster than its differences."""

    def copy(self, number: int) -> None:
        self.call("rsync", "--inplace", "--ignore-times", str(self.disk), str(self.repository))

    def restore(self, number: int) -> None:
        self.call("rsync", "--inplace", str(self.repository), str(self.restored / self.disk.name))


class QemuImg(Peer):
    """Writes a whole compressed image each time."""

    def copy(self, number: int) -> None:
        setting = ("-c", "-o", "compression_type=zstd", "-W", "-m", "8")
        self.call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *setting, str(self.disk), str(self.repository))

    def restore(self, number: int) -> None:
        target = self.restored / self.disk.name
        self.call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-W", "-m", "8", str(self.repository), str(target))


PEERS: dict[str, type[Peer]] = {
    "restic": Restic,
    "borg, fixed 64 KiB, lz4": Borg,
    "rsync --inplace": Rsync,
    "qemu-img convert, zstd": QemuImg,
}


def first_copies(directory: Path, disk: Path) -> dict[str, tuple[Peer, float]]:
    """Make each peer's first copy; gives the peer, to go on with, and the seconds."""
    found = {}
    for number, (name, kind) in enumerate(PEERS.items()):
        peer = kind(directory / f"peer{number}", disk)
        peer.prepare()
        warm(disk)
        found[name] = (peer, timed(lambda peer=peer: peer.copy(1)))  # type: ignore[misc]
    return found


def later_copies(peers: dict[str, tuple[Peer, float]], disk: Path) -> dict[str, Timings]:
    """Copy the changed disk with each peer and restore it, and delete the peer's files."""
    found = {}
    for name, (peer, first) in peers.items():
        warm(disk)
        os.utime(disk)  # so that nobody can think that it is unchanged
        again = timed(lambda peer=peer: peer.copy(2))  # type: ignore[misc]
        found[name] = Timings(first, again, timed(lambda peer=peer: peer.restore(2)))  # type: ignore[misc]
        shutil.rmtree(peer.directory)
    return found


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def warm(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass
