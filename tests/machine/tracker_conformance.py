"""The tracker conformance suite: whatever is written to a disk is marked, and reads are not.

Each check takes a way to make a tracker and a ground to write on, and returns complaints: none when the tracker keeps
its promises (farshore_engine.agent.tracker.interface). It needs nothing but what the agent's bundle carries, so the
same checks run here under pytest and, as a program, in a guest with a kernel of its own:

    python tracker_conformance.py DEVICE DIRECTORY TRACKER...      # prints {tracker: {check: [complaint]}}
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from farshore_engine.agent import syscalls
from farshore_engine.agent.source import READ_SIZE, Reader
from farshore_engine.agent.tracker.blktrace import BlktraceTracker
from farshore_engine.agent.tracker.interface import TrackedDisk, Tracker
from farshore_engine.agent.tracker.tracefs import TraceFsTracker
from farshore_engine.blocks.grid import BLOCK_SIZE

MIB = 1 << 20
IN_FLIGHT = 8  # field of Documentation/block/stat.rst, counted from 0


@dataclass
class Marks:
    """A sink that remembers."""

    marked: set[int] = field(default_factory=set)
    losses: list[str] = field(default_factory=list)

    def mark(self, disk: str, first: np.ndarray, last: np.ndarray) -> None:
        for low, high in zip(first.tolist(), last.tolist(), strict=True):
            self.marked.update(range(low, high + 1))

    def lost(self, disk: str, reason: str) -> None:
        self.losses.append(reason)


Make = Callable[[TrackedDisk, Path], Tracker]
TRACKERS: dict[str, Make] = {
    "tracefs": lambda disk, scratch: TraceFsTracker((disk,), scratch, "test"),
    "blktrace": lambda disk, scratch: BlktraceTracker((disk,), scratch),
}


@dataclass(frozen=True)
class Ground:
    """A disk to spoil, and a directory for mounts and the tracker's own things."""

    device: str
    directory: Path

    @property
    def disk(self) -> TrackedDisk:
        number = os.stat(self.device).st_rdev
        name = Path(self.device).name
        return TrackedDisk("disk", name, os.major(number), os.minor(number), self.size)

    @property
    def size(self) -> int:
        fd = os.open(self.device, os.O_RDONLY)
        try:
            return syscalls.device_size(fd)
        finally:
            os.close(fd)

    def fill(self) -> None:
        """Put something everywhere, so that a discard shows."""
        pattern = os.urandom(4 * MIB)
        fd = os.open(self.device, os.O_WRONLY)
        try:
            for at in range(0, self.size, len(pattern)):
                os.pwrite(fd, pattern[: self.size - at], at)
            os.fsync(fd)
        finally:
            os.close(fd)

    def content(self) -> list[int]:
        """Return a hash of each block, read past the page cache."""
        reader = Reader(self.device)
        try:
            hashes = []
            for at in range(0, reader.size, READ_SIZE):
                data = bytes(reader.read(at, READ_SIZE))
                hashes += [hash(data[o : o + BLOCK_SIZE]) for o in range(0, len(data), BLOCK_SIZE)]
            return hashes
        finally:
            reader.close()

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """A fresh ext4 that discards what is freed."""
        sh(f"mkfs.ext4 -q -F -E nodiscard {self.device}")
        point = self.directory / "mnt"
        point.mkdir(parents=True, exist_ok=True)
        sh(f"mount -o discard {self.device} {point}")
        try:
            yield point
        finally:
            sh(f"umount {point}")


