"""How long the file systems stand still for a point while something keeps writing, beside a bare freeze and thaw."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.content import half_pieces
from tests.bench.parts import FAILED, Parts, running
from tests.bench.replication import PATIENCE
from tests.bench.rows import Row
from tests.machine.agent_rig import RealDisk
from tests.machine.replication_rig import open_stage

from farshore_engine.agent import syscalls

DISK_MIB = 1024
FILE_MIB = 512
RATE_MIB = 80  # MiB/s of random 64 KiB writes
INTERVAL = 0.5  # seconds from one point to the next, where the one before is committed by then
REST = 0.3  # seconds between bare freezes
BARE = 50  # of them at most
SECTOR = 512


def freeze_rows(directory: Path, count: int, patience: float) -> list[Row]:
    """Make `count` points under load, or as many as `patience` seconds allow, and bare freezes beside them.

    A point brings all that was written since the one before, so how many there are in that time is told by how fast
    the host sends, spools and stores beside the load: that is a row of its own.
    """
    with tempfile.TemporaryDirectory(dir=directory) as name, open_stage(Path(name)) as stage:
        disk = stage.rig.disk("ext4", size_mib=DISK_MIB)
        _lay_out(disk)
        with running(stage, INTERVAL) as live:
            live.start_agent()
            live.wait_point(0, PATIENCE)  # the first copy, which has nothing to do with how long is measured
            with _load(disk):
                time.sleep(2)  # until the load is even
                began, written = time.time(), _written(disk)
                freezes = _freezes(live, began, count, patience)
                rate = (_written(disk) - written) / (time.time() - began) / 2**20
            failed = [e for e in live.events(FAILED) if e.time > began]
        with _load(disk):
            time.sleep(2)
            bare = _bare(disk, min(BARE, len(freezes)))
    return _rows(freezes, bare, rate, (count, len(failed)))


def _freezes(live: Parts, began: float, count: int, patience: float) -> list[float]:
    deadline = time.monotonic() + patience
    while True:
        found = [p.freeze for p in live.points() if p.asked > began]
        if len(found) >= count or time.monotonic() > deadline:
            return found[:count]
        time.sleep(0.5)


def _bare(disk: RealDisk, count: int) -> list[float]:
    """Flush, freeze and thaw as an agent does that reads nothing in between."""
    assert disk.mount is not None
    fd = os.open(disk.mount, os.O_RDONLY | os.O_DIRECTORY)
    found = []
    try:
        for _ in range(count):
            syscalls.syncfs(fd)
            began = time.monotonic()
            syscalls.freeze(fd)
            syscalls.thaw(fd)
            found.append(time.monotonic() - began)
            time.sleep(REST)
    finally:
        os.close(fd)
    return found


def _rows(freezes: list[float], bare: list[float], rate: float, wanted: tuple[int, int]) -> list[Row]:
    count, failed = wanted
    if not freezes:  # the machine wrote faster than could be sent all the time
        missed = Row("freeze under load, points made", 0, "points", f"{count}", False)
        return [missed, Row("points given up meanwhile", failed, "points"), Row("written meanwhile", rate, "MiB/s")]
    bounds = {"p50": None, "p99": 0.1, "max": 0.5}
    rows = []
    for name, bound in bounds.items():
        value, peer = _quantile(freezes, name), _quantile(bare, name)
        target = f"at most {bound * 1000:.0f} ms" if bound else ""
        met = value <= bound if bound else None
        title = f"freeze under load, {len(freezes)} points, {name}"
        rows.append(Row(title, value * 1000, "ms", target, met, {f"bare freeze and thaw, {len(bare)}": peer * 1000}))
    return [
        *rows,
        Row("freeze under load, points made", len(freezes), "points", f"{count}", len(freezes) >= count),
        Row("written to the disk meanwhile", rate, "MiB/s"),
        Row("points given up meanwhile", failed, "points"),
    ]


def _quantile(values: list[float], name: str) -> float:
    """Return p50, p99 or max by nearest rank."""
    ordered = sorted(values)
    share = {"p50": 50, "p99": 99, "max": 100}[name]
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def _lay_out(disk: RealDisk) -> None:
    """Make the file that the load writes to, so that the first copy has it."""
    assert disk.mount is not None
    with (disk.mount / "dirty.0.0").open("wb") as file:
        for piece in half_pieces(FILE_MIB << 20):
            file.write(piece)
        os.fsync(file.fileno())


@contextmanager
def _load(disk: RealDisk) -> Iterator[None]:
    """Keep writing random blocks of the file, half-compressible as the file is, through the page cache."""
    command = ["fio", "--name=dirty", f"--directory={disk.mount}", "--rw=randwrite", "--bs=64k", f"--size={FILE_MIB}m"]
    command += [f"--rate={RATE_MIB}m", "--ioengine=psync", "--thread", "--time_based", "--runtime=1200"]
    command += ["--norandommap", "--randrepeat=0", "--output=/dev/null"]
    command += ["--refill_buffers", "--buffer_compress_percentage=50", "--buffer_compress_chunk=1k"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
        assert process.poll() is None, "fio ended early"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _written(disk: RealDisk) -> int:
    """Return the bytes that were ever written to the device."""
    fields = Path(f"/sys/block/{Path(disk.device).name}/stat").read_text().split()
    return int(fields[6]) * SECTOR
