"""Checks a tracker's completions against the kernel's own disk statistics, to notice a loss that nobody counted.

The kernel traces the completion of a request and then adds its sectors to /sys/block/NAME/stat. So whatever the
statistics show must have been traced before: read the statistics first, drain the trace, compare. The rule is
one-sided and holds under load; with an idle disk at start it is exact to the sector. (Linux, blk_update_request.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.agent.tracker.interface import Sink, TrackedDisk

BARRIER_RETRIES, BARRIER_PAUSE = 50, 0.002  # a completion may be told late when it interrupted another event
WRITE_SECTORS, DISCARD_SECTORS = 6, 13  # fields of Documentation/block/stat.rst, counted from 0


def written_sectors(name: str, sys_block: Path = Path("/sys/block")) -> int:
    """Return sectors written and discarded since the disk appeared; raises OSError when it is gone."""
    fields = (sys_block / name / "stat").read_text().split()
    discards = int(fields[DISCARD_SECTORS]) if len(fields) > DISCARD_SECTORS else 0
    return int(fields[WRITE_SECTORS]) + discards


def can_be_checked(name: str, sys_block: Path = Path("/sys/block")) -> bool:
    """Return whether the disk completes requests and keeps statistics of them."""
    disk = sys_block / name
    try:
        counts = (disk / "queue" / "iostats").read_text().strip() == "1"
    except OSError:
        return False
    return counts and (disk / "mq").is_dir()


@dataclass(slots=True)
class Account:
    """One disk's balance of sectors: those that the statistics show against those traced."""

    base: int  # statistics just after tracing began: sectors from here on must be traced
    traced: int = 0

    def deficit(self, statistics: int) -> int:
        """Return how many sectors the statistics show that were not traced; 0 or less is good."""
        return statistics - self.base - self.traced

    def forgive(self, statistics: int) -> None:
        """Start anew from `statistics`, after a loss was reported."""
        self.base, self.traced = statistics, 0


class Books:
    """The accounts of all disks of a tracker; `note` may be called by several threads at once.

    For a barrier: `settle`, then `report`.
    """

    def __init__(self, disks: tuple[TrackedDisk, ...], sink: Sink) -> None:
        """Open an account for each disk that can be checked: tracing must have begun."""
        self._disks = disks
        self._sink = sink
        self._lock = threading.Lock()
        self._accounts = {d.id: Account(written_sectors(d.name)) for d in disks if can_be_checked(d.name)}

    def note(self, disk: str, sectors: int) -> None:
        """Count sectors whose completion was traced."""
        with self._lock:
            if disk in self._accounts:
                self._accounts[disk].traced += sectors

    def settle(self, drain: Callable[[], None]) -> dict[str, int]:
        """Drain the trace until it tells of all that the statistics show at this call, or for a bounded time.

        Returns:
            What the statistics showed, for `report`, by disk. A disk that is gone is reported as lost.
        """
        shown = {disk.id: self._statistics(disk) for disk in self._disks if disk.id in self._accounts}
        drain()
        for _ in range(BARRIER_RETRIES):
            if not self._behind(shown):
                break
            time.sleep(BARRIER_PAUSE)
            drain()
        return shown

    def _behind(self, shown: dict[str, int]) -> bool:
        """Return whether a disk has an event outstanding: it may come a little late."""
        with self._lock:
            return any(self._accounts[disk].deficit(value) > 0 for disk, value in shown.items())

    def report(self, shown: dict[str, int]) -> None:
        """Report the disks whose statistics show more than was traced."""
        for disk in self._disks:
            if disk.id not in shown:
                continue
            with self._lock:
                account = self._accounts[disk.id]
                missing = account.deficit(shown[disk.id])
                if missing > 0:
                    account.forgive(shown[disk.id])
            if missing > 0:
                self._sink.lost(disk.id, f"{missing} sectors were written that no event told of")

    def forgive(self, disk: TrackedDisk) -> None:
        """Start the account anew, after a loss that was reported for another reason."""
        if disk.id in self._accounts:
            value = self._statistics(disk)
            with self._lock:
                self._accounts[disk.id].forgive(value)

    def _statistics(self, disk: TrackedDisk) -> int:
        try:
            return written_sectors(disk.name)
        except OSError:
            with self._lock:
                account = self._accounts[disk.id]
                gone = account.base + account.traced
            self._sink.lost(disk.id, f"the disk {disk.name} has disappeared")
            return gone
