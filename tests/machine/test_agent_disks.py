"""Disks grow and come while the agent runs: it follows, and no other disk is disturbed.

A loop disk that is in use cannot go; that is tested in a guest (test_agent_guest).
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.machine.agent_rig import RealDisk, Rig, RunningAgent, make_peer, running_agent
from tests.machine.agent_slow_disk import write_direct

from farshore_engine.agent.config import DiskChoice
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.machines import loop
from farshore_engine.wire.messages import SyncMode

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig").open()
    yield rig
    rig.close()


def grow(running: RunningAgent, disk: RealDisk, size: int) -> None:
    os.truncate(disk.backing, size)
    os.truncate(running.peer.replica(next(n for n, d in running.ids.items() if d is disk)), size)
    subprocess.run(["losetup", "-c", disk.device], check=True)


class Pluggable:
    """A loop disk with a number of its own, which nobody else is given while it is away."""

    def __init__(self, backing: Path, size: int) -> None:
        self.number = random.randrange(1000, 1_000_000)
        self.disk = RealDisk(backing, f"/dev/loop{self.number}", "")
        with backing.open("wb") as image:
            image.truncate(size)

    def plug(self) -> None:
        with open("/dev/loop-control", "rb") as control:
            fcntl.ioctl(control, LOOP_CTL_ADD, self.number)
        subprocess.run(["losetup", self.disk.device, str(self.disk.backing)], check=True)

    def unplug(self) -> None:
        loop.detach(self.disk.backing)
        with open("/dev/loop-control", "rb") as control:
            deadline = time.monotonic() + 120
            while Path(f"/sys/block/loop{self.number}").exists():
                with suppress(OSError):  # somebody still has it open
                    fcntl.ioctl(control, LOOP_CTL_REMOVE, self.number)
                assert time.monotonic() < deadline, f"{self.disk.device} cannot be removed"
                time.sleep(0.02)


@pytest.fixture
def plug(rig: Rig) -> Iterator[Pluggable]:
    pluggable = Pluggable(rig.store.path / "pluggable.img", 32 << 20)
    pluggable.plug()
    yield pluggable
    pluggable.unplug()


def wait_for(happened: Callable[[], object], what: str, timeout: float = 240) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def judged(running: RunningAgent, disks: list[RealDisk], point: str) -> list[tuple[str, int]]:
    """Take a point of the disks that are there now and return the blocks that are wrong."""
    running.rig.disks[:] = disks
    running.ids = {name: disk for name, disk in running.ids.items() if disk in disks}
    end = running.peer.take_point(point)
    assert {d.id for d in end.disks} == set(running.ids)
    return running.verdicts[end.id]


def test_a_disk_that_grows_is_followed_and_nothing_else_is_compared(rig: Rig) -> None:
    still, disk = rig.disk("", 32), rig.disk("", 32)
    for one in (still, disk):
        write_direct(one.device, os.urandom(4 << 20), 8 << 20)
    with running_agent(rig) as running:
        peer, both = running.peer, [still, disk]
        assert judged(running, both, "small") == []
        sent = peer.heard.data_bytes
        grow(running, disk, (48 << 20) + 4096)  # its last block is a short one
        write_direct(disk.device, os.urandom(BLOCK_SIZE), 40 << 20)
        wait_for(lambda: len(peer.heard.hellos) > 1, "the agent does not see that the disk grew")
        peer.wait_synced()
        write_direct(disk.device, os.urandom(4096), 48 << 20)
        assert judged(running, both, "large") == []
        sizes = {d.id: d.size for d in peer.heard.hellos[-1].disks}
        assert sizes == {still.id: 32 << 20, disk.id: (48 << 20) + 4096}
        assert peer.heard.modes[-1] == {still.id: SyncMode.DELTA, disk.id: SyncMode.DELTA}
        assert peer.heard.hellos[-1].baseline.session == peer.heard.hellos[0].baseline.session
        assert peer.heard.digests == 48 * 16 + 1, "of the disk that grew, and not of the other"
        assert peer.heard.data_bytes - sent <= 3 * BLOCK_SIZE


def test_a_disk_that_comes_is_taken_up_by_itself(rig: Rig, plug: Pluggable) -> None:
    first, second = rig.disk("ext4", 64), plug.disk
    write_direct(second.device, os.urandom(4 << 20), 8 << 20)
    wanted = DiskChoice(include=(first.device, second.device))
    names = {disk.device: disk.id for disk in (first, second)}
    plug.unplug()
    peer = make_peer(rig)
    try:
        with rig.fio(first), running_agent(rig, peer=peer, disks=wanted) as running:
            assert judged(running, [first], "alone") == []

            plug.plug()
            wait_for(lambda: len(peer.heard.hellos[-1].disks) == 2, "the disk that came is not seen")
            running.ids[names[second.device]] = second
            write_direct(second.device, os.urandom(BLOCK_SIZE), 20 << 20)
            assert judged(running, [first, second], "both") == []
            assert peer.heard.modes[-1] == {names[first.device]: SyncMode.DELTA, names[second.device]: SyncMode.FULL}
            assert peer.heard.digests == 0, "the disk that stayed was tracked all the time"
    finally:
        peer.close()


def test_a_file_system_made_meanwhile_renames_no_disk(rig: Rig) -> None:
    kept, disk = rig.disk("", 32), rig.disk("", 32)
    with running_agent(rig) as running:
        peer = running.peer
        peer.wait_synced()
        before = {d.id for d in peer.heard.hellos[0].disks}
        subprocess.run(["mkfs.ext4", "-q", "-F", disk.device], check=True)
        grow(running, kept, 48 << 20)
        wait_for(lambda: len(peer.heard.hellos) > 1, "the growth is not seen")
        assert {d.id for d in peer.heard.hellos[-1].disks} == before
        assert judged(running, [kept, disk], "after") == []
