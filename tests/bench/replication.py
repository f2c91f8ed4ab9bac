"""The way of a disk into the vault and back: first copy, a small change, hydration, beside the peers."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import content, peers, vault_rates
from tests.bench.parts import Parts, Point, running
from tests.bench.rows import Row
from tests.machine.agent_rig import RealDisk
from tests.machine.replication_rig import Stage, open_stage

from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.reader import PointReader

MIB = 1 << 20
INTERVAL = 3.0  # seconds between points: room to change the disk in between
ATTEMPTS = 5
SHARE = 0.01
PATIENCE = 90.0  # seconds for what should take a few


@dataclass(frozen=True)
class First:
    """The first copy: seconds until its point was in the vault, and CPU seconds of agent and process server."""

    seconds: float
    cpu: float


@dataclass(frozen=True)
class Change:
    """A change of the disk: bytes of the changed blocks, bytes received, seconds from asking to the committed point."""

    changed: int
    sent: int
    seconds: float


def whole_story(directory: Path, size: int) -> Iterator[list[Row]]:
    """Measure a half-compressible disk of `size` bytes in every way; yields rows as they come."""
    with _stage(directory) as stage:
        disk = _disk(stage, content.half_pieces(size), size)
        parts = vault_rates.stages(disk.device, min(size, 512 * MIB), stage.directory)
        yield [Row(f"stage: {p.name}", p.cost, "CPU s/GiB") for p in parts]
        with running(stage, INTERVAL) as live:
            first = _first(live)
            change = _change(live, disk)
            memory = live.agent_memory()
        hydrated = _hydrated(stage, disk)
        copies = peers.first_copies(stage.directory, disk.backing)
        content.change(disk.device, seed=99, share=SHARE)
        timings = peers.later_copies(copies, disk.backing)
        yield _first_rows("half-compressible", size, first, {n: t.first for n, t in timings.items()})
        yield _limit_rows(size, first, parts)
        yield _change_rows(size, change, timings)
        restores = {name: size / MIB / t.restore for name, t in timings.items()}
        rate = size / MIB / hydrated
        yield [
            Row("hydrate", rate, "MiB/s", "2x restic restore", rate >= 2 * restores["restic"], restores),
            Row("agent and watchdog, resident at most", memory, "MiB", "at most 80 MiB", memory <= 80),
        ]


def real_files(directory: Path, size: int) -> list[Row]:
    """Measure the first copy of a disk with real content."""
    with _stage(directory) as stage:
        disk = _disk(stage, content.file_pieces(size), size)
        with running(stage, INTERVAL) as live:
            first = _first(live)
        seconds = {name: second for name, (_, second) in peers.first_copies(stage.directory, disk.backing).items()}
        return _first_rows("real files", size, first, seconds)


@contextmanager
def _stage(directory: Path) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(dir=directory) as name, open_stage(Path(name)) as stage:
        yield stage


def _disk(stage: Stage, pieces: Iterator[bytes], size: int) -> RealDisk:
    disk = stage.rig.disk("", size_mib=size // MIB)
    content.fill(disk.device, pieces)
    return disk


def _first(live: Parts) -> First:
    live.start_agent()
    began = live.wait_welcome()
    cpu = live.cpu()
    point = live.wait_point(0, PATIENCE)
    return First(point.committed - began, live.cpu() - cpu)


def _change(live: Parts, disk: RealDisk) -> Change:
    """Change the disk between two points, and see what the next one costs."""
    for attempt in range(ATTEMPTS):
        live.wait_point(time.time(), PATIENCE)
        before = live.received()
        began = time.time()
        changed = content.change(disk.device, attempt, SHARE)
        ended = time.time()
        point: Point = live.wait_point(began, PATIENCE)
        if point.asked > ended:
            return Change(changed, live.received() - before, point.committed - point.asked)
    raise RuntimeError(f"changing {SHARE:.0%} of the disk takes longer than the {INTERVAL:g} s between two points")


def _hydrated(stage: Stage, disk: RealDisk) -> float:
    """Hydrate the newest point, compare it with the disk, and return the seconds of the hydration."""
    vault = stage.open_vault()
    image = stage.directory / "hydrated.raw"
    try:
        point = vault.newest()
        assert point is not None
        seconds = peers.timed(lambda: hydrate(PointReader(vault, point), disk.id, image, threads=os.cpu_count() or 1))
    finally:
        vault.close()
    with image.open("rb") as restored, disk.backing.open("rb") as truth:
        while ours := restored.read(8 * MIB):
            assert ours == truth.read(8 * MIB), "the hydrated disk differs from the source"
    image.unlink()
    return seconds


def _first_rows(kind: str, size: int, first: First, seconds: dict[str, float]) -> list[Row]:
    rate = size / MIB / first.seconds
    rates = {name: size / MIB / s for name, s in seconds.items()}
    borg = next(value for name, value in rates.items() if name.startswith("borg"))
    met = rate >= 3 * rates["restic"] and rate >= 1.5 * borg
    cost = first.cpu / (size / 2**30)
    return [
        Row(f"initial replication, {size // MIB} MiB, {kind}", rate, "MiB/s", "3x restic, 1.5x borg", met, rates),
        Row(f"initial replication, agent and process server, {kind}", cost, "CPU s/GiB"),
    ]


def _limit_rows(size: int, first: First, parts: list[vault_rates.Measured]) -> list[Row]:
    limit, device = vault_rates.limit(parts), parts[0].rate
    share = size / MIB / first.seconds / min(limit, device)
    return [
        Row("sum of the stages", sum(p.cost for p in parts), "CPU s/GiB"),
        Row(
            f"limit: {os.cpu_count()} cores / sum of the stages", limit, "MiB/s", "", None, {"the device alone": device}
        ),
        Row("initial replication / the lower limit", share, "ratio", "at least 0.7", share >= 0.7),
    ]


def _change_rows(size: int, change: Change, timings: dict[str, peers.Timings]) -> list[Row]:
    seconds = {name: t.again for name, t in timings.items()}
    scanning = [value for name, value in seconds.items() if not name.startswith("qemu")]
    ratio = change.sent / change.changed
    name = f"{SHARE:.0%} of {size // MIB} MiB changed"
    return [
        Row(f"{name}: a point", change.seconds, "s", "20x faster", min(scanning) >= 20 * change.seconds, seconds),
        Row(f"{name}: bytes sent / bytes of changed blocks", ratio, "ratio", "at most 1.5", ratio <= 1.5),
    ]
