"""Each guard of a point, and the wrong point that appears when it is taken away.

Every test runs twice: with the guard, where points equal the disks, and without it, where the comparison must find the
difference. The races are widened until they are certain: a disk that holds writes, a hook between read and frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.agent_rig import RealDisk, Rig, RunningAgent, running_agent
from tests.machine.agent_slow_disk import SlowDisk, write_direct

from farshore_engine.agent import sampling
from farshore_engine.agent.agent import Variants
from farshore_engine.agent.source import Reader
from farshore_engine.agent.tracker.interface import TrackedDisk, Tracker
from farshore_engine.agent.tracker.tracefs import COMPLETIONS, EVENTS, QUEUE, TraceFsTracker
from farshore_engine.blocks.grid import BLOCK_SIZE

SIZE = 64 << 20
AT = 100  # the block that the tests write


@pytest.fixture(autouse=True)
def nothing_else_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample after a point would read the block in the middle of a race, or heal what is to be found wrong."""
    monkeypatch.setattr(sampling.Sample, "check", lambda self: [])


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig").open()
    yield rig
    rig.close()


@pytest.fixture
def slow(rig: Rig) -> Iterator[SlowDisk]:
    with SlowDisk(rig.store.path / "slow.img", rig.directory / "slow", SIZE) as disk:
        rig.disks.append(RealDisk(disk.backing, disk.device, ""))
        write_direct(disk.device, os.urandom(1 << 20), AT * BLOCK_SIZE)
        yield disk


def tracking(rig: Rig, events: tuple[str, ...]) -> Variants:
    def make(disks: tuple[TrackedDisk, ...]) -> Tracker:
        return TraceFsTracker(disks, rig.directory / "scratch", "guards", events)

    return Variants(tracker=make)


def wrong_blocks(running: RunningAgent, point: str) -> list[int]:
    """Take a point and return the blocks in which it differs from the disk inside the freeze."""
    end = running.peer.take_point(point)
    return [block for _, block in running.verdicts[end.id]]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(EVENTS, [], id="with the mark at queue"),
        pytest.param(COMPLETIONS, [AT], id="without it the point is wrong"),
    ],
)
def test_a_write_that_has_landed_and_is_not_completed(
    rig: Rig, slow: SlowDisk, events: tuple[str, ...], expected: list[int]
) -> None:
    """The data is on the disk, and so in the truth, while nobody has heard of the end of the write."""
    with running_agent(rig, tracking(rig, events)) as running:
        running.peer.wait_synced()
        assert wrong_blocks(running, "before") == []
        slow.hold("after")
        writer = slow.write_in_background(os.urandom(4096), AT * BLOCK_SIZE)
        found = wrong_blocks(running, "during")
        slow.release()
        writer.join()
    assert found == expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(EVENTS, [], id="with the mark at completion"),
        pytest.param((QUEUE,), [AT], id="without it the point is wrong"),
    ],
)
def test_a_write_that_lands_after_its_block_was_read(
    rig: Rig, slow: SlowDisk, events: tuple[str, ...], expected: list[int]
) -> None:
    """The write is queued, its mark is taken and the block read; only then the data reaches the disk."""
    with running_agent(rig, tracking(rig, events)) as running:
        running.peer.wait_synced()
        slow.hold("before")
        writer = slow.write_in_background(os.urandom(4096), AT * BLOCK_SIZE)
        assert wrong_blocks(running, "during") == []
        slow.release()
        writer.join()
        found = wrong_blocks(running, "after")
    assert found == expected


@pytest.mark.parametrize(
    ("clear_before_read", "expected"),
    [
        pytest.param(True, [], id="with the mark cleared before the read"),
        pytest.param(False, [AT], id="cleared after it the point is wrong"),
    ],
)
def test_a_write_between_the_read_and_the_frame(rig: Rig, clear_before_read: bool, expected: list[int]) -> None:
    disk = rig.disk("", 64)
    armed: list[bytes] = []
    trackers: list[Tracker] = []

    def after_read(offset: int, length: int) -> None:
        if armed and offset <= AT * BLOCK_SIZE < offset + length:
            write_direct(disk.device, armed.pop(), AT * BLOCK_SIZE)
            trackers[0].barrier()  # the tracker hears of it before the frame is made

    def tracker(disks: tuple[TrackedDisk, ...]) -> Tracker:
        trackers.append(TraceFsTracker(disks, rig.directory / "scratch", "guards"))
        return trackers[0]

    variants = Variants(lambda path: Reader(path, after_read=after_read), tracker, clear_before_read)
    with running_agent(rig, variants) as running:
        running.peer.wait_synced()
        assert wrong_blocks(running, "before") == []
        armed.append(os.urandom(4096))
        # More than may be left for the freeze, so that there is a round before it.
        write_direct(disk.device, os.urandom(1 << 20) * 20, AT * BLOCK_SIZE)
        found = wrong_blocks(running, "during")
        assert not armed, "the race did not happen"
    assert found == expected


@pytest.mark.parametrize(
    ("direct", "wrong"),
    [
        pytest.param(True, False, id="with direct reads"),
        pytest.param(False, True, id="read through the page cache the point is wrong"),
    ],
)
def test_what_a_file_system_writes_past_the_page_cache_of_its_device(rig: Rig, direct: bool, wrong: bool) -> None:
    disk = rig.disk("ext4", 64)
    assert disk.mount is not None
    with running_agent(rig, Variants(reader=lambda path: Reader(path, direct=direct))) as running:
        running.peer.wait_synced()
        (disk.mount / "file").write_bytes(os.urandom(4 << 20))
        found = wrong_blocks(running, "after")
    assert bool(found) is wrong
