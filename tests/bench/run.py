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
from pathlib import Path

from rich.console import Console
from tests.bench import content, freezes, replication, vault_rates
from tests.bench.rows import Row, show, write

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
RESULT = ROOT / "build" / "bench.json"


def measure(directory: Path, quick: bool, console: Console) -> Iterator[list[Row]]:
    """Yield rows as they come; says what it does meanwhile."""
    size = (256 if quick else 1024) * MIB
    points, patience = (8, 25.0) if quick else (60, 160.0)

    def say(what: str) -> None:
        console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {what}")

    say("the vault alone")
    yield vault_rates.vault_rows(content.half_compressible(1, size // 2), directory)
    say("a half-compressible disk: stages, first copy, change, hydration, peers")
    yield from replication.whole_story(directory, size)
    say("a disk of real files: first copy, peers")
    yield replication.real_files(directory, size)
    say(f"{points} points under load")
    yield freezes.freeze_rows(directory, points, patience)


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
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as name:
        for found in measure(Path(name), options.quick, console):
            rows += found
    write(rows, RESULT)
    show(rows, console)
    console.print(f"{time.monotonic() - began:.0f} s; the same rows are in {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
