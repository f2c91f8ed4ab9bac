"""How fast a machine's disks change: from the points in its vault, or, without an agent, from its kernel's counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from farshore_cli.sizing import Sample
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import RecoveryPoint

if TYPE_CHECKING:
    from farshore_engine.contract.assignment import Source

SECTOR = 512
"""Bytes; the unit of /sys/block/*/size and stat. Source: Documentation/block/stat.rst of Linux."""
SCRIPT = """
for disk in /sys/block/*; do
  case ${disk##*/} in loop*|ram*|zram*|dm-*|md*|sr*|fd*|nbd*) continue;; esac
  echo "${disk##*/} $(cat $disk/size) $(cat $disk/stat)"
done
"""
WRITTEN = 2 + 6  # words before the sectors written: name, size, and six counters
Counters = dict[str, tuple[int, int]]
"""Bytes of each disk and bytes written to it since the machine started, by name."""


def from_points(points: Sequence[RecoveryPoint], period: timedelta, now: datetime) -> list[Sample]:
    """Return what changed between points of the last `period`.

    Only neighbours in the chain count: where retention has thinned points out, what the missing ones held is unknown.
    """
    ordered = sorted(points, key=lambda point: point.slot)
    found = []
    for before, after in pairwise(ordered):
        seconds = (after.time - before.time).total_seconds()
        if after.slot == before.slot + 1 and after.epoch == before.epoch and seconds > 0 and after.time >= now - period:
            found.append(Sample(seconds, after.bytes_changed, after.bytes_stored))
    return found


def spacing(points: Sequence[RecoveryPoint]) -> timedelta | None:
    """Return the usual time between two neighbouring points, None where there are too few."""
    ordered = sorted(points, key=lambda point: point.slot)
    gaps = sorted(after.time - before.time for before, after in pairwise(ordered) if after.slot == before.slot + 1)
    return gaps[len(gaps) // 2] if gaps else None


def from_machine(
    source: Source, period: timedelta, every: timedelta, tell: Callable[[str], None]
) -> tuple[list[Sample], int]:
    """Look at a machine's counters over SSH for `period`; return samples and the bytes of its disks.

    A block that is written twice counts twice, so that what is measured is at least what replication would send.

    Raises:
        WaitFault: the machine cannot be reached.
        StopFault: it does not let us in, or has no disks.
    """
    return asyncio.run(_watch(source, period, every, tell))


async def _watch(
    source: Source, period: timedelta, every: timedelta, tell: Callable[[str], None]
) -> tuple[list[Sample], int]:
    from farshore_engine.processserver.push.ssh import connect

    async with connect(source) as connection:

        async def look() -> tuple[float, Counters]:
            done = await connection.script(SCRIPT, root=False)
            return time.monotonic(), parse(done.stdout)

        begun, before = await look()
        if not before:
            raise StopFault(f"{connection.address} shows no disks in /sys/block", "Is it Linux?", reason="NoDisks")
        samples, last = [], begun
        while last - begun < period.total_seconds():
            await asyncio.sleep(min(every.total_seconds(), max(0.0, period.total_seconds() - (last - begun))))
            now, after = await look()
            samples.append(Sample(now - last, growth(before, after)))
            tell(f"{now - begun:.0f} of {period.total_seconds():.0f} s: {samples[-1].written / 2**20:.1f} MiB written")
            last, before = now, after
    return samples, sum(size for size, _ in before.values())


def parse(text: str) -> Counters:
    """Read what `SCRIPT` printed; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > WRITTEN and all(word.isdigit() for word in words[1 : WRITTEN + 1]) and int(words[1]) > 0:
            found[words[0]] = (int(words[1]) * SECTOR, int(words[WRITTEN]) * SECTOR)
    return found


def growth(before: Counters, after: Counters) -> int:
    """Return the bytes written between two looks; a counter that fell began anew, with a restart of the machine."""
    total = 0
    for name, (_, now) in after.items():
        then = before[name][1] if name in before else now
        total += now - then if now >= then else now
    return total
