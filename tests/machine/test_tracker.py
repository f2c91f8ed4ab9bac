"""The tracker conformance suite: whatever is written to a disk is marked, and what may have been missed is said."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from farshore_engine.agent import syscalls
from farshore_engine.agent.source import READ_SIZE, Reader
from farshore_engine.agent.tracker import instance, probe
from farshore_engine.agent.tracker.compare import CompareTracker
from farshore_engine.agent.tracker.instance import PREFIX, TraceFs
from farshore_engine.agent.tracker.interface import TrackedDisk, Tracker
from farshore_engine.agent.tracker.tracefs import TraceFsTracker
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.machines import loop

SIZE = 256 << 20
HOLE = hash(bytes(BLOCK_SIZE))


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


def sh(script: str, **values: object) -> None:
    subprocess.run(["bash", "-ec", script.format(**values)], check=True, capture_output=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop disk full of random bytes, so that a discard shows."""
    backing = tmp_path / "disk.img"
    with backing.open("wb") as image:
        for _ in range(SIZE >> 20):
            image.write(os.urandom(1 << 20))
    device = loop.attach(backing)
    yield device
    assert loop.detach(backing) == []


@pytest.fixture
def mounted(device: str, tmp_path: Path) -> Iterator[Path]:
    sh("mkfs.ext4 -q -F -E nodiscard {device}", device=device)
    point = tmp_path / "mnt"
    point.mkdir()
    sh("mount -o discard {device} {point}", device=device, point=point)
    yield point
    sh("umount {point}", point=point)


def disk_of(device: str) -> TrackedDisk:
    number = os.stat(device).st_rdev
    return TrackedDisk("disk", Path(device).name, os.major(number), os.minor(number), SIZE)


def tracefs(device: str, scratch: Path) -> Tracker:
    return TraceFsTracker((disk_of(device),), scratch, "test")


TRACKERS: list[Callable[[str, Path], Tracker]] = [pytest.param(tracefs, id="tracefs")]


def content(device: str) -> list[int]:
    """Return a hash of each block, read past the page cache."""
    reader = Reader(device)
    try:
        hashes = []
        for at in range(0, SIZE, READ_SIZE):
            data = reader.read(at, READ_SIZE)
            hashes += [hash(data[o : o + BLOCK_SIZE]) for o in range(0, len(data), BLOCK_SIZE)]
        return hashes
    finally:
        reader.close()


@contextmanager
def at_rest(device: str, point: Path | None) -> Iterator[None]:
    """Have everything on the disk, and nobody writing."""
    if point is None:
        sh("sync {device}", device=device)
        yield
        return
    fd = os.open(point, os.O_RDONLY)
    try:
        syscalls.freeze(fd)
        yield
    finally:
        syscalls.thaw(fd)
        os.close(fd)


def check(tracker: Tracker, device: str, script: str, point: Path | None = None) -> Marks:
    """Run the script under the tracker and compare what changed with what was marked."""
    marks = Marks()
    with at_rest(device, point):
        tracker.start(marks)
        before = content(device)
    try:
        sh(script, device=device, point=point)
        with at_rest(device, point):
            tracker.barrier()
            marked, after = set(marks.marked), content(device)
        changed = {i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
        assert changed, "the test itself changed nothing"
        # ext4 discards freed blocks from a work queue, also while it is frozen: those may come behind the barrier.
        assert {i for i in changed - marked if after[i] != HOLE} == set()
        tracker.barrier()
        assert changed <= marks.marked
        assert not marks.losses
    finally:
        tracker.stop()
    return marks


FILES = (
    "for d in 1 2 3 4 5 6 7 8; do mkdir {point}/$d; for f in 1 2 3 4 5 6 7 8; do "
    "head -c 1M /dev/urandom >{point}/$d/$f; done; done; sync; rm -rf {point}/[1-8]"
)
FIO = "fio --name=x --size=32m --output=/dev/null --randrepeat=0 --thread "


@pytest.mark.parametrize("make", TRACKERS)
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(FIO + "--filename={device} --rw=randwrite --bs=4k --direct=1", id="direct"),
        pytest.param(FIO + "--filename={device} --rw=randwrite --bs=4k-256k --direct=0", id="buffered raw"),
        pytest.param("mkfs.ext4 -q -F {device}", id="mkfs.ext4"),
        pytest.param("mkfs.vfat {device}", id="mkfs.vfat"),
        pytest.param("blkdiscard -o 1M -l 8M {device}", id="discard"),
        pytest.param("blkdiscard -z -o 3M -l 5M {device}", id="write zeroes"),
        pytest.param("dd if=/dev/urandom of={device} bs=512 seek=77 count=3 oflag=direct", id="three sectors"),
        pytest.param("dd if=/dev/urandom of={device} bs=512 seek=524287 count=1 conv=notrunc", id="the last sector"),
    ],
)  # fmt: skip
def test_writes_of_the_whole_disk_are_marked(
    make: Callable[[str, Path], Tracker], device: str, tmp_path: Path, script: str
) -> None:
    check(make(device, tmp_path / "scratch"), device, script)


