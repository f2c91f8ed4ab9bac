"""The machine that is protected: disks of known content, programs that write to them, the kernel's tracing, freezes.

A disk is kept as one number for each 4 KiB page; a page's bytes are its number again and again, 0 is a page of zeros.
So a copy of a disk at any instant, which is what a point must restore, costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.simulation.threads import Lock
from tests.simulation.world import EPOCH, Process, World

from farshore_engine.agent.freezing import FreezeFailed, Opened
from farshore_engine.agent.tracker.interface import Sink
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count

PAGE = 4096
PAGES = BLOCK_SIZE // PAGE
Pages = npt.NDArray[np.uint32]


def bytes_of(pages: Pages) -> npt.NDArray[np.uint8]:
    """Return the bytes of pages."""
    return np.repeat(pages, PAGE // 4).view(np.uint8)


@dataclass(eq=False)
class Write:
    """A write on its way: queued, then landed on the disk, then completed."""

    disk: str
    first: int  # page
    count: int
    content: int
    raw: bool  # not held back by a freeze
    landed: bool = False
    before: Pages = field(default_factory=lambda: np.zeros(0, np.uint32))  # what was there when it landed


@dataclass(frozen=True)
class Snapshot:
    """All disks at the instant of a freeze; `either` are writes in flight then, which may be in or out.

    Only a raw write can be: a freeze waits for the others. As long as a write is not completed, nobody may rely on it.
    """

    disks: dict[str, Pages]
    either: tuple[Write, ...]
    loose: list[Write] = field(default_factory=list)  # written during the freeze by what cannot be frozen


@dataclass
class Tracing:
    """What the kernel's tracing does: its faults are set by the schedule."""

    queued: bool = True  # events of queued writes are there (False builds in a fault)
    completed: bool = True  # the same of completed ones
    lose: int = 0  # so many of the next events are lost, and counted
    late: float = 0.1  # seconds between two looks at the events


