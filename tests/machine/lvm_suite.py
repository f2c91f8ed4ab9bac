"""Points by way of a snapshot below LVM, as a program that runs in a guest whose kernel has device-mapper.

It needs nothing but what the agent's bundle carries, LVM's tools and a disk to write on:

    python lvm_suite.py DEVICE DIRECTORY      # prints {check: [complaint]}
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from farshore_engine.agent import snapshot as snapshots
from farshore_engine.agent.config import own_interpreter
from farshore_engine.agent.freezing import FreezeFailed, Freezer
from farshore_engine.agent.hooks import Hooks
from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.agent.lvm import NoSnapshot
from farshore_engine.agent.mounts import Mount, current_mounts
from farshore_engine.agent.point import PointMaker, PointOrder, PointResult
from farshore_engine.agent.replicate import Replicator
from farshore_engine.agent.snapshot import Snapshot
from farshore_engine.agent.source import READ_SIZE, Reader
from farshore_engine.agent.tracker.interface import TrackedDisk
from farshore_engine.agent.tracker.probe import start_best
from farshore_engine.agent.watchdog import Watchdog
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count
from farshore_engine.wire.messages import Consistency, Data, Message, Zeros

DISK = "disk"
GROUP, VOLUME = "farshoretest", "files-a"
MOUNT = "/mnt/lvm-suite"
BUFFER = 2 << 20  # LVM's metadata, which is read inside the freeze, takes half of it
CHURN = 4  # MiB that are written over and over: more than fits
PATIENCE = 300.0


def sh(command: str) -> str:
    return subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout


@dataclass
class Replica:
    """Takes frames like a process server; `held` is called for each, and may take as long as it likes."""

    path: Path
    ledger: Ledger
    held: Callable[[], None] = lambda: None

    def deliver(self, message: Message, payload: bytes = b"") -> None:
        assert isinstance(message, Data | Zeros)
        at = 0
        with self.path.open("r+b") as file:
            for run in message.runs:
                file.seek(run.offset)
                file.write(payload[at : at + run.length] if isinstance(message, Data) else bytes(run.length))
                at += run.length
        self.ledger.acknowledge(message.seq)
        self.held()

    def await_digests(self) -> Any:
        raise NotImplementedError

    def passed(self, size: int) -> None:
        pass

    def check_point(self, point: str) -> None:
        if self.ledger.waiting(Need.UNVERIFIED):
            raise FreezeFailed("ResyncRequired", "events were lost")


@dataclass
class Ground:
    """A volume group on the disk, one volume with a file system, and an agent's parts without a connection."""

    device: str
    directory: Path
    complaints: dict[str, list[str]] = field(default_factory=dict)

    def run(self) -> dict[str, list[str]]:
        self.build()
        size = Path(f"/sys/class/block/{Path(self.device).name}/size")
        self.size = int(size.read_text()) * 512
        number = os.stat(self.device).st_rdev
        disk = TrackedDisk(DISK, Path(self.device).name, os.major(number), os.minor(number), self.size)
        self.ledger = Ledger({DISK: block_count(self.size)})
        choice = start_best((disk,), self.directory / "scratch", "lvm", self.ledger)
        self.readers = {DISK: Reader(self.device)}
        watchdog = Watchdog(own_interpreter())
        try:
            with ThreadPoolExecutor(4) as workers:
                freezer = Freezer(watchdog, self.directory / "run")
                hooks = Hooks(self.directory / "run", self.directory / "hooks.d")
                self.maker = PointMaker(
                    self.ledger,
                    choice.tracker,
                    self.readers,
                    freezer,
                    workers,
                    (BUFFER, BUFFER),
                    hooks,
                    self.keep_truth,
                )
                self.replica = Replica(self.directory / "replica", self.ledger)
                self.replica.path.write_bytes(b"")
                os.truncate(self.replica.path, self.size)
                self.replicator = Replicator(self.ledger, self.readers, self.replica, workers, bytes(32))
                for name, check in CHECKS.items():
                    self.complaints[name] = list(check(self))
        finally:
            choice.tracker.stop()
            watchdog.stop()
            self.readers[DISK].close()
            sh(f"umount {MOUNT}; vgremove -ffy {GROUP}; pvremove -ffy {self.device}")
        return self.complaints

    def build(self) -> None:
        """The volume is made of two parts that are not in order, so that extents matter."""
        sh(f"wipefs -aq {self.device}; pvcreate -qffy {self.device}; vgcreate -q -s 1m {GROUP} {self.device}")
        sh(f"lvcreate -qy -L 8m -n gap {GROUP}; lvcreate -qy -L 8m -n {VOLUME} {GROUP}; lvremove -qy {GROUP}/gap")
        sh(f"lvextend -q -L 24m {GROUP}/{VOLUME}")
        sh(f"mkfs.ext4 -q -F /dev/{GROUP}/{VOLUME}; mkdir -p {MOUNT}; mount /dev/{GROUP}/{VOLUME} {MOUNT}")

    def mounts(self) -> list[Mount]:
        return [mount for mount in current_mounts() if mount.point == MOUNT]

    def keep_truth(self, point: str) -> None:
        with (self.directory / f"truth.{point}").open("wb") as file:
            for at in range(0, self.size, READ_SIZE):
                file.write(self.readers[DISK].read(at, READ_SIZE))

    def point(self, name: str) -> PointResult:
        order = PointOrder(name, Consistency.CRASH, self.mounts(), 60.0, BUFFER // 2)
        result = self.maker.make(order, self.replicator, cast(Any, self.replica))
        self.ledger.cut(name)
        self.ledger.commit(name, name)
        return result

    def wrong(self, point: str) -> list[int]:
        """Return the blocks in which the replica differs from the disk in the freeze."""
        found = []
        with self.replica.path.open("rb") as mine, (self.directory / f"truth.{point}").open("rb") as true:
            for block in range(block_count(self.size)):
                if mine.read(BLOCK_SIZE) != true.read(BLOCK_SIZE):
                    found.append(block)
        return found

    def left_over(self) -> list[str]:
        """Say what a snapshot has left behind."""
        said = [f"device {line}" for line in sh("dmsetup ls").splitlines() if line.startswith("farshore-")]
        said += [f"volume {name}" for name in sh(f"lvs --noheadings -o lv_name {GROUP}").split() if name != VOLUME]
        table = sh(f"dmsetup table {GROUP}-{VOLUME.replace('-', '--')}")
        said += [] if all(" linear " in line for line in table.splitlines()) else [f"table {table}"]
        return said


def check_first_copy(ground: Ground) -> list[str]:
    """Without churn no snapshot is needed."""
    ground.ledger.begin_full(DISK)
    ground.replicator.send_waiting(Need.UNSENT, DISK)
    ground.point("first")
    return [f"block {block}" for block in ground.wrong("first")]


def check_snapshot(ground: Ground) -> list[str]:
    """Under churn that outruns the link the rest comes from a snapshot, equal to the disk at the freeze.

    While each frame is on its way everything is written anew, however fast or slow this machine is.
    """
    stop = threading.Event()
    written = [0]

    def churn() -> None:
        while not stop.is_set():
            with open(f"{MOUNT}/churn", "r+b" if written[0] else "wb") as file:
                for _ in range(CHURN):
                    file.write(os.urandom(1 << 20))
                file.flush()
                os.fsync(file.fileno())
            written[0] += 1

    def rewritten() -> None:
        wanted, deadline = written[0] + 2, time.monotonic() + PATIENCE  # one may be half done
        while written[0] < wanted:
            assert time.monotonic() < deadline, "the volume takes no writes"
            time.sleep(0.02)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        rewritten()
        ground.replica.held = rewritten
        result = ground.point("snapshot")
        rewritten()
    finally:
        ground.replica.held = lambda: None
        stop.set()
        thread.join(PATIENCE)
    sh(f"cp {ground.replica.path} {ground.directory}/restored")
    metadata = (1 << 20) // BLOCK_SIZE
    said = [f"block {block}" for block in ground.wrong("snapshot") if block >= metadata]
    said += [] if result.consistency is Consistency.CRASH else [f"{result.consistency}: {result.notes}"]
    said += [] if result.snapshot_bytes > BUFFER else [f"{result.snapshot_bytes} bytes came from a snapshot"]
    return said + ground.left_over()


def check_next_point(ground: Ground) -> list[str]:
    """The next point is right everywhere: LVM's metadata too."""
    ground.point("next")
    return [f"block {block}" for block in ground.wrong("next")]


def check_killed(ground: Ground) -> list[str]:
    """What an agent that dies with a snapshot leaves is undone by the next."""
    done = subprocess.run([*own_interpreter(), __file__, ground.device, str(ground.directory), "die"], check=False)
    said = [] if done.returncode == 9 else [f"ended with {done.returncode}"]
    said += [] if ground.left_over() else ["nothing was left, so nothing was tested"]
    (Path(MOUNT) / "written-meanwhile").write_bytes(os.urandom(1 << 20))
    snapshots.clean_up()
    return said + ground.left_over()


def check_no_room(ground: Ground) -> list[str]:
    """Without room in the group it says so, and changes nothing."""
    sh(f"lvcreate -qy -l 100%FREE -n full {GROUP}")
    try:
        Snapshot(ground.readers, ground.mounts(), 8 << 20).close()
        said = ["a snapshot was taken"]
    except NoSnapshot as error:
        said = [] if "has 0 MiB left" in str(error) else [str(error)]
    sh(f"lvremove -qy {GROUP}/full")
    return said + ground.left_over()


def check_restored(ground: Ground) -> list[str]:
    """The disk as the snapshot's point holds it: a volume group without any trace of the snapshot, and clean files."""
    sh(f"umount {MOUNT}; vgchange -qan {GROUP}; dd if={ground.directory}/restored of={ground.device} bs=1M status=none")
    sh(f"sync; blockdev --flushbufs {ground.device}; vgchange -qay {GROUP}")
    said = ground.left_over()
    fsck = subprocess.run(["e2fsck", "-fn", f"/dev/{GROUP}/{VOLUME}"], check=False, capture_output=True, text=True)
    said += [] if fsck.returncode == 0 else [fsck.stdout[-500:]]
    sh(f"mount /dev/{GROUP}/{VOLUME} {MOUNT}")
    return said


CHECKS: dict[str, Callable[[Ground], list[str]]] = {
    "without churn": check_first_copy,
    "churn that outruns the link": check_snapshot,
    "the point after it": check_next_point,
    "an agent that dies": check_killed,
    "no room": check_no_room,
    "restored": check_restored,
}


def die(device: str) -> None:
    """Take a snapshot and end without undoing it."""
    mounts = [mount for mount in current_mounts() if mount.point == MOUNT]
    Snapshot({DISK: Reader(device)}, mounts, 4 << 20).activate()
    os._exit(9)


if __name__ == "__main__":
    if sys.argv[3:] == ["die"]:
        die(sys.argv[1])
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    sys.stdout.write("\n" + json.dumps(Ground(sys.argv[1], Path(sys.argv[2])).run()) + "\n")