def sh(script: str) -> None:
    done = subprocess.run(["bash", "-ec", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{script}: {done.stderr}"


def settle(device: str) -> None:
    """Wait for discards: ext4 sends those of freed blocks from a work queue, also while it is frozen."""
    before, quiet_since = "", time.monotonic()
    while time.monotonic() - quiet_since < 0.5:
        now = Path(f"/sys/class/block/{Path(device).name}/stat").read_text()
        if now != before or now.split()[IN_FLIGHT] != "0":  # after the one that is on its way there may be more
            before, quiet_since = now, time.monotonic()
        time.sleep(0.05)


@contextmanager
def at_rest(device: str, point: Path | None) -> Iterator[None]:
    """Have everything on the disk, and nobody writing."""
    fd = os.open(point or device, os.O_RDONLY)
    try:
        if point is None:
            os.fsync(fd)
            yield
        else:
            syscalls.freeze(fd)
            try:
                settle(device)
                yield
            finally:
                syscalls.thaw(fd)
    finally:
        os.close(fd)


def watched(make: Make, ground: Ground, work: Callable[[], None], point: Path | None = None) -> tuple[list[str], Marks]:
    """Do the work under the tracker and compare what changed with what was marked."""
    tracker, marks = make(ground.disk, ground.directory / "scratch"), Marks()
    with at_rest(ground.device, point):
        tracker.start(marks)
        before = ground.content()
    try:
        work()
        with at_rest(ground.device, point):
            tracker.barrier()
            changed = {i for i, (a, b) in enumerate(zip(before, ground.content(), strict=True)) if a != b}
            missing = changed - marks.marked
        complaints = [] if changed else ["the test itself changed nothing"]
        complaints += [f"changed, and not marked by the barrier: {sorted(missing)}"] if missing else []
        complaints += marks.losses
    finally:
        tracker.stop()
    return complaints, marks


def random_writes(path: str, size: int, direct: bool, lengths: tuple[int, ...]) -> None:
    """Write 600 pieces of random lengths at random places of the first `size` bytes."""
    chance = random.Random(5)
    area = mmap.mmap(-1, max(lengths))
    area[:] = os.urandom(max(lengths))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if direct else 0))
    try:
        os.ftruncate(fd, size) if os.path.isfile(path) else None
        for number in range(600):
            length = chance.choice(lengths)
            with memoryview(area) as view:
                os.pwrite(fd, view[:length], chance.randrange((size - length) // 4096) * 4096)
            if not direct and number % 16 == 0:
                os.fsync(fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def mapped_writes(path: Path, size: int) -> None:
    chance = random.Random(6)
    with path.open("w+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as area:
            for _ in range(400):
                at = chance.randrange(size // 4096) * 4096
                area[at : at + 64] = os.urandom(64)
            area.flush()


def of_disk(script: str) -> Callable[[Make, Ground], list[str]]:
    return lambda make, ground: watched(make, ground, lambda: sh(script.format(device=ground.device)))[0]


def of_files(script: str) -> Callable[[Make, Ground], list[str]]:
    def check(make: Make, ground: Ground) -> list[str]:
        with ground.mounted() as point:
            return watched(make, ground, lambda: sh(script.format(point=point)), point)[0]

    return check


def raw(direct: bool, *lengths: int) -> Callable[[Make, Ground], list[str]]:
    def check(make: Make, ground: Ground) -> list[str]:
        return watched(make, ground, lambda: random_writes(ground.device, 32 * MIB, direct, lengths))[0]

    return check


def filed(direct: bool, *lengths: int) -> Callable[[Make, Ground], list[str]]:
    def check(make: Make, ground: Ground) -> list[str]:
        with ground.mounted() as point:
            return watched(make, ground, lambda: random_writes(f"{point}/f", 24 * MIB, direct, lengths), point)[0]

    return check


def mapped(make: Make, ground: Ground) -> list[str]:
    with ground.mounted() as point:
        return watched(make, ground, lambda: mapped_writes(point / "f", 24 * MIB), point)[0]


def partition(make: Make, ground: Ground) -> list[str]:
    """A write of a partition is marked where the whole disk has it."""
    entry = struct.Struct("<B3sB3sII")
    rows = [entry.pack(0, b"", 0x83, b"", start * 2048, count * 2048) for start, count in ((1, 8), (32, 16))]
    table = bytes(440) + os.urandom(4) + bytes(2) + b"".join(rows) + bytes(32) + b"\x55\xaa"
    fd = os.open(ground.device, os.O_WRONLY)
    os.pwrite(fd, table, 0)
    os.fsync(fd)
    os.close(fd)
    digit = ground.device[-1].isdigit()
    sh(f"partx -a {ground.device} || partx -u {ground.device}")
    try:
        second = f"{ground.device}{'p' if digit else ''}2"
        deadline = time.monotonic() + 60
        while not os.path.exists(second) and time.monotonic() < deadline:
            time.sleep(0.1)
        script = f"dd if=/dev/urandom of={second} bs=64k seek=16 count=1 oflag=direct conv=notrunc"
        complaints, marks = watched(make, ground, lambda: sh(script))
        if marks.marked != {33 * 16}:
            complaints.append(f"marked {sorted(marks.marked)} instead of {33 * 16}")
        return complaints
    finally:
        deadline = time.monotonic() + 60
        while True:  # whoever looks at all disks of the host may hold a partition for a moment
            try:
                sh(f"partx -d {ground.device}")
                break
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


def reads(make: Make, ground: Ground) -> list[str]:
    tracker, marks = make(ground.disk, ground.directory / "scratch"), Marks()
    tracker.start(marks)
    try:
        sh(f"dd if={ground.device} of=/dev/null bs=1M count=32 iflag=direct; blockdev --flushbufs {ground.device}")
        tracker.barrier()
    finally:
        tracker.stop()
    return [*marks.losses, *([f"reads were marked: {sorted(marks.marked)}"] if marks.marked else [])]


def barriers(make: Make, ground: Ground) -> list[str]:
    """A write that was acknowledged before the barrier is marked after it, each time."""
    tracker, marks = make(ground.disk, ground.directory / "scratch"), Marks()
    tracker.start(marks)
    fd = os.open(ground.device, os.O_WRONLY | os.O_DIRECT)
    buffer, _ = syscalls.locked_buffer(4096)
    complaints = []
    try:
        for block in range(300):
            os.pwrite(fd, buffer, block * BLOCK_SIZE)
            tracker.barrier()
            if block not in marks.marked:
                complaints.append(f"block {block} was not marked by the barrier")
    finally:
        os.close(fd)
        tracker.stop()
    return complaints + marks.losses


def bursts(make: Make, ground: Ground) -> list[str]:
    """Four threads write as fast as they can: nothing is lost, and every block is marked."""
    tracker, marks = make(ground.disk, ground.directory / "scratch"), Marks()
    tracker.start(marks)
    span = min(ground.size, 64 * MIB) // 4
    code = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_DIRECT)\n"
        "area, start = mmap.mmap(-1, 4096), int(sys.argv[2])\n"
        "for at in range(start, start + int(sys.argv[3]), 4096): os.pwrite(fd, area, at)\n"
    )
    python = [*running_python(), "-c", code, ground.device]
    try:
        writers = [subprocess.Popen([*python, str(n * span), str(span)]) for n in range(4)]
        failed = [writer.wait() for writer in writers]
        tracker.barrier()
    finally:
        tracker.stop()
    missing = set(range(4 * span // BLOCK_SIZE)) - marks.marked
    return marks.losses + [f"not marked: {sorted(missing)}"] * bool(missing) + [f"{failed}"] * any(failed)


def overflow(make: Make, ground: Ground) -> list[str]:
    """Records that find no room are reported, once."""
    small: Make = lambda disk, scratch: BlktraceTracker((disk,), scratch, buffers=(4096, 2))  # noqa: E731
    tracker, marks = small(ground.disk, ground.directory / "scratch"), Marks()
    tracker.start(marks)
    try:
        random_writes(ground.device, 32 * MIB, True, (4096,))
        tracker.barrier()
        told = [reason for reason in marks.losses if "overflowed" in reason]
        tracker.barrier()
        marks.losses.clear()
        tracker.barrier()
    finally:
        tracker.stop()
    return [] if told and not marks.losses else [f"told {told}, and later {marks.losses}"]


CRASHER = """
import os, signal, sys
from pathlib import Path
from farshore_engine.agent.tracker.blktrace import BlktraceTracker
from farshore_engine.agent.tracker.interface import TrackedDisk
class Sink:
    def mark(self, *a): pass
    def lost(self, *a): pass
disk = TrackedDisk("disk", sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 1 << 20)
BlktraceTracker((disk,), Path(sys.argv[4])).start(Sink())
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_over(make: Make, ground: Ground) -> list[str]:
    """A tracer that a dead agent left is torn down by the next; one that may be somebody else's is left alone."""
    disk, scratch = ground.disk, ground.directory / "scratch"
    arguments = [disk.name, str(disk.major), str(disk.minor), str(scratch)]
    complaints = []

    def refusal(notes: Path) -> str:
        tracker = BlktraceTracker((disk,), notes)
        try:
            tracker.start(Marks())
        except OSError as error:
            return str(error)
        tracker.stop()
        return ""

    subprocess.run([*running_python(), "-c", CRASHER, *arguments], check=False)
    if "another program" not in (said := refusal(ground.directory / "elsewhere")):
        complaints.append(f"whose tracer it is cannot be known, and yet: {said!r}")
    if said := refusal(scratch):
        complaints.append(f"what a dead agent left was not torn down: {said}")
    living = BlktraceTracker((disk,), scratch)
    living.start(Marks())
    if "another program" not in (said := refusal(scratch)):
        complaints.append(f"a living agent's tracer was taken: {said!r}")
    living.stop()
    return complaints


def running_python() -> list[str]:
    """The command line of this interpreter, also when it is the bundle's, which its own loader runs."""
    from farshore_engine.agent.config import own_interpreter

    return list(own_interpreter())


FILES = (
    "for d in 1 2 3 4; do mkdir {point}/$d; for f in 1 2 3 4; do "
    "head -c 1M /dev/urandom >{point}/$d/$f; done; done; sync; rm -rf {point}/[1-4]"
)
PUNCH = "fallocate -l 40M {point}/f; sync; fallocate -p -o 1M -l 30M {point}/f"

CHECKS: dict[str, Callable[[Make, Ground], list[str]]] = {
    "direct": raw(True, 4096),
    "direct, large": raw(True, 4096, 65536, MIB),
    "buffered": raw(False, 512, 4096, 200_000),
    "mkfs.ext4": of_disk("mkfs.ext4 -q -F {device}"),
    "discard": of_disk("blkdiscard -o 1M -l 8M {device}"),
    "write zeroes": of_disk("blkdiscard -z -o 3M -l 5M {device}"),
    "three sectors": of_disk("dd if=/dev/urandom of={device} bs=512 seek=77 count=3 oflag=direct conv=notrunc"),
    "the last sector": of_disk(
        "dd if=/dev/urandom of={device} bs=512 count=1 conv=notrunc seek=$(($(blockdev --getsz {device}) - 1))"
    ),
    "partition": partition,
    "files: direct": filed(True, 4096),
    "files: buffered": filed(False, 1000, 4096, 65536),
    "files: mapped": mapped,
    "files: come and go, with discard": of_files(FILES),
    "files: allocate and punch": of_files(PUNCH),
    "reads": reads,
    "barriers": barriers,
    "bursts": bursts,
}
# What only blktrace promises.
BLKTRACE: dict[str, Callable[[Make, Ground], list[str]]] = {"overflow": overflow, "left over": left_over}


def main(device: str, directory: str, trackers: list[str]) -> None:
    ground = Ground(device, Path(directory))
    results: dict[str, dict[str, list[str]]] = {}
    for tracker in trackers:
        ground.fill()
        results[tracker] = {}
        for name, check in {**CHECKS, **(BLKTRACE if tracker == "blktrace" else {})}.items():
            try:
                results[tracker][name] = check(TRACKERS[tracker], ground)
            except (OSError, AssertionError) as error:
                results[tracker][name] = [f"{type(error).__name__}: {error}"]
            if name == "discard" or name == "files: allocate and punch":
                ground.fill()
    shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