@dataclass
class Source:
    """The machine. `process` is that of its programs; it is another after each boot."""

    world: World
    disks: dict[str, Pages]
    tracing: Tracing = field(default_factory=Tracing)
    frozen: bool = False
    writers: int = 3
    idle: float = 0.05  # seconds between two writes of a program, on average
    raw: float = 0.1  # share of writes that no freeze holds back
    in_flight: list[Write] = field(default_factory=list)
    trackers: list[SimulatedTracker] = field(default_factory=list)
    snapshots: dict[float, Snapshot] = field(default_factory=dict)
    times: dict[float, float] = field(default_factory=dict)  # of points: by the process server's clock → of the freeze
    quiet: bool = False
    _content: int = 0
    _latest: Snapshot | None = None

    def boot(self) -> None:
        """Start the programs."""
        self.process = Process("machine")
        self.frozen = False
        for number in range(self.writers):
            self.world.spawn(self.process, f"program {number}", self._program)

    def reset(self) -> None:
        """The machine stops as by a power cut: writes in flight land or do not."""
        self.world.kill(self.process)
        for write in self.in_flight:
            if not write.landed and self.world.chance.random() < 0.5:
                self._land(write)
        self.in_flight = []
        self.frozen = False

    def size(self, disk: str) -> int:
        return int(self.disks[disk].size) * PAGE

    def snapshot(self, frozen_at: float) -> None:
        either = tuple(self.in_flight)
        taken = Snapshot({d: p.copy() for d, p in self.disks.items()}, either)
        self.snapshots[round(frozen_at, 6)] = self._latest = taken

    def snapshot_of(self, time: float) -> Snapshot | None:
        """Return what the disks were at the freeze of the point that has this time."""
        return self.snapshots.get(self.times.get(round(time, 6), -1.0))

    # -- programs --------------------------------------------------------------------------------------------------

    def _program(self) -> None:
        world = self.world
        while True:
            world.sleep(world.chance.expovariate(1 / self.idle))
            if self.quiet:
                continue
            self._write()

    def _write(self) -> None:
        world, chance = self.world, self.world.chance
        raw = chance.random() < self.raw
        while self.frozen and not raw:
            world.sleep(0.005)
        disk = chance.choice(sorted(self.disks))
        size = int(self.disks[disk].size)
        hot = chance.random() < 0.6
        first = chance.randrange(max(1, size // 8) if hot else size)
        count = min(size - first, chance.choice((1, 1, 2, 4, PAGES, 3 * PAGES)))
        self._content += 1
        content = 0 if chance.random() < 0.2 else self._content
        if any(w.disk == disk and w.first < first + count and first < w.first + w.count for w in self.in_flight):
            return  # programs do not write the same page twice at a time
        write = Write(disk, first, count, content, raw)
        self.in_flight.append(write)
        self._trace(write, queued=True)
        world.sleep(chance.choice((0.0, 0.0005, 0.003, 0.02)))
        self._land(write)
        world.sleep(chance.choice((0.0, 0.0, 0.001, 0.01)))
        self._trace(write, queued=False)
        self.in_flight.remove(write)

    def _land(self, write: Write) -> None:
        place = self.disks[write.disk][write.first : write.first + write.count]
        write.before = place.copy()
        place[:] = write.content
        write.landed = True
        if self.frozen and self._latest is not None:
            self._latest.loose.append(write)

    def _trace(self, write: Write, queued: bool) -> None:
        told = self.tracing.queued if queued else self.tracing.completed
        if not told:
            return
        lost = self.tracing.lose > 0
        self.tracing.lose -= lost
        for tracker in self.trackers:
            if lost:
                tracker.missing.add(write.disk)
            else:
                tracker.events.append((write.disk, write.first // PAGES, (write.first + write.count - 1) // PAGES))


class SimulatedTracker:
    """Keeps tracker.interface.Tracker's promises: events wait in the kernel until they are fetched."""

    name = "tracefs"  # of which two may watch a disk at the same time
    exact = True

    def __init__(self, source: Source) -> None:
        self._source = source
        self.events: list[tuple[str, int, int]] = []
        self.missing: set[str] = set()
        self._sink: Sink | None = None
        self._fetching = Lock()

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._source.trackers.append(self)
        world = self._source.world
        assert world.task is not None
        world.spawn(world.task.process, "tracker", self._follow)

    def barrier(self) -> None:
        self._source.world.give_way()
        self._fetch()

    def stop(self) -> None:
        if self in self._source.trackers:
            self._source.trackers.remove(self)
        self._sink = None

    def _follow(self) -> None:
        while self._sink is not None:
            self._source.world.sleep(self._source.world.chance.uniform(0.5, 1) * self._source.tracing.late)
            self._fetch()

    def _fetch(self) -> None:
        with self._fetching:  # a barrier must not overtake events that are fetched already
            if self._sink is not None:
                self._bring(self._sink)

    def _bring(self, sink: Sink) -> None:
        missing, self.missing = self.missing, set()
        events, self.events = self.events, []
        for disk in sorted(missing):
            sink.lost(disk, "events were lost")
        for disk in sorted({e[0] for e in events}):
            first = np.array([e[1] for e in events if e[0] == disk], np.int64)
            last = np.array([e[2] for e in events if e[0] == disk], np.int64)
            sink.mark(disk, first, last)


class SimulatedReader:
    """Reads as agent.source.Reader does; a read is not atomic."""

    def __init__(self, source: Source, disk: str) -> None:
        self._source = source
        self._disk = disk
        self.path = f"/dev/{disk}"
        self.size = source.size(disk)

    def current_size(self) -> int:
        return self._source.size(self._disk)

    def read(self, offset: int, length: int) -> bytes:
        target = bytearray(min(length, self.size - offset))
        self.read_into(memoryview(target), offset, len(target))
        return bytes(target)

    def read_into(self, target: memoryview, offset: int, length: int) -> None:
        world = self._source.world
        world.give_way()
        middle = length // 2 // PAGE * PAGE if world.chance.random() < 0.5 else 0
        for start, end in ((0, middle), (middle, length)):
            pages = self._source.disks[self._disk][(offset + start) // PAGE : (offset + end) // PAGE]
            target[start:end] = bytes_of(pages).data
            if end and end < length:
                world.sleep(world.chance.choice((0.0, 0.001, 0.005)))

    def close(self) -> None:
        """Nothing is open."""


class SimulatedFreezer:
    """Freezes the machine's file systems: programs wait, and what was in flight lands. A watchdog ends long freezes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._number = 0
        self._overran = False
        self.frozen_at = 0.0

    def thaw_leftovers(self) -> list[str]:
        self._source.frozen = False
        return []

    def open(self, mounts: list[Any]) -> Opened:
        return Opened(list(mounts), [])

    def flush(self, opened: Opened) -> None:
        self._source.world.give_way()

    def freeze(self, opened: Opened, bound: float) -> None:
        source, world = self._source, self._source.world
        if source.frozen:
            raise FreezeFailed("FilesystemBusy", "the file systems are frozen already")
        self.frozen_at = opened.frozen_at = round(EPOCH + world.now, 6)
        opened.began = 1000.0 + world.now
        source.frozen = True
        self._number += 1
        number = self._number
        self._overran = False

        def overrun() -> None:
            if self._number == number and source.frozen:
                source.frozen = False
                self._overran = True

        world.after(bound, overrun)
        while any(not w.raw for w in source.in_flight):
            world.sleep(0.001)

    def thaw(self, opened: Opened) -> None:
        self._source.world.check_alive()
        self._number += 1
        opened.seconds = 1000.0 + self._source.world.now - opened.began
        if self._overran:
            raise FreezeFailed("FreezeOverran", "the watchdog ended the freeze")
        self._source.frozen = False

    def close(self, opened: Opened) -> None:
        """Nothing is open."""


def differences(snapshot: Snapshot, disk: str, data: bytes | bytearray, unmarked: bool) -> list[int]:
    """Return the blocks in which restored bytes are not what the disk was at the snapshot.

    A point that is `unmarked` says of itself that it may hold what was written during the freeze.
    """
    expected = snapshot.disks[disk]
    found = np.frombuffer(data, np.uint32).reshape(-1, PAGE // 4)
    if found.shape[0] != expected.size:
        return [-1]
    wrong = found[:, 0] != expected
    for write in snapshot.either:
        if write.disk == disk:
            part = slice(write.first, write.first + write.count)
            wrong[part] &= found[part, 0] != write.content
            if write.before.size:
                wrong[part] &= found[part, 0] != write.before
    for write in snapshot.loose if unmarked else ():
        if write.disk == disk:
            wrong[write.first : write.first + write.count] = False
    torn = (found != found[:, :1]).any(axis=1)
    return sorted({int(page) // PAGES for page in np.flatnonzero(wrong | torn)})


def grid(source: Source) -> dict[str, int]:
    """Return the number of blocks of each disk."""
    return {disk: block_count(source.size(disk)) for disk in source.disks}
