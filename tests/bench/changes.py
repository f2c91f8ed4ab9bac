"""A small change of a large disk: what a point costs, and how many bytes are sent, beside peers that scan the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench import content
from tests.bench.parts import Parts, running
from tests.bench.peers import programs
from tests.bench.replication import MIB, PATIENCE, Shape, _raw, _stage, copy_first, lay_out
from tests.bench.rows import Row
from tests.machine.agent_rig import RealDisk

INTERVAL = 15.0  # seconds between points: room to change the disk in between
ATTEMPTS = 6
SHARE = 0.01
FACTOR = 20
SENT = 1.5


@dataclass(frozen=True)
class Change:
    """A change of the disk: bytes of the changed blocks, bytes received, seconds from asking to the committed point."""

    changed: int
    sent: int
    seconds: float


def change_rows(directory: Path, size: int, every: int) -> list[Row]:
    """Change 1 % of a disk of `size` bytes, of which one part in `every` holds data and the rest was never written."""
    with _stage(directory) as stage:
        disk = lay_out(stage, Shape("", False, "", _raw(lambda s: content.sparse_pieces(s, every))), size)
        with running(stage, INTERVAL) as live:
            copy_first(live)
            change = _change(live, disk)
        copies = programs.first_copies(stage.directory, disk.backing, programs.SCANNING, every_setting=False)
        content.change(disk.device, seed=99, share=SHARE)
        timings = programs.later_copies(copies, disk.backing, restore=False)
    name = f"{SHARE:.0%} of a disk of {size / 2**30:g} GiB ({size // every // MIB} MiB of data) changed"
    seconds = {copies[family].peer.name: t.again for family, t in timings.items()}
    fastest, ratio = min(seconds.values()), change.sent / change.changed
    met = fastest >= FACTOR * change.seconds
    return [
        Row(f"{name}: a point", change.seconds, "s", f"{FACTOR}x faster", met, seconds),
        Row(f"{name}: bytes sent / bytes of changed blocks", ratio, "ratio", f"at most {SENT}", ratio <= SENT),
    ]


def _change(live: Parts, disk: RealDisk) -> Change:
    """Change the disk between two points, and see what the next one costs."""
    for attempt in range(ATTEMPTS):
        live.wait_point(time.time(), PATIENCE)
        before = live.received()
        began = time.time()
        changed = content.change(disk.device, attempt, SHARE)
        ended = time.time()
        point = live.wait_point(began, PATIENCE)
        if point.asked > ended:
            return Change(changed, live.received() - before, point.committed - point.asked)
    raise RuntimeError(f"changing {SHARE:.0%} of the disk takes longer than the {INTERVAL:g} s between two points")
