"""What a tracker promises. One conformance suite (tests/machine/test_tracker.py) runs against every implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

BLOCK_SECTORS_SHIFT = 7  # 512-byte sectors to blocks of 64 KiB
BlockNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrackedDisk:
    """A whole disk to track: its stable id, kernel name, device number and size in bytes."""

    id: str
    name: str
    major: int
    minor: int
    size: int


class Sink(Protocol):
    """Where a tracker reports; called from its own thread too, so it must be safe to call at any moment."""

    def mark(self, disk: str, first: BlockNumbers, last: BlockNumbers) -> None:
        """Blocks `first[i]`..`last[i]` inclusive may have changed, or are about to."""

    def lost(self, disk: str, reason: str) -> None:
        """Writes of the disk may have gone unseen."""


class Tracker(Protocol):
    """Reports every write of whole disks and of their partitions to a sink.

    Guarantees:
        1. A write is marked when it is queued and again when it completes, so a mark that is cleared before the
           block is read can hide no write that lands after the read.
        2. A write acknowledged to its writer before `barrier()` is called is marked when `barrier()` returns.
        3. Writes, discards, write-zeroes and any future kind of write are marked; reads are not.
        4. When an event may have been lost, `lost` is called, at the latest before the next `barrier()` returns.
        5. A tracker that cannot track (`exact` False) reports `lost` for every disk at start and at each barrier.
    """

    name: str
    exact: bool

    def start(self, sink: Sink) -> None:
        """Begin to track; raises OSError when the kernel refuses."""

    def barrier(self) -> None:
        """Bring everything acknowledged so far to the sink, and check that nothing was lost."""

    def stop(self) -> None:
        """End tracking and leave nothing behind in the kernel; may be called twice."""
