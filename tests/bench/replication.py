"""The way of a disk into the vault for the first time, with several kinds of content, beside limits and peers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import content, recovery, vault_rates
from tests.bench.parts import Parts, running
from tests.bench.peers import programs
from tests.bench.peers.programs import Borg, Copy, Kopia, Peer, Restic
from tests.bench.rows import Row
from tests.machine.agent_rig import RealDisk, run
from tests.machine.replication_rig import Stage, open_stage

from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.reader import PointReader

MIB = 1 << 20
INTERVAL = 3.0  # seconds between points: room to change the disk in between
PATIENCE = 300.0  # seconds for what should take a few
STAGED = 256 * MIB  # at most so much of a disk goes through each stage alone
FACTORS: dict[type[Peer], float] = {Restic: 3.0, Kopia: 3.0, Borg: 1.5}
OF_LIMIT = 0.7


@dataclass(frozen=True)
class Shape:
    """What is on a disk; `aimed` says whether DESIGN has a target for it, `lay` puts it there."""

    name: str
    aimed: bool
    kind: str  # of file system, "" for none
    lay: Callable[[RealDisk, int], None]


@dataclass(frozen=True)
class First:
    """A first copy: seconds until its point was in the vault; CPU seconds and MiB of agent and process server."""

    seconds: float
    cpu: float
    agent_memory: float
    server_memory: float


def _raw(pieces: Callable[[int], Iterator[bytes]]) -> Callable[[RealDisk, int], None]:
    return lambda disk, size: content.fill(disk.device, pieces(size))


def _files(disk: RealDisk, size: int) -> None:
    assert disk.mount is not None
    content.copy_files(disk.mount, size * 85 // 100)


HALF = Shape("half-compressible", True, "", _raw(content.half_pieces))
FILES = Shape("a root file system's files on ext4", True, "ext4", _files)
RANDOM = Shape("incompressible", False, "", _raw(content.random_pieces))
SPARSE = Shape("nine tenths zeros", False, "", _raw(lambda size: content.sparse_pieces(size, 10)))


def first_copy(directory: Path, shape: Shape, size: int) -> Iterator[list[Row]]:
    """Measure the first copy of a disk of `size` bytes: stages, agent and process server, peers."""
    with _stage(directory) as stage:
        disk = lay_out(stage, shape, size)
        parts = vault_rates.stages(disk.device, min(size, STAGED), stage.directory)
        with running(stage, INTERVAL) as live:
            first = copy_first(live)
        if disk.mount is not None:  # borg refuses a file that still changes
            run("mount", "-o", "remount,ro", str(disk.mount))
        copies = programs.first_copies(stage.directory, disk.backing)
        # A mounted file system goes on writing to its superblock, so there is nothing to compare its point with.
        hydrated = 0.0 if shape.kind else hydrate_newest(stage, disk)
        name = f"initial replication, {size // MIB} MiB, {shape.name}"
        if shape.aimed:
            yield [Row(f"stage, {shape.name}: {p.name}", p.cost, "CPU s/GiB") for p in parts]
        yield _peer_rows(name, shape, size, first, copies)
        yield _limit_rows(name, shape, size, first, parts)
        if shape is HALF:
            yield recovery.first_block_rows(stage.open_vault, stage.directory)
            yield _restore_rows(stage, disk, size, hydrated, copies)


@contextmanager
def _stage(directory: Path) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(dir=directory) as name, open_stage(Path(name)) as stage:
        yield stage


def lay_out(stage: Stage, shape: Shape, size: int) -> RealDisk:
    """Make a disk with that content."""
    disk = stage.rig.disk(shape.kind, size_mib=size // MIB)
    shape.lay(disk, size)
    return disk


def copy_first(live: Parts) -> First:
    """Start the agent and wait for the first point."""
    live.start_agent()
    began = live.wait_welcome()
    cpu = live.cpu()
    point = live.wait_point(0, PATIENCE)
    return First(point.committed - began, live.cpu() - cpu, live.agent_memory(), live.server_memory())


def hydrate_newest(stage: Stage, disk: RealDisk) -> float:
    """Hydrate the newest point, compare it with the disk, and return the seconds of the hydration."""
    vault = stage.open_vault()
    image = stage.directory / "hydrated.raw"
    for path in (stage.directory / "vault").rglob("*"):
        if path.is_file():
            programs.warm(path)  # as what the peers restore from is
    try:
        point = vault.newest()
        assert point is not None
        seconds = programs.timed(
            lambda: hydrate(PointReader(vault, point), disk.id, image, threads=os.cpu_count() or 1)
        )
    finally:
        vault.close()
    with image.open("rb") as restored, disk.backing.open("rb") as truth:
        while ours := restored.read(8 * MIB):
            assert ours == truth.read(8 * MIB), "the hydrated disk differs from the source"
    image.unlink()
    return seconds


def _peer_rows(name: str, shape: Shape, size: int, first: First, copies: dict[str, Copy]) -> list[Row]:
    rates = {copy.peer.name: size / MIB / copy.seconds for copy in copies.values()}
    costs = {copy.peer.name: copy.cpu / (size / 2**30) for copy in copies.values()}
    rows = [
        Row(name, size / MIB / first.seconds, "MiB/s", "", None, rates),
        Row(f"{name}: agent and process server", first.cpu / (size / 2**30), "CPU s/GiB", "", None, costs),
    ]
    for kind, factor in FACTORS.items():
        if kind.family not in copies:
            continue
        ratio = copies[kind.family].seconds / first.seconds
        wanted = (f"at least {factor:g}", ratio >= factor) if shape.aimed else ("", None)
        rows.append(Row(f"{name} / {copies[kind.family].peer.name}", ratio, "ratio", *wanted))
    return rows


def _limit_rows(name: str, shape: Shape, size: int, first: First, parts: list[vault_rates.Measured]) -> list[Row]:
    rate, limit, device = size / MIB / first.seconds, vault_rates.limit(parts), parts[0].rate
    slowest = vault_rates.slowest(parts)
    share = rate / min(limit, device)
    wanted = (f"at least {OF_LIMIT:g}", share >= OF_LIMIT) if shape.aimed else ("", None)
    cores = os.cpu_count() or 1
    return [
        Row(f"{name} / slowest single stage ({slowest.name})", rate / slowest.rate, "ratio", "", None),
        Row(f"limit, {shape.name}: {cores} cores / sum of the stages", limit, "MiB/s", "", None, {"device": device}),
        Row(f"{name} / the lower limit", share, "ratio", *wanted),
        Row(f"{name}: sum of the stages", sum(p.cost for p in parts), "CPU s/GiB"),
        Row(f"{name}: process server, resident at most", first.server_memory, "MiB"),
        Row(f"{name}: agent and watchdog, locked", first.agent_memory, "MiB", "at most 80", first.agent_memory <= 80),
    ]  # fmt: skip


def _restore_rows(stage: Stage, disk: RealDisk, size: int, hydrated: float, copies: dict[str, Copy]) -> list[Row]:
    timings = programs.later_copies(copies, disk.backing)
    restores = {copies[family].peer.name: size / MIB / t.restore for family, t in timings.items()}
    rate, restic = size / MIB / hydrated, timings.get(Restic.family)
    target, met = ("", None) if restic is None else ("2x restic restore", rate >= 2 * size / MIB / restic.restore)
    return [Row(f"hydrate, {size // MIB} MiB, half-compressible", rate, "MiB/s", target, met, restores)]
