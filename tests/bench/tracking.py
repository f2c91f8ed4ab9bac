"""What tracking costs the machine: write latency and CPU at a limited rate, and what is lost at an unlimited one."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.parts import Parts, running
from tests.bench.rows import Row
from tests.machine.agent_rig import RealDisk
from tests.machine.replication_rig import open_stage

DISK_MIB = 256
IOPS = 10_000
NO_POINTS = 3600.0  # seconds between points: tracking alone is measured
LOST = "a disk must be compared"
PATIENCE = 60.0
LATENCY, CPU = 1.10, 5.0  # factor, per cent of a core


@dataclass(frozen=True)
class Load:
    """One run of fio: writes each second, 99th percentile of their latency in microseconds."""

    iops: float
    p99: float


def tracking_rows(directory: Path, rounds: int, seconds: int) -> list[Row]:
    """Take turns with and without an agent, `rounds` times, `seconds` each."""
    without, tracked, cpu = [], [], []
    with tempfile.TemporaryDirectory(dir=directory) as name, open_stage(Path(name)) as stage:
        disk = stage.rig.disk("", size_mib=DISK_MIB)
        with running(stage, NO_POINTS) as live:
            for _ in range(rounds):
                without.append(_fio(disk, seconds, IOPS))
                with_agent, spent = _tracked(live, disk, seconds, IOPS)
                tracked.append(with_agent)
                cpu.append(100 * spent / seconds)
                live.stop_agent()
            free = _fio(disk, seconds, None)
            unlimited, _ = _tracked(live, disk, seconds, None)
            time.sleep(2)
            losses = len(live.events(LOST))
    before, after = (statistics.median(load.p99 for load in loads) for loads in (without, tracked))
    share = statistics.median(cpu)
    name = f"tracking {statistics.median(load.iops for load in tracked):.0f} writes/s"
    return [
        Row(f"{name}: p99 latency / untracked", after / before, "ratio", "at most 1.1", after <= LATENCY * before),
        Row(f"{name}: p99 latency", after, "us", "", None, {"untracked": before}),
        Row(f"{name}: agent", share, "% of a core", "at most 5", share <= CPU),
        Row("tracking unlimited writes: writes/s", unlimited.iops, "1/s", "", None, {"untracked": free.iops}),
        Row("tracking unlimited writes: times that events were lost and the disk is compared", losses, "times"),
    ]  # fmt: skip


def _tracked(live: Parts, disk: RealDisk, seconds: int, iops: int | None) -> tuple[Load, float]:
    """Run the load under an agent that is at rest otherwise; gives its CPU seconds too."""
    began = time.time()
    live.start_agent()
    live.wait_synced(began, PATIENCE)
    time.sleep(1.0)
    before = live.agent_cpu()
    load = _fio(disk, seconds, iops)
    return load, live.agent_cpu() - before


def _fio(disk: RealDisk, seconds: int, iops: int | None) -> Load:
    command = ["fio", "--name=writes", f"--filename={disk.device}", "--rw=randwrite", "--bs=4k", "--direct=1"]
    command += ["--ioengine=libaio", "--iodepth=8", "--time_based", f"--runtime={seconds}", "--output-format=json"]
    command += [f"--rate_iops={iops}"] if iops else ["--iodepth=32"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    write: dict[str, Any] = json.loads(done.stdout)["jobs"][0]["write"]
    return Load(write["iops"], write["clat_ns"]["percentile"]["99.000000"] / 1000)
