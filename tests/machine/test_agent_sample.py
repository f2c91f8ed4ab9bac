"""A write that tracking missed without a word is found by re-reading, told, and healed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.agent_rig import RealDisk, Rig, RunningAgent, running_agent
from tests.machine.agent_slow_disk import SlowDisk, write_direct

from farshore_engine.agent import sampling
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.wire.messages import SILENT_CHANGE, SyncMode

SIZE_MIB = 16
AT = 100  # the block that changes


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig").open()
    yield rig
    rig.close()


def write_behind_the_tracker(disk: RealDisk, data: bytes, offset: int) -> None:
    """Change the loop device's file: no block event tells of it."""
    with disk.backing.open("r+b") as file:
        os.pwrite(file.fileno(), data, offset)
        os.fsync(file.fileno())


def points_until_alarm(running: RunningAgent, most: int) -> int:
    """Take points until one is followed by an alarm; returns how many it took."""
    for number in range(1, most + 1):
        before = running.peer.heard.sampled
        running.peer.take_point(f"p{number}")
        deadline = time.monotonic() + 60
        while running.peer.heard.sampled == before and time.monotonic() < deadline:
            time.sleep(0.02)  # the sample comes after the point is committed
        time.sleep(0.3)
        if running.peer.heard.resyncs:
            return number
    return most + 1


def test_a_change_that_no_event_told_of_is_an_alarm_and_is_healed(rig: Rig) -> None:
    disk = rig.disk("", SIZE_MIB)
    write_direct(disk.device, os.urandom(8 << 20), 0)
    with running_agent(rig) as running:
        peer = running.peer
        peer.wait_synced()
        assert running.verdicts[peer.take_point("before").id] == []
        write_behind_the_tracker(disk, os.urandom(100), AT * BLOCK_SIZE)
        # 16 stretches, 4 for each point: four points see the whole disk, and the alarm of one may come after the next.
        assert points_until_alarm(running, 9) <= 9
        assert peer.heard.resyncs[0].reason.startswith(SILENT_CHANGE)
        assert f"block {AT} of 256" in peer.heard.resyncs[0].reason
        peer.wait_synced()
        sent = peer.heard.data_bytes
        assert running.verdicts[peer.take_point("after").id] == []
        assert [p.phase for p in peer.heard.progress][-1] is SyncMode.RESYNC
        assert peer.heard.data_bytes == sent, "the comparison sent the block already"
        assert len(peer.heard.resyncs) == 1, "an alarm is told once"


def test_without_the_sample_the_wrong_block_stays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the guard is for: the points go on, and each of them is wrong."""
    monkeypatch.setattr(sampling.Sample, "check", lambda self: [])
    disk = rig.disk("", SIZE_MIB)
    write_direct(disk.device, os.urandom(8 << 20), 0)
    with running_agent(rig) as running:
        running.peer.wait_synced()
        running.peer.take_point("before")
        write_behind_the_tracker(disk, os.urandom(100), AT * BLOCK_SIZE)
        for number in range(6):
            end = running.peer.take_point(f"p{number}")
            assert [block for _, block in running.verdicts[end.id]] == [AT]
        assert running.peer.heard.resyncs == []


def test_a_disk_in_use_gives_no_false_alarm(rig: Rig) -> None:
    disk = rig.disk("ext4", 64)
    with rig.fio(disk), running_agent(rig) as running:
        for number in range(8):
            end = running.peer.take_point(f"p{number}", timeout=240)
            assert running.verdicts[end.id] == []
            time.sleep(0.4)
        deadline = time.monotonic() + 60
        while running.peer.heard.sampled == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running.peer.heard.sampled > 0
        assert running.peer.heard.resyncs == []


def test_a_write_that_has_landed_and_is_not_completed_is_no_alarm(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first mark was taken with the point, its second comes with the completion: the block only looks clean."""
    monkeypatch.setattr(sampling, "QUIET_TRIES", 3)
    with SlowDisk(rig.store.path / "slow.img", rig.directory / "slow", 4 << 20) as slow:
        rig.disks.append(RealDisk(slow.backing, slow.device, ""))
        write_direct(slow.device, os.urandom(1 << 20), 0)
        with running_agent(rig) as running:
            peer = running.peer
            peer.wait_synced()
            slow.hold("before")
            writer = slow.write_in_background(os.urandom(4096), 5 * BLOCK_SIZE)
            peer.take_point("during")
            # It lands now; for the kernel it is still on its way.
            with slow.backing.open("r+b") as file:
                os.pwrite(file.fileno(), os.urandom(4096), 5 * BLOCK_SIZE)
            peer.take_point("again")
            deadline = time.monotonic() + 60
            while peer.heard.sampled == 0 and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(1.0)
            assert peer.heard.sampled > 0
            assert peer.heard.resyncs == []
            slow.release()
            writer.join()
            assert running.verdicts[peer.take_point("after").id] == []
            assert peer.heard.resyncs == []


def test_the_whole_disk_is_sampled_before_any_of_it_comes_again() -> None:
    cursor = sampling.SampleCursor()
    blocks = 16 * 1000 + 7
    seen: list[int] = []
    while len(seen) < 1000:
        seen += [first for first, _ in cursor.take("disk", blocks)]
    assert len(set(seen)) == len(seen) == 1000
    early = sorted(seen[:40])
    assert max(b - a for a, b in itertools.pairwise(early)) < blocks / 8, "they are spread"


def test_a_sample_is_bounded() -> None:
    cursor = sampling.SampleCursor()
    tebibyte = (1 << 40) // BLOCK_SIZE
    assert sum(count for _, count in cursor.take("large", tebibyte)) * BLOCK_SIZE <= 16 << 20
    assert sum(count for _, count in cursor.take("small", 5)) == 5
