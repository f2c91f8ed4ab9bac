"""Re-reads a sample of blocks believed clean after each point, and compares it with what the process server holds.

Tracking that loses a write without noticing would go on for ever, point after point. So after each point a few
stretches of each disk are read again; the order in which they come covers the whole disk. A difference is an alarm
only when it cannot be a write on its way: the block is still believed clean after a barrier, and no write was under
way at a moment after the read, so whatever had landed had completed, and was marked.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from farshore_engine.agent.ledger import Ledger
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.replicate import Outlet
from farshore_engine.agent.source import Reader
from farshore_engine.agent.tracker.interface import Tracker
from farshore_engine.blocks.content import DIGEST_SIZE, Digests, digest_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, block_count
from farshore_engine.wire.messages import SILENT_CHANGE, NeedDigests

STRETCH = 16  # blocks: one read of 1 MiB
STRETCHES = 4  # of a disk for each point; more on large disks, so that each point samples a ten thousandth
MOST_STRETCHES = 16
SHARE = 10_000
GOLDEN = 0.6180339887  # steps of this share of the disk spread evenly, however many are taken
QUIET_TRIES, QUIET_PAUSE = 20, 0.1
SUSPECTED = 5  # points for which a block may differ on a disk that is never quiet, until it is an alarm

log = logging.getLogger(LOGGER_NAME)


@dataclass(slots=True)
class SampleCursor:
    """Where the sample is on each disk; kept from one connection to the next."""

    chance: random.Random = field(default_factory=random.Random)
    turns: dict[str, int] = field(default_factory=dict)
    suspects: dict[tuple[str, int], int] = field(default_factory=dict)  # (disk, block) → points for which it differed

    def take(self, disk: str, blocks: int) -> list[tuple[int, int]]:
        """Return the next stretches of a disk as (first block, count): each comes once before one comes again."""
        stretches = -(-blocks // STRETCH)
        step = _coprime(stretches)
        turn = self.turns.get(disk, self.chance.randrange(stretches))
        number = min(stretches, max(STRETCHES, min(MOST_STRETCHES, blocks // (SHARE * STRETCH))))
        self.turns[disk] = turn + number
        places = {(n * step) % stretches for n in range(turn, turn + number)}
        places |= {block // STRETCH for name, block in self.suspects if name == disk and block < blocks}
        return [(place * STRETCH, min(STRETCH, blocks - place * STRETCH)) for place in sorted(places)]


def _coprime(count: int) -> int:
    """Return a step near the golden share of `count` that visits all of `count` places."""
    step = max(1, round(count * GOLDEN))
    while np.gcd(step, count) != 1:
        step += 1
    return step


def no_write_under_way(name: str, sys_block: Path = Path("/sys/block")) -> bool:
    """Return whether the kernel has no write of a disk in flight; False when it cannot be told."""
    try:
        return (sys_block / name / "inflight").read_text().split()[1] == "0"
    except (OSError, IndexError):
        return False


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at all disks, at rest: nothing else may be sent on the connection meanwhile.

    `names` gives the kernel's name of each disk. `check` returns the disks that differ, and has told the ledger.
    """

    ledger: Ledger
    tracker: Tracker
    readers: dict[str, Reader]
    names: dict[str, str]
    outlet: Outlet
    digest_key: bytes
    cursor: SampleCursor
    quiet: Callable[[str], bool] = no_write_under_way

    def check(self) -> list[str]:
        """Compare; raises PeerClosed, WireError, or OSError when a disk cannot be read."""
        return [disk for disk in self.readers if self._check_disk(disk)]

    def _check_disk(self, disk: str) -> bool:
        reader = self.readers[disk]
        stretches = self.cursor.take(disk, block_count(reader.size))
        theirs: dict[int, bytes] = {}
        for first, count in stretches:
            self.outlet.deliver(NeedDigests(disk, first, count))
        for first, count in stretches:
            _, payload = self.outlet.await_digests()
            theirs |= {first + i: payload[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE] for i in range(count)}
        differing = [block for first, count in stretches for block in self._differing(disk, first, count, theirs)]
        differing = self._still_clean(disk, differing)
        sure = self._still_clean(disk, differing) if differing and self._was_quiet(disk) else []
        self._remember(disk, stretches, differing)
        sure = sure or [block for block in differing if self.cursor.suspects.get((disk, block), 0) >= SUSPECTED]
        if not sure:
            return False
        self.cursor.suspects = {key: n for key, n in self.cursor.suspects.items() if key[0] != disk}
        place = ", ".join(map(str, sure[:8])) + (" ..." if len(sure) > 8 else "")
        self.ledger.lost(disk, f"{SILENT_CHANGE}: block {place} of {block_count(reader.size)}, not seen to be written")
        return True

    def _differing(self, disk: str, first: int, count: int, theirs: dict[int, bytes]) -> Iterator[int]:
        data = self.readers[disk].read(first * BLOCK_SIZE, count * BLOCK_SIZE)
        ours: Digests = digest_blocks(self.digest_key, data)
        for index in range(count):
            if ours[index].tobytes() != theirs[first + index]:
                yield first + index

    def _still_clean(self, disk: str, blocks: list[int]) -> list[int]:
        """Return those of the blocks that nothing says to have been written, after a barrier."""
        if not blocks:
            return []
        self.tracker.barrier()
        numbers: Indexes = np.array(blocks, np.int64)
        return [int(block) for block in numbers[self.ledger.clean(disk, numbers)]]

    def _was_quiet(self, disk: str) -> bool:
        """Wait for a moment at which no write is under way; returns False when there was none."""
        for _ in range(QUIET_TRIES):
            if self.quiet(self.names[disk]):
                return True
            time.sleep(QUIET_PAUSE)
        return False

    def _remember(self, disk: str, stretches: list[tuple[int, int]], differing: list[int]) -> None:
        looked_at = {first + i for first, count in stretches for i in range(count)}
        for key in [k for k in self.cursor.suspects if k[0] == disk and k[1] in looked_at and k[1] not in differing]:
            del self.cursor.suspects[key]
        for block in differing:
            self.cursor.suspects[disk, block] = self.cursor.suspects.get((disk, block), 0) + 1
