"""The tracker conformance suite: whatever is written to a disk is marked, and what may have been missed is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.machine.tracker_conformance import CHECKS, TRACKERS, Ground, Make, Marks, of_disk, of_files

from farshore_engine.agent import syscalls
from farshore_engine.agent.tracker import instance, probe
from farshore_engine.agent.tracker.compare import CompareTracker
from farshore_engine.agent.tracker.instance import PREFIX, TraceFs
from farshore_engine.agent.tracker.interface import TrackedDisk
from farshore_engine.agent.tracker.tracefs import TraceFsTracker
from farshore_engine.machines import loop

SIZE = 96 << 20
FIO = "fio --name=x --size=32m --output=/dev/null --randrepeat=0 --thread "
CONFORMANCE = dict(CHECKS) | {
    "mkfs.vfat": of_disk("mkfs.vfat {device}"),
    "fio: direct": of_disk(FIO + "--filename={device} --rw=randwrite --bs=4k --direct=1"),
    "fio: buffered": of_files(FIO + "--directory={point} --rw=randwrite --bsrange=1k-64k --fsync=16"),
    "fio: mapped": of_files(FIO + "--directory={point} --rw=randwrite --bs=4k --ioengine=mmap"),
}


def sh(script: str, **values: object) -> None:
    subprocess.run(["bash", "-ec", script.format(**values)], check=True, capture_output=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop disk with something everywhere."""
    backing = tmp_path / "disk.img"
    with backing.open("wb") as image:
        image.truncate(SIZE)
    device = loop.attach(backing)
    Ground(device, tmp_path).fill()
    yield device
    assert loop.detach(backing, patience=60) == []


def disk_of(device: str) -> TrackedDisk:
    return Ground(device, Path()).disk


@pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in CONFORMANCE.items()])
def test_tracefs_keeps_the_promises_of_a_tracker(
    check: Callable[[Make, Ground], list[str]], device: str, tmp_path: Path
) -> None:
    """The same table runs for every tracker in a guest, where blktrace works too (test_agent_guest)."""
    complaints = check(TRACKERS["tracefs"], Ground(device, tmp_path / "ground"))
    for again in range(4):
        if any("overflowed" in one for one in complaints):  # told, where the tracker's thread did not run for long
            complaints = check(TRACKERS["tracefs"], Ground(device, tmp_path / f"again{again}"))
    assert complaints == []


def burst(device: str) -> None:
    sh(FIO + "--filename={device} --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=16", device=device)


def test_a_buffer_that_overflows_is_reported(device: str, tmp_path: Path) -> None:
    marks = Marks()
    tracker = TraceFsTracker((disk_of(device),), tmp_path / "scratch", "test", kib_per_cpu=4)
    tracker.start(marks)
    try:
        with tracker._drain_lock:  # else a slow disk may never be ahead of who drains
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
        mine = f"{PREFIX}test-{os.getpid()}-"  # an agent that another suite runs may be called test-something
        found = TraceFs(tmp_path / "other").root.joinpath("instances").iterdir()
        path = next(p for p in found if p.name.startswith(mine))
        (path / "events/enable").write_text("0")
        sh("dd if=/dev/urandom of={device} bs=4k count=1 oflag=direct", device=device)
        for name in ("block_bio_queue", "block_rq_complete", "block_bio_complete"):
            (path / "events/block" / name / "enable").write_text("1")
        tracker.barrier()
    finally:
        tracker.stop()
    assert marks.losses == ["8 sectors were written that no event told of"]


