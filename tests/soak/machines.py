"""The machines of a soak: real disks under a mixed load, a real agent each, and the truth of every freeze.

The truth is a digest of each 64 KiB block of each disk, taken from the clone that the agent made inside the freeze, so
that hundreds of freezes can be kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from tests.machine.agent_rig import RealDisk, Rig

from farshore_engine.blocks.grid import BLOCK_SIZE

ROOT = Path(__file__).parents[2]
Truth = npt.NDArray[np.uint64]


def digests(image: Path) -> Truth:
    """Return a digest of each block of a file."""
    found = []
    with image.open("rb", buffering=0) as file:
        while data := file.read(BLOCK_SIZE):
            found.append(blake3(data.ljust(BLOCK_SIZE, b"\0")).digest(8))
    return np.frombuffer(b"".join(found), np.uint64)


def environment() -> dict[str, str]:
    """Return the environment in which the processes of a soak find the code."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


@dataclass
class SoakMachine:
    """One machine. `truths`: nanoseconds of a freeze's clone → digests of its disks."""

    name: str
    directory: Path
    kinds: tuple[tuple[str, int], ...]  # file system and MiB of each disk
    rate: float  # of the load, relative
    truths: dict[int, list[Truth]] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    load: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _stopping: bool = False

    def open(self, home: Path) -> None:
        """Make the disks, and begin to take the truth of what is cloned."""
        self.rig = Rig(self.directory / "rig").open()
        self.disks: list[RealDisk] = [self.rig.disk(kind, mib, "discard") for kind, mib in self.kinds]
        self.ids = [disk.id for disk in self.disks]
        self.home = home
        self._judge = threading.Thread(target=self._judge_clones, name=f"judge-{self.name}", daemon=True)
        self._judge.start()

    def close(self) -> None:
        """End everything that runs here and remove the disks."""
        self.stop_load()
        self.kill()
        self._stopping = True
        if hasattr(self, "_judge"):
            self._judge.join()
        if hasattr(self, "rig"):
            self.rig.close()

    # -- the agent -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the agent, once its identity is there."""
        deadline = time.monotonic() + 120
        while not (self.home / "server").exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the process server gives {self.name} no identity")
            time.sleep(0.1)
        state = self.directory / "state"
        state.mkdir(exist_ok=True)
        wanted = {
            "machine": f"demo.{self.name}",
            "home": str(self.home),
            "state": str(state),
            "devices": [disk.device for disk in self.disks],
            "backings": [str(disk.backing) for disk in self.disks],
            "clones": str(self.rig.store.path),
        }
        (self.directory / "agent.json").write_text(json.dumps(wanted))
        with (self.directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests/soak/agent_process.py"), str(self.directory / "agent.json")],
                env=environment(),
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill the agent with -9."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    # -- the load --------------------------------------------------------------------------------------------------

    def start_load(self, seconds: float) -> None:
        """Write in many ways: direct and buffered, random and in sequence, synced, mapped, truncated and discarded."""
        for disk in self.disks:
            assert disk.mount is not None
            common = ["nice", "fio", f"--directory={disk.mount}", "--thread", "--time_based", "--output=/dev/null"]
            common.append(f"--runtime={int(seconds) + 60}")
            # What is written again and again stays below the agent's frozen buffer, so that a point can be made of
            # it however slow the host is: less than 24 MiB of each machine.
            share = 4 // len(self.disks)
            jobs = ["--name=direct", "--rw=randwrite", "--bs=4k", f"--size={share}m", "--direct=1"]
            jobs += ["--ioengine=libaio", "--iodepth=4", f"--rate_iops={int(60 * self.rate)}"]
            jobs += ["--name=random", "--rw=randwrite", "--bsrange=4k-64k", f"--size={share}m", "--fsync=20"]
            jobs += [f"--rate={int(512 * self.rate)}k"]
            jobs += ["--name=sequence", "--rw=write", "--bs=64k", f"--size={share}m", "--fsync=50"]
            jobs += ["--buffer_compress_percentage=50", f"--rate={int(512 * self.rate)}k"]
            jobs += ["--name=mapped", "--rw=randwrite", "--bs=4k", f"--size={share}m", "--ioengine=mmap"]
            jobs += [f"--rate_iops={int(30 * self.rate)}"]
            self.load.append(subprocess.Popen([*common, *jobs], start_new_session=True))
            churn = (
                f"i=0; while :; do dd if=/dev/urandom of={disk.mount}/c$((i%4)) bs=64k count=$((1+i%8)) status=none "
                f"conv=fsync; rm -f {disk.mount}/c$(((i*3)%4)); "
                f"fallocate -p -o $(((i%30)*65536)) -l 131072 {disk.mount}/random.0.0 2>/dev/null; "
                f"i=$((i+1)); sleep {1 / self.rate:.2f}; done"
            )
            self.load.append(subprocess.Popen(["bash", "-c", churn], start_new_session=True, stderr=subprocess.DEVNULL))

    def stop_load(self) -> None:
        """End the load."""
        for child in self.load:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        self.load = []

    # -- the truth -------------------------------------------------------------------------------------------------

    def truth_of(self, time_of_point: float, ids: list[str]) -> dict[str, Truth] | None:
        """Return what the disks were at a point's freeze, None while (or if) nothing was cloned in it."""
        moment = int(time_of_point * 1e9)
        later = [at for at in list(self.truths) if at >= moment - 2000]
        if not later or min(later) - moment > 11e9:
            return None
        return {disk: self.truths[min(later)][self.ids.index(disk)] for disk in ids}

    def _judge_clones(self) -> None:
        while not self._stopping:
            ready: dict[int, list[Path]] = {}
            for path in self.rig.store.path.glob("*.clone"):
                ready.setdefault(int(path.name.split(".")[0]), []).append(path)
            for at, paths in sorted(ready.items()):
                if len(paths) == len(self.disks):
                    self.truths[at] = [digests(path) for path in sorted(paths, key=lambda p: int(p.name.split(".")[1]))]
                if len(paths) == len(self.disks) or time.time_ns() - at > 60e9:  # an agent died between two clones
                    for path in paths:
                        path.unlink()
            for path in self.rig.store.path.glob("*.part"):
                if time.time_ns() - int(path.name.split(".")[0]) > 60e9:
                    path.unlink()
            time.sleep(0.3)
