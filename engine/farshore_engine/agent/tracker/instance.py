"""A private trace instance in tracefs: found or mounted, made, and never left behind.

Several agents may share one kernel (tests do). Instances of dead agents are recognised by what the kernel says:
an instance whose buffers somebody holds open cannot be removed (EBUSY), a dead one can.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from farshore_engine.agent import syscalls

PREFIX = "farshore-"


class TraceFs:
    """An open tracefs. Mounted at a place of our own where nobody else has: detached at once, so nothing remains."""

    def __init__(self, scratch: Path) -> None:
        """Find or mount tracefs; raises OSError when the kernel has none or refuses."""
        self._fd = -1
        for place in _mounted():
            with suppress(OSError):
                self._fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
                os.stat("instances", dir_fd=self._fd)
                break
        else:
            self._fd = _mount_detached(scratch, (("tracefs", ""), ("debugfs", "tracing")))
        self.root = Path(f"/proc/self/fd/{self._fd}")

    def close(self) -> None:
        """Let go of tracefs."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def locked(self) -> Iterator[Path]:
        """Yield the directory of instances, locked against other agents that make or remove some."""
        directory = self.root / "instances"
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield directory
        finally:
            os.close(fd)


class DebugFs:
    """An open debugfs, which blktrace writes into; mounted and detached at once where nobody has."""

    def __init__(self, scratch: Path) -> None:
        """Find or mount debugfs; raises OSError when the kernel has none or refuses."""
        places = [place for place, kind in _mounts() if kind == "debugfs"]
        if places:
            self._fd = os.open(places[0], os.O_RDONLY | os.O_DIRECTORY)
        else:
            self._fd = _mount_detached(scratch, (("debugfs", ""),))
        self.root = Path(f"/proc/self/fd/{self._fd}")

    def close(self) -> None:
        """Let go of debugfs."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _mounts() -> list[tuple[str, str]]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [(fields[1], fields[2]) for fields in (line.split() for line in lines)]


def _mounted() -> list[str]:
    places = []
    for place, kind in _mounts():
        if kind == "tracefs":
            places.append(place)
        elif kind == "debugfs":
            places.append(f"{place}/tracing")
    return places


def _mount_detached(scratch: Path, wanted: tuple[tuple[str, str], ...]) -> int:
    target = scratch / f"tracing-{os.getpid()}-{secrets.token_hex(4)}"
    target.mkdir(parents=True, mode=0o700)
    try:
        for kind, below in wanted:
            try:
                syscalls.mount("farshore", str(target), kind)
            except OSError as error:
                refused = error
                continue
            try:
                return os.open(target / below, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as error:
                refused = error
            finally:
                syscalls.unmount_lazily(str(target))
        raise refused
    finally:
        target.rmdir()


class Instance:
    """One trace instance whose per-CPU buffers are held open for as long as it lives."""

    def __init__(self, tracefs: TraceFs, label: str, kib_per_cpu: int) -> None:
        """Remove what dead agents left, then make the instance with buffers of the given size; raises OSError."""
        self.name = f"{PREFIX}{label}-{os.getpid()}-{secrets.token_hex(3)}"
        self.path = tracefs.root / "instances" / self.name
        self._tracefs = tracefs
        self.buffers: list[int] = []
        with tracefs.locked() as directory:
            _remove_stale(directory)
            self.path.mkdir()
            try:
                self.write("buffer_size_kb", str(kib_per_cpu))
                self.write("options/overwrite", "0")  # an overflow drops new events and counts them
                self.cpus = sorted((self.path / "per_cpu").iterdir())
                for cpu in self.cpus:
                    self.buffers.append(os.open(cpu / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK))
            except OSError:
                self._remove()
                raise

    def write(self, name: str, value: str) -> None:
        """Write a control file of the instance; raises OSError."""
        fd = os.open(self.path / name, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def lost_events(self) -> int:
        """Return how many events the kernel has dropped since the instance was made."""
        total = 0
        for cpu in self.cpus:
            for line in (cpu / "stats").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in ("overrun", "commit overrun", "dropped events"):
                    total += int(value)
        return total

    def close(self) -> None:
        """Remove the instance from the kernel; may be called twice."""
        if self.path.exists():
            with self._tracefs.locked():
                self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self.write("events/enable", "0")
        for fd in self.buffers:
            os.close(fd)
        self.buffers = []
        with suppress(OSError):
            self.path.rmdir()


def _remove_stale(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name.startswith(PREFIX):
            with suppress(OSError):  # EBUSY: its agent lives
                path.rmdir()
