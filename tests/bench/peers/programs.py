"""What others need for the same disk: each at the setting that is fastest for disks, to a directory beside the vault.

They read the disk's backing file from the page cache, which favours them: an agent must read past it. Where the best
setting depends on the content, several are measured and the fastest counts.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers.build import KOPIA, RESTIC, GoPeer, NotBuilt, program

PIECE = 8 << 20  # bytes
ENVIRONMENT = {
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    "RESTIC_PASSWORD": "bench",
    "KOPIA_PASSWORD": "bench",
    "KOPIA_CHECK_FOR_UPDATES": "false",
}


@dataclass(frozen=True)
class Timings:
    """Seconds: of a first copy, of a copy after the change, of a restore."""

    first: float
    again: float
    restore: float


@dataclass(frozen=True)
class Copy:
    """A first copy: who made it, seconds, and CPU seconds of its processes."""

    peer: Peer
    seconds: float
    cpu: float


class Peer:
    """One program with a directory of its own. Commands run in `restored`, where a restore belongs."""

    family = ""
    settings: tuple[tuple[str, ...], ...] = ((),)  # the first one serves where only one is measured
    words: tuple[str, ...] = ("",)  # names of the settings

    def __init__(self, directory: Path, disk: Path, setting: int = 0) -> None:
        self.directory, self.disk, self.setting = directory, disk, self.settings[setting]
        self.name = " ".join(filter(None, (self.family, self.words[setting])))
        self.repository, self.restored = directory / "repository", directory / "restored"
        self.restored.mkdir(parents=True)
        self._environment = {
            **os.environ,
            **ENVIRONMENT,
            "BORG_BASE_DIR": str(directory),
            "RESTIC_CACHE_DIR": str(directory / "cache"),
            "KOPIA_CONFIG_PATH": str(directory / "kopia.config"),
            "KOPIA_CACHE_DIRECTORY": str(directory / "cache"),
            "KOPIA_LOG_DIR": str(directory / "logs"),
        }

    def prepare(self) -> None:
        """Make a repository, where there is one."""

    def copy(self, number: int) -> None:
        """Back the disk up."""
        raise NotImplementedError

    def restore(self, number: int) -> None:
        """Write what copy `number` holds to `restored`."""
        raise NotImplementedError

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.restored, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
        return done.stdout


class Restic(Peer):
    """Its chunker and encryption are fixed."""

    family = f"restic {RESTIC.version}"
    settings = (("--compression=auto",), ("--compression=off",))
    words = ("", "uncompressed")

    def prepare(self) -> None:
        self._restic("init")

    def copy(self, number: int) -> None:
        self._restic("backup", *self.setting, "--no-scan", "--pack-size=64", str(self.disk))

    def restore(self, number: int) -> None:
        self._restic("restore", "latest", "--target", ".")

    def _restic(self, *command: str) -> None:
        self.call(str(program(RESTIC)), "--quiet", "--repo", str(self.repository), *command)


class Kopia(Peer):
    """Pieces of a fixed size, read by several threads at once, and its fastest hash and encryption."""

    family = f"kopia {KOPIA.version}"
    settings = (("--compression=s2-default",), ("--compression=zstd-fastest",))
    words = ("s2", "zstd-fastest")

    def prepare(self) -> None:
        made = ("--block-hash=BLAKE3-256", "--encryption=AES256-GCM-HMAC-SHA256", "--object-splitter=FIXED-1M")
        self._kopia("repository", "create", "filesystem", f"--path={self.repository}", *made)
        self._kopia("policy", "set", "--global", *self.setting, "--parallel-upload-above-size-mib=64")

    def copy(self, number: int) -> None:
        self._kopia("snapshot", "create", "--parallel=2", str(self.disk))

    def restore(self, number: int) -> None:
        listed = self._kopia("snapshot", "list", str(self.disk), "--json", "--max-results=1")
        root = listed.split('"rootEntry"', 1)[1].split('"obj":"', 1)[1].split('"', 1)[0]
        self._kopia("restore", root, str(self.restored / self.disk.name), "--parallel=2")

    def _kopia(self, *command: str) -> str:
        return self.call(str(program(KOPIA)), "--no-progress", *command)


class Borg(Peer):
    """Chunks of a fixed size suit disks; without encryption it is faster."""

    family = "borg"
    settings = (
        ("--chunker-params=fixed,65536", "--compression=lz4"),
        ("--chunker-params=fixed,1048576", "--compression=lz4"),
        ("--chunker-params=fixed,1048576", "--compression=zstd,1"),
    )
    words = ("fixed 64 KiB lz4", "fixed 1 MiB lz4", "fixed 1 MiB zstd 1")

    def prepare(self) -> None:
        self.call("borg", "init", "--encryption=none", str(self.repository))

    def copy(self, number: int) -> None:
        setting = (*self.setting, "--files-cache=disabled", "--sparse")
        self.call("borg", "create", *setting, f"{self.repository}::{number}", str(self.disk))

    def restore(self, number: int) -> None:
        self.call("borg", "extract", "--sparse", f"{self.repository}::{number}")


class Rsync(Peer):
    """On one host it copies whole files, which is faster than its differences."""

    family = "rsync --inplace"

    def copy(self, number: int) -> None:
        self.call("rsync", "--inplace", "--ignore-times", str(self.disk), str(self.repository))

    def restore(self, number: int) -> None:
        self.call("rsync", "--inplace", str(self.repository), str(self.restored / self.disk.name))


class QemuImg(Peer):
    """Writes a whole compressed image each time."""

    family = "qemu-img convert zstd"

    def copy(self, number: int) -> None:
        setting = ("-c", "-o", "compression_type=zstd", "-W", "-m", "8")
        self.call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *setting, str(self.disk), str(self.repository))

    def restore(self, number: int) -> None:
        target = self.restored / self.disk.name
        self.call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-W", "-m", "8", str(self.repository), str(target))


PEERS: tuple[type[Peer], ...] = (Restic, Kopia, Borg, Rsync, QemuImg)
SCANNING: tuple[type[Peer], ...] = (Restic, Borg, Rsync)  # those that a small change is compared with
BUILT: dict[type[Peer], GoPeer] = {Restic: RESTIC, Kopia: KOPIA}


def missing() -> dict[str, str]:
    """Build what has to be built; return why a peer cannot be had, by its name."""
    found = {}
    for kind, peer in BUILT.items():
        try:
            program(peer)
        except NotBuilt as error:
            found[kind.family] = str(error)
    return found


def first_copies(
    directory: Path, disk: Path, kinds: tuple[type[Peer], ...] = PEERS, every_setting: bool = True
) -> dict[str, Copy]:
    """Make each peer's first copy at its fastest setting; gives it by the peer's family, to go on with."""
    without = missing()
    found: dict[str, Copy] = {}
    for kind in kinds:
        if kind.family in without:
            continue
        for number in range(len(kind.settings) if every_setting else 1):
            peer = kind(directory / f"peer-{kind.__name__}-{number}", disk, number)
            peer.prepare()
            warm(disk)
            before = _children_cpu()
            seconds = timed(lambda peer=peer: peer.copy(1))  # type: ignore[misc]
            made, other = Copy(peer, seconds, _children_cpu() - before), found.get(kind.family)
            faster = made if other is None or made.seconds < other.seconds else other
            for copy in (made, other):
                if copy is not None and copy is not faster:
                    shutil.rmtree(copy.peer.directory)
            found[kind.family] = faster
    return found


def later_copies(copies: dict[str, Copy], disk: Path, restore: bool = True) -> dict[str, Timings]:
    """Copy the changed disk with each peer, restore it if that is wanted, and delete the peer's files."""
    found = {}
    for family, copy in copies.items():
        peer = copy.peer
        warm(disk)
        os.utime(disk)  # so that nobody can think that it is unchanged
        again = timed(lambda peer=peer: peer.copy(2))  # type: ignore[misc]
        back = timed(lambda peer=peer: peer.restore(2)) if restore else 0.0  # type: ignore[misc]
        found[family] = Timings(copy.seconds, again, back)
        shutil.rmtree(peer.directory)
    return found


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def warm(path: Path) -> None:
    """Bring what a file holds into the page cache; its holes are left out."""
    with path.open("rb", buffering=0) as file:
        at, size = 0, path.stat().st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole follows
                return
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            while at < end and (count := len(os.pread(file.fileno(), min(PIECE, end - at), at))):
                at += count