@pytest.mark.parametrize("make", TRACKERS)
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(FIO + "--directory={point} --rw=randwrite --bs=4k --direct=1", id="direct"),
        pytest.param(FIO + "--directory={point} --rw=randwrite --bsrange=1k-64k --fsync=16", id="buffered"),
        pytest.param(FIO + "--directory={point} --rw=randwrite --bs=4k --ioengine=mmap", id="mapped"),
        pytest.param(FILES, id="files come and go, with discard"),
        pytest.param("fallocate -l 40M {point}/f; sync; fallocate -p -o 1M -l 30M {point}/f", id="allocate and punch"),
    ],
)
def test_writes_of_a_file_system_are_marked(
    make: Callable[[str, Path], Tracker], device: str, mounted: Path, tmp_path: Path, script: str
) -> None:
    check(make(device, tmp_path / "scratch"), device, script, point=mounted)


@pytest.mark.parametrize("make", TRACKERS)
def test_writes_of_a_partition_are_marked_where_the_disk_sees_them(
    make: Callable[[str, Path], Tracker], device: str, tmp_path: Path
) -> None:
    sh(
        "printf 'start=1MiB,size=16MiB\\nstart=100MiB,size=32MiB\\n' | sfdisk -q {device}; partx -u {device}",
        device=device,
    )
    script = "dd if=/dev/urandom of={device}p2 bs=64k seek=16 count=1 oflag=direct"
    try:
        marks = check(make(device, tmp_path / "scratch"), device, script)
    finally:
        sh("partx -d {device}", device=device)
    assert marks.marked == {101 * 16}


@pytest.mark.parametrize("make", TRACKERS)
def test_reads_are_not_marked(make: Callable[[str, Path], Tracker], device: str, tmp_path: Path) -> None:
    tracker, marks = make(device, tmp_path / "scratch"), Marks()
    tracker.start(marks)
    sh("dd if={device} of=/dev/null bs=1M count=64 iflag=direct; blockdev --flushbufs {device}", device=device)
    tracker.barrier()
    tracker.stop()
    assert (marks.marked, marks.losses) == (set(), [])


@pytest.mark.parametrize("make", TRACKERS)
def test_a_write_acknowledged_before_the_barrier_is_marked_after_it(
    make: Callable[[str, Path], Tracker], device: str, tmp_path: Path
) -> None:
    tracker, marks = make(device, tmp_path / "scratch"), Marks()
    tracker.start(marks)
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    buffer, _ = syscalls.locked_buffer(4096)
    try:
        for block in range(300):
            os.pwrite(fd, buffer, block * BLOCK_SIZE)
            tracker.barrier()
            assert block in marks.marked
    finally:
        os.close(fd)
        tracker.stop()
    assert marks.losses == []


def burst(device: str) -> None:
    sh(FIO + "--filename={device} --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16", device=device)


