"""Measures Farshore beside others in one run, prints a table, and writes `build/bench.json`.

    python -m tests.bench.run [--quick] [--directory DIRECTORY]

Nothing here fails because of a time: what is slow is shown as missed. It fails when a result is wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tests.bench import changes, content, freezes, metadata, recovery, replication, tracking, vault_rates
from tests.bench.peers import programs
from tests.bench.rows import Row, show, write

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
RESULT = ROOT / "build" / "bench.json"


@dataclass(frozen=True)
class Scale:
    """How much is measured: sizes in MiB, seconds of patience for the freezes."""

    disk: int
    other_disk: int
    sparse_disk: int
    changed_disk: int
    part_with_data: int
    points: int
    patience: float
    rounds: int
    load: int  # seconds
    scattered: int
    boots: bool


FULL = Scale(1024, 512, 1024, 16 * 1024, 8, 300, 300.0, 3, 5, 2000, True)
QUICK = Scale(128, 64, 256, 1024, 8, 8, 25.0, 1, 2, 200, False)


def measure(directory: Path, scale: Scale, console: Console) -> Iterator[list[Row]]:
    """Yield rows as they come; says what it does meanwhile."""

    def say(what: str) -> None:
        console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {what} [dim](load {os.getloadavg()[0]:.1f})[/]")

    for name, why in programs.missing().items():
        console.print(f"[red]{name} is missing in this run:[/] {why}")
    say("the vault alone")
    yield vault_rates.vault_rows(content.half_compressible(1, scale.disk * MIB // 2), directory)
    yield metadata.metadata_rows(directory, scale.scattered)
    for shape, size in ((replication.HALF, scale.disk), (replication.FILES, scale.disk)):
        say(f"a first copy, {shape.name}: stages, parts, peers")
        yield from replication.first_copy(directory, shape, size * MIB)
    say("a small change of a large disk")
    yield changes.change_rows(directory, scale.changed_disk * MIB, scale.part_with_data)
    say("the cost of tracking")
    yield tracking.tracking_rows(directory, scale.rounds, scale.load)
    say(f"{scale.points} points under load")
    yield freezes.freeze_rows(directory, scale.points, scale.patience)
    if scale.boots:
        say("a boot from a point, and from a local disk")
        with tempfile.TemporaryDirectory(dir=directory) as name:
            yield recovery.boot_rows(Path(name))
    for shape, size in ((replication.RANDOM, scale.other_disk), (replication.SPARSE, scale.sparse_disk)):
        say(f"a first copy, {shape.name}: stages, parts, peers")
        yield from replication.first_copy(directory, shape, size * MIB)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small disks and few points, to try the bench itself")
    parser.add_argument("--directory", type=Path, default=ROOT / "build", help="where disks, vault and copies go")
    options = parser.parse_args()
    if os.geteuid():
        print("the bench makes loop devices and mounts, so it runs as root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that disks and processes go, as on Ctrl-C
    console = Console(width=None if sys.stdout.isatty() else 150)
    began = time.monotonic()
    rows: list[Row] = []
    options.directory.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
            for found in measure(Path(name), QUICK if options.quick else FULL, console):
                rows += found
                write(rows, RESULT)
    finally:
        show(rows, console)  # also what was found before something went wrong
    console.print(f"{time.monotonic() - began:.0f} s; the same rows are in {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
