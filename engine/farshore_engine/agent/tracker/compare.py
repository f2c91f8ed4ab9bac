"""The tracker of last resort: none. Every disk counts as possibly changed, so every sync compares all digests."""

from __future__ import annotations

from farshore_engine.agent.tracker.interface import Sink, TrackedDisk

REASON = "no write tracker on this kernel: all blocks are compared"


class CompareTracker:
    """See interface.Tracker; `exact` is False."""

    name = "compare"
    exact = False

    def __init__(self, disks: tuple[TrackedDisk, ...]) -> None:
        self._disks = disks
        self._sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        """Report every disk as unknown."""
        self._sink = sink
        self.barrier()

    def barrier(self) -> None:
        """Report every disk as unknown again."""
        if self._sink is not None:
            for disk in self._disks:
                self._sink.lost(disk.id, REASON)

    def stop(self) -> None:
        """Nothing is left behind."""
        self._sink = None