def test_a_buffer_that_overflows_is_reported(device: str, tmp_path: Path) -> None:
    marks = Marks()
    tracker = TraceFsTracker((disk_of(device),), tmp_path / "scratch", "test", kib_per_cpu=4)
    tracker.start(marks)
    try:
        burst(device)
        tracker.barrier()
        assert any("overflowed" in reason for reason in marks.losses)
        time.sleep(0.3)
        tracker.barrier()
        marks.losses.clear()
        tracker.barrier()
        assert marks.losses == [], "a loss is told once"
    finally:
        tracker.stop()


def test_events_that_nobody_counted_as_lost_are_missed_in_the_balance(device: str, tmp_path: Path) -> None:
    """Somebody switches the events off behind the tracker's back, writes, and switches them on again."""
    marks = Marks()
    tracker = TraceFsTracker((disk_of(device),), tmp_path / "scratch", "test")
    tracker.start(marks)
    try:
        path = next(p for p in TraceFs(tmp_path / "other").root.joinpath("instances").iterdir() if "-test-" in p.name)
        (path / "events/enable").write_text("0")
        sh("dd if=/dev/urandom of={device} bs=4k count=1 oflag=direct", device=device)
        for name in ("block_bio_queue", "block_rq_complete", "block_bio_complete"):
            (path / "events/block" / name / "enable").write_text("1")
        tracker.barrier()
    finally:
        tracker.stop()
    assert marks.losses == ["8 sectors were written that no event told of"]


def test_many_writes_balance_to_the_sector(device: str, tmp_path: Path) -> None:
    marks = Marks()
    tracker = TraceFsTracker((disk_of(device),), tmp_path / "scratch", "test")
    tracker.start(marks)
    try:
        for _ in range(4):
            burst(device)
        tracker.barrier()
        assert tracker.events_seen >= 4 * 8192 * 2
    finally:
        tracker.stop()
    assert marks.losses == []


CRASHER = """
import os, sys, signal
from pathlib import Path
from farshore_engine.agent.tracker.interface import TrackedDisk
from farshore_engine.agent.tracker.tracefs import TraceFsTracker
class Sink:
    def mark(self, *a): pass
    def lost(self, *a): pass
disk = TrackedDisk("disk", sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 1 << 20)
TraceFsTracker((disk,), Path(sys.argv[4]), "crash").start(Sink())
os.kill(os.getpid(), signal.SIGKILL)
"""


def instances(scratch: Path) -> list[str]:
    tracefs = TraceFs(scratch)
    try:
        return [p.name for p in (tracefs.root / "instances").iterdir() if p.name.startswith(PREFIX)]
    finally:
        tracefs.close()


def test_what_a_dead_agent_left_in_the_kernel_is_removed_and_a_living_one_kept(device: str, tmp_path: Path) -> None:
    disk = disk_of(device)
    living, marks = TraceFsTracker((disk,), tmp_path / "a", "living"), Marks()
    living.start(marks)
    arguments = [disk.name, str(disk.major), str(disk.minor), str(tmp_path / "b")]
    subprocess.run([sys.executable, "-c", CRASHER, *arguments], check=False)
    assert any("-crash-" in name for name in instances(tmp_path / "c"))
    second = TraceFsTracker((disk,), tmp_path / "d", "second")
    second.start(Marks())
    names = instances(tmp_path / "c")
    second.stop()
    sh("dd if=/dev/urandom of={device} bs=4k count=1 oflag=direct", device=device)
    living.barrier()
    living.stop()
    assert not any("-crash-" in name for name in names)
    assert 0 in marks.marked
    assert not any("-living-" in name or "-second-" in name for name in instances(tmp_path / "c"))


def test_without_tracefs_all_blocks_are_compared_and_the_reason_is_told(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(instance, "_mounted", list)
    monkeypatch.setattr(syscalls, "mount", refuse)
    marks = Marks()
    choice = probe.start_best((disk_of(device),), tmp_path / "scratch", "test", marks)
    assert isinstance(choice.tracker, CompareTracker)
    assert choice.reason == ("tracefs: [Errno 1] Operation not permitted; compare: nothing better works")
    choice.tracker.barrier()
    assert len(marks.losses) == 2, "at start and at each barrier"
