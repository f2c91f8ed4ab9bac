"""From the disk to the vault and back: what tracking missed, overflows, disks that go and come, holes, partitions."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.machine.agent_rig import RealDisk, run
from tests.machine.agent_slow_disk import write_direct
from tests.machine.reference_peer import mismatches
from tests.machine.replication_rig import MACHINE, Stage, open_stage

from farshore_engine.agent.agent import Variants
from farshore_engine.agent.config import DiskChoice
from farshore_engine.agent.disks import find_disks
from farshore_engine.agent.exclusion import partition_ranges, swap_blocks
from farshore_engine.agent.mounts import Swap
from farshore_engine.agent.tracker.interface import TrackedDisk, Tracker
from farshore_engine.agent.tracker.tracefs import TraceFsTracker
from farshore_engine.blocks import bitmap
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.replication import State
from farshore_engine.wire.messages import SILENT_CHANGE

MIB = 1 << 20


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


def told(stage: Stage) -> list[str]:
    """Reasons for which disks had to be compared, as status showed them: what is over soon may not be among them."""
    return [report.resync_reason for report in stage.control.reports[MACHINE] if report.resync_reason]


def alarms(logs: list[MutableMapping[str, Any]]) -> list[str]:
    """Every reason for which tracking was not trusted any more, from the log."""
    return [line["reason"] for line in logs if line["event"] == "resync required"]


def newest_equals(stage: Stage, disk: RealDisk) -> bool:
    """Whether the newest point has the disk as it is; nobody may write to it."""
    point = stage.points()[-1]
    name = next(d.id for d in point.manifest.disks if Path(disk.device).name == Path(d.name).name)
    image = stage.restored(point, name)
    try:
        return mismatches(image, disk.backing) == []
    finally:
        image.unlink()


def test_a_silent_change_is_an_alarm_and_the_next_point_is_exact(stage: Stage) -> None:
    """Bytes change below the block layer: no event, no mark. The sample after a point finds them."""
    disk = stage.rig.disk("", 16)
    write_direct(disk.device, os.urandom(8 * MIB), 0)
    with ExitStack() as stack:
        logs = stack.enter_context(structlog.testing.capture_logs())
        server = stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent())
        stage.wait_points(1)
        with disk.backing.open("r+b") as file:
            os.pwrite(file.fileno(), b"flipped", 3 * MIB)
        stage.control.wait_for(lambda: SILENT_CHANGE in " ".join(alarms(logs)))
        stage.control.wait_report(MACHINE, lambda r: r.state is State.REPLICATING and not r.resync_reason)
        stage.more_points()
        value = server._metrics.registry.get_sample_value(
            "farshore_silent_changes_total", {"machine": f"demo.{MACHINE}"}
        )
    assert value is not None and value >= 1
    assert any("block 48 of 256, not seen to be written" in reason for reason in alarms(logs))
    assert newest_equals(stage, disk)


def test_events_that_overflow_the_buffer_cost_a_comparison_and_no_wrong_point(stage: Stage) -> None:
    disk = stage.rig.disk("", 64)
    write_direct(disk.device, os.urandom(8 * MIB), 0)

    def tiny(disks: tuple[TrackedDisk, ...]) -> Tracker:
        return TraceFsTracker(disks, stage.directory / "scratch", "tiny", kib_per_cpu=4)

    with ExitStack() as stack:
        logs = stack.enter_context(structlog.testing.capture_logs())
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent(Variants(tracker=tiny)))
        stage.wait_points(1)
        command = ["fio", "--name=x", f"--filename={disk.device}", "--rw=randwrite", "--bs=4k", "--size=32m"]
        deadline = time.monotonic() + 240
        while "overflowed" not in " ".join(alarms(logs)):  # a disk may be too busy to write as fast as that
            assert time.monotonic() < deadline, logs
            run(*command, "--direct=1", "--ioengine=libaio", "--iodepth=16", "--io_size=32m", "--output=/dev/null")
            time.sleep(1)
        stage.control.wait_report(MACHINE, lambda r: r.state is State.REPLICATING and not r.resync_reason)
        stage.more_points()
    assert newest_equals(stage, disk)
    assert not any(stage.wrong_blocks().values())


def test_a_disk_that_is_missing_holds_points_up_until_it_returns_and_a_new_one_is_taken_up(stage: Stage) -> None:
    system, data = stage.rig.disk("", 32), stage.rig.disk("", 32)
    late = stage.rig.disk("", 48)
    for number, disk in enumerate((system, data, late), 1):
        write_direct(disk.device, os.urandom(4 * MIB), number * 4 * MIB)
    both = DiskChoice(include=(system.device, data.device))
    with ExitStack() as stack:
        stack.enter_context(stage.process_server())
        stage.assign()
        with stage.agent(disks=both):
            stage.wait_points(2)
        with stage.agent(disks=DiskChoice(include=(system.device,))):
            report = stage.control.wait_report(MACHINE, lambda r: r.state is State.BLOCKED)
            assert report.reason == "DiskMissing"
            assert report.message.startswith(f"no recovery point is taken: disk {Path(data.device).name} ")
            assert "Attach it again" in report.remedy
            count = report.point_count
            write_direct(system.device, os.urandom(MIB), 20 * MIB)
        write_direct(data.device, os.urandom(MIB), 20 * MIB)
        with stage.agent(disks=DiskChoice(include=(system.device, data.device, late.device))):
            report = stage.control.wait_report(MACHINE, lambda r: r.point_count >= count + 2)
            assert (report.state, report.remedy) == (State.REPLICATING, "")
    points = stage.points()
    assert all(len(point.manifest.disks) >= 2 for point in points), "no point lacks a disk"
    assert len(points[-1].manifest.disks) == 3
    assert all(newest_equals(stage, disk) for disk in (system, data, late))


def test_a_disk_that_grows_is_whole_in_the_next_point(stage: Stage) -> None:
    disk = stage.rig.disk("ext4", 64)
    with ExitStack() as stack:
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent())
        stack.enter_context(stage.rig.fio(disk))
        stage.wait_points(1)
        os.truncate(disk.backing, 128 * MIB + 4096)
        run("losetup", "-c", disk.device)
        write_direct(disk.device, os.urandom(MIB), 100 * MIB)  # behind the file system's end
        grown = stage.control.wait_for(
            lambda: (r := stage.control.last(MACHINE)) is not None and r.disks[0].size_bytes > 64 * MIB and r
        )
        assert grown
        stage.wait_points(grown.point_count + 2)
    assert stage.points()[-1].manifest.disks[0].size_bytes == 128 * MIB + 4096
    assert not any(wrong for name, wrong in stage.wrong_blocks().items() if name == stage.points()[-1].manifest.name)
    assert not any("restarted" in reason for reason in told(stage))


def test_what_is_discarded_or_zeroed_is_a_hole_in_the_next_point(stage: Stage) -> None:
    disk = stage.rig.disk("", 64)
    write_direct(disk.device, os.urandom(48 * MIB), 0)
    with ExitStack() as stack:
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent())
        stage.wait_points(1)
        full = stage.points()[-1]
        run("blkdiscard", "-o", str(1 * MIB), "-l", str(20 * MIB), disk.device)
        run("blkdiscard", "-z", "-o", str(24 * MIB), "-l", str(20 * MIB), disk.device)
        stage.more_points()
    after = [point for point in stage.points() if point.slot > full.slot]
    image = stage.restored(after[-1], after[-1].manifest.disks[0].id)
    assert mismatches(image, disk.backing) == []
    assert image.stat().st_blocks * 512 <= 9 * MIB, "what holds zeros takes no room in a hydrated disk"
    assert sum(point.manifest.bytes_stored for point in after) < MIB, "and none in the vault"


def _drop_partitions(device: str) -> None:
    """Take the partitions away; whoever looks at all disks of the host may hold one for a moment."""
    deadline = time.monotonic() + 120
    while subprocess.run(["partx", "-d", device], check=time.monotonic() > deadline).returncode:
        time.sleep(0.2)


def test_partitions_are_replicated_with_their_disk_and_swap_is_left_out(stage: Stage) -> None:
    disk = stage.rig.disk("", 96)
    table = "label: dos\nstart=1MiB,size=32MiB\nstart=33MiB,size=16MiB\nstart=49MiB,size=32MiB,type=82\n"
    subprocess.run(["sfdisk", "-q", disk.device], input=table, text=True, check=True)
    run("partx", "-u", disk.device)
    stack = ExitStack()
    stack.callback(_drop_partitions, disk.device)
    with stack:
        run("mkfs.ext4", "-q", "-F", f"{disk.device}p1")
        run("mkswap", f"{disk.device}p3")
        point = stage.directory / "p1"
        point.mkdir()
        run("mount", f"{disk.device}p1", str(point))
        stack.callback(run, "umount", str(point))
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent())
        stage.wait_points(1)
        (point / "file").write_bytes(os.urandom(3 * MIB))  # frozen with its file system
        write_direct(f"{disk.device}p2", os.urandom(MIB), 5 * MIB)  # nothing to freeze
        stage.more_points()
        found = next(d for d in find_disks(only=(disk.device,)) if d.path == disk.device)
        excluded = swap_blocks(found, [Swap(f"{disk.device}p3", False)])
        assert set(partition_ranges(found).values()) == {
            (0, 96 * MIB), (MIB, 32 * MIB), (33 * MIB, 16 * MIB), (49 * MIB, 32 * MIB),
        }  # fmt: skip
    assert not any(stage.wrong_blocks().values())
    expected = range((49 * MIB) // BLOCK_SIZE + 1, (81 * MIB) // BLOCK_SIZE)
    assert bitmap.indexes(excluded).tolist() == list(expected), "all but the header, which the machine needs to boot"
