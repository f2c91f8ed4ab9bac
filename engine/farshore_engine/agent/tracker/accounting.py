"""Checks a tracker's completions against the kernel's own disk statistics, to notice a loss that nobody counted.

The kernel traces the completion of a request and then adds its sectors to /sys/block/NAME/stat. So whatever the
statistics show must have been traced before: read the statistics first, drain the trace, compare. The rule is
one-sided and holds under load; with an idle disk at start it is exact to the sector. (Linux, blk_update_request.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