def test_many_writes_balance_to_the_sector(device: str, tmp_path: Path) -> None:
    for _ in range(8):
        marks = Marks()
        tracker = TraceFsTracker((disk_of(device),), tmp_path / "scratch", "test")
        tracker.start(marks)
        try:
            for _ in range(4):
                burst(device)
            tracker.barrier()
        finally:
            tracker.stop()
        if not any("overflowed" in loss for loss in marks.losses):  # told, where the tracker's thread did not run
            assert marks.losses == []
            assert tracker.events_seen >= 4 * 8192 * 2
            return
    raise AssertionError(marks.losses)


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A loop disk on a file in memory, empty: as fast as a disk can be here."""
    place = tmp_path / "memory"
    place.mkdir()
    sh("mount -t tmpfs -o size=600m tmpfs {place}", place=place)
    backing = place / "disk.img"
    backing.touch()
    os.truncate(backing, 512 << 20)
    device = loop.attach(backing)
    yield device, backing
    assert loop.detach(backing, patience=60) == []
    sh("umount {place}", place=place)


def test_as_many_writes_as_the_host_can_do_lose_no_event(memory_disk: tuple[str, Path], tmp_path: Path) -> None:
    """Every other 64 KiB is written sector by sector, as many at once as there can be, for some seconds.

    On a host so busy that the tracker's thread does not run for a second, its buffer may overflow, which is told.
    What may never be is a block that is written and neither marked nor told of.
    """
    device, backing = memory_disk
    command = ["fio", "--name=x", f"--filename={device}", "--rw=randwrite", "--bs=512", "--ioengine=libaio"]
    command += ["--iodepth_batch_submit=16", "--iodepth_batch_complete_max=16"]
    command += ["--iodepth=64", "--direct=1", "--numjobs=2", "--size=256m", "--offset_increment=256m", "--thread"]
    command += ["--zonemode=strided", "--zonesize=64k", "--zonerange=128k", "--time_based", "--runtime=4"]
    command += ["--group_reporting", "--output-format=json"]
    for _ in range(8):
        marks = Marks()
        tracker = TraceFsTracker((disk_of(device),), tmp_path / "scratch", "test")
        tracker.start(marks)
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            tracker.barrier()
        finally:
            tracker.stop()
        job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["write"]
        print(f"{job['iops']:,.0f} writes a second, {tracker.events_seen:,} events, {marks.losses or 'none lost'}")
        with backing.open("rb") as image:
            written = {b for b, data in enumerate(iter(lambda: image.read(65536), b"")) if data.strip(b"\0")}
        assert len(written) > 1000
        assert written <= marks.marked or marks.losses
        if not marks.losses:
            assert written == marks.marked, "and nothing else is marked"
            assert tracker.events_seen > job["total_ios"], "writes side by side may complete as one"
            return
    raise AssertionError("events were lost each time")


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
    for _ in range(20):  # an agent that another test starts just then removes it too
        subprocess.run([sys.executable, "-c", CRASHER, *arguments], check=False)
        if any("-crash-" in name for name in instances(tmp_path / "c")):
            break
    else:
        pytest.fail("what died left nothing")
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


def test_without_tracefs_the_reason_is_told_and_so_is_why_blktrace_is_not_used(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(instance, "_mounts", list)
    monkeypatch.setattr(syscalls, "mount", refuse)
    marks = Marks()
    choice = probe.start_best((disk_of(device),), tmp_path / "scratch", "test", marks)
    assert isinstance(choice.tracker, CompareTracker)
    refused = "[Errno 1] Operation not permitted"
    assert choice.reason == f"tracefs: {refused}; blktrace: {refused}; compare: nothing better works"
    choice.tracker.barrier()
    assert len(marks.losses) == 2, "at start and at each barrier"


def test_where_only_tracefs_is_shut_blktrace_is_used_or_its_refusal_told(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that is locked down shuts the files of blktrace too."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "tracing is switched off")

    monkeypatch.setattr(probe.TraceFsTracker, "start", refuse)
    for _ in range(2):  # a second time: the first attempt left nothing in the kernel, else the disk would be taken
        choice = probe.start_best((disk_of(device),), tmp_path / "scratch", "test", Marks())
        choice.tracker.stop()
        tracefs, blktrace, *rest = choice.reason.split("; ")
        assert tracefs == "tracefs: [Errno 1] tracing is switched off"
        if choice.tracker.name == "compare":
            assert blktrace.startswith("blktrace: [Errno 1] Operation not permitted")
            assert rest == ["compare: nothing better works"]
        else:
            assert (blktrace, rest) == ("blktrace: block events can be traced", [])
