"""Chooses the tracker at start by trying, and says of each why it was chosen or not.

docs/decisions/write-tracking.md says why there is none on BPF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.agent.tracker.blktrace import BlktraceTracker
from farshore_engine.agent.tracker.compare import CompareTracker
from farshore_engine.agent.tracker.interface import Sink, TrackedDisk, Tracker
from farshore_engine.agent.tracker.tracefs import TraceFsTracker


@dataclass(frozen=True, slots=True)
class Choice:
    """A started tracker and the reason, naming what was tried before it."""

    tracker: Tracker
    reason: str


def start_best(disks: tuple[TrackedDisk, ...], scratch: Path, label: str, sink: Sink, wanted: str = "auto") -> Choice:
    """Start the first tracker that works, or the wanted one ("tracefs", "blktrace", "compare").

    Raises:
        OSError, ValueError: the one tracker that was asked for does not work.
    """
    makers: dict[str, Callable[[], Tracker]] = {
        "tracefs": lambda: TraceFsTracker(disks, scratch, label),
        "blktrace": lambda: BlktraceTracker(disks, scratch),
        "compare": lambda: CompareTracker(disks),
    }
    if wanted != "auto":
        tracker = makers[wanted]()
        tracker.start(sink)
        return Choice(tracker, f"{wanted}: asked for by the configuration")
    refused = []
    for name, make in makers.items():
        tracker = make()
        try:
            tracker.start(sink)
        except (OSError, ValueError) as error:
            refused.append(f"{name}: {error}")
            continue
        works = "block events can be traced" if tracker.exact else "nothing better works"
        return Choice(tracker, "; ".join([*refused, f"{name}: {works}"]))
    raise OSError("; ".join(refused))
