"""The tracker for kernels whose tracefs is shut: blktrace, read by a thread on each CPU.

The kernel writes a CPU's records on that CPU without a lock, so a reader on another CPU now and then sees half of one:
9 of 11 runs lost events that nobody counted. A reader pinned to the CPU cannot run while one is being written. What
is dropped for want of room is counted by the kernel, a gap in the records' numbers or in the balance of `accounting`
notices the rest. Refused where the kernel is locked down.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farshore_engine.agent.tracker.accounting import Books
from farshore_engine.agent.tracker.blkchannel import Channel
from farshore_engine.agent.tracker.blkrecords import ACTION_COMPLETE, ACTION_QUEUE, Records, RecordStream, writes
from farshore_engine.agent.tracker.instance import DebugFs
from farshore_engine.agent.tracker.interface import BLOCK_SECTORS_SHIFT, Sink, TrackedDisk

DRAIN_SECONDS = 0.1
CHECK_SECONDS = 1.0
BUFFER_SIZE, BUFFERS = 1 << 20, 8  # bytes, for each CPU and disk: 512 KiB x 8 dropped in bursts of 45k events/s
ALL_BUFFERS = 128 << 20  # bytes in the kernel, at most
LEAST_BUFFER = 64 << 10
READ_SIZE = 4 << 20
BARRIER_SECONDS = 60.0  # after which a reader that is not heard of counts as broken

_TakeIn = Callable[[TrackedDisk, Records], None]


def buffers_for(disks: int, cpus: int) -> tuple[int, int]:
    """Return size in bytes and number of a CPU's buffers for one disk, within the bound for all of them."""
    share = ALL_BUFFERS // (max(1, disks) * max(1, cpus) * BUFFERS)
    size = LEAST_BUFFER
    while size * 2 <= min(share, BUFFER_SIZE):
        size *= 2
    return size, BUFFERS


@dataclass(slots=True)
class _Source:
    """The records of one disk on one CPU."""

    disk: TrackedDisk
    fd: int
    stream: RecordStream = field(default_factory=RecordStream)


class BlktraceTracker:
    """See interface.Tracker.

    Args:
        disks: what to track.
        scratch: a directory where debugfs may be mounted when nobody has, and where notes of ownership are kept.
        actions: the kinds of records that mark; tests leave some out to show that each is needed.
        buffers: size in bytes and number for each CPU and disk; None chooses by the machine.
    """

    name = "blktrace"
    exact = True

    def __init__(
        self,
        disks: tuple[TrackedDisk, ...],
        scratch: Path,
        actions: tuple[int, ...] = (ACTION_QUEUE, ACTION_COMPLETE),
        buffers: tuple[int, int] | None = None,
    ) -> None:
        self._disks = disks
        self._scratch = scratch
        self._actions = actions
        self._buffers = buffers or buffers_for(len(disks), os.sysconf("SC_NPROCESSORS_CONF"))
        self._debugfs: DebugFs | None = None
        self._channels: dict[str, Channel] = {}
        self._readers: list[_Reader] = []
        self._dropped: dict[str, int] = {}
        self._books: Books | None = None
        self._check_lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, sink: Sink) -> None:
        """Begin to track; raises OSError when the kernel cannot, or when a disk has a tracer already."""
        self._sink = sink
        try:
            self._debugfs = DebugFs(self._scratch)
            for disk in self._disks:
                channel = Channel(disk.name, self._debugfs.root, self._scratch, self._buffers)
                self._channels[disk.id] = channel
                self._dropped[disk.id] = channel.dropped()
            for cpu in sorted({cpu for channel in self._channels.values() for cpu in channel.cpus}):
                sources = [_Source(d, fd) for d in self._disks if (fd := self._channels[d.id].cpus.get(cpu, -1)) >= 0]
                self._readers.append(_Reader(cpu, sources, self._take_in, sink))
            for channel in self._channels.values():
                channel.start()
            if ACTION_COMPLETE in self._actions:
                self._books = Books(self._disks, sink)
        except OSError:
            self.stop()
            raise
        self._thread = threading.Thread(target=self._check_for_ever, name="tracker", daemon=True)
        self._thread.start()

    def barrier(self) -> None:
        """Have every CPU's reader drain what was acknowledged before this call, then check the kernel's counters."""
        with self._check_lock:
            if not self._channels:
                return
            if self._books is None:
                self._drain()
                shown = {}
            else:
                shown = self._books.settle(self._drain)
            self._report_losses(shown)

    def stop(self) -> None:
        """Remove the traces from the kernel."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._check_lock:
            for reader in self._readers:
                reader.stop()
            self._readers = []
            for channel in self._channels.values():
                channel.close()
            self._channels = {}
            if self._debugfs is not None:
                self._debugfs.close()
                self._debugfs = None

    def _check_for_ever(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            self.barrier()

    def _drain(self) -> None:
        tickets = [reader.ask() for reader in self._readers]
        deadline = time.monotonic() + BARRIER_SECONDS
        for reader, ticket in zip(self._readers, tickets, strict=True):
            if not reader.wait(ticket, deadline):
                for disk in self._disks:
                    self._sink.lost(disk.id, f"the trace of CPU {reader.cpu} cannot be read: {reader.failure}")

    def _report_losses(self, shown: dict[str, int]) -> None:
        for disk in self._disks:
            dropped = self._channels[disk.id].dropped()
            if dropped > self._dropped[disk.id]:
                count, self._dropped[disk.id] = dropped - self._dropped[disk.id], dropped
                self._sink.lost(disk.id, f"the trace buffer overflowed: {count} events dropped")
                shown.pop(disk.id, None)
                if self._books is not None:
                    self._books.forgive(disk)
        if self._books is not None:
            self._books.report(shown)

    def _take_in(self, disk: TrackedDisk, records: Records) -> None:
        for action in self._actions:
            found = writes(records, action)
            if not found.sector.size:
                continue
            last = (found.sector + found.sectors - 1) >> BLOCK_SECTORS_SHIFT
            self._sink.mark(disk.id, found.sector >> BLOCK_SECTORS_SHIFT, last)
            # After the mark: a balance that is right says that everything is marked.
            if action == ACTION_COMPLETE and self._books is not None:
                self._books.note(disk.id, int(found.sectors.sum()))


class _Reader:
    """A thread on one CPU that reads the traces of all disks there, ten times a second and when asked."""

    def __init__(self, cpu: int, sources: list[_Source], take_in: _TakeIn, sink: Sink) -> None:
        """Start the thread; raises OSError when it may not run on that CPU."""
        self.cpu = cpu
        self.failure = "it does not answer"
        self._sources = sources
        self._take_in = take_in
        self._sink = sink
        self._buffer = bytearray(READ_SIZE)
        self._changed = threading.Condition()
        self._asked = self._answered = 0
        self._ended = self._broken = False
        self._pinned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"trace{cpu}", daemon=True)
        self._thread.start()
        self._pinned.wait()
        if self._broken:
            self._thread.join()
            raise OSError(f"the trace of CPU {cpu} cannot be read from there: {self.failure}")

    def ask(self) -> int:
        """Ask for a drain; returns what to wait for."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    def wait(self, ticket: int, deadline: float) -> bool:
        """Wait until a drain that began after `ask` is over; returns False when there will be none."""
        with self._changed:
            while self._answered < ticket and not self._broken and time.monotonic() < deadline:
                self._changed.wait(1.0)
            return self._answered >= ticket

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            online = _online(self.cpu)
            if online:
                os.sched_setaffinity(0, {self.cpu})
            self._pinned.set()
            while True:
                with self._changed:
                    if not self._ended and self._asked == self._answered:
                        self._changed.wait(DRAIN_SECONDS)
                    if self._ended:
                        return
                    ticket = self._asked
                if not online and _online(self.cpu):
                    os.sched_setaffinity(0, {self.cpu})  # it was switched on meanwhile
                    online = True
                for source in self._sources:
                    self._drain(source)
                with self._changed:
                    self._answered = ticket
                    self._changed.notify_all()
        except OSError as error:
            with self._changed:
                self.failure, self._broken = str(error), True
                self._changed.notify_all()
            self._pinned.set()

    def _drain(self, source: _Source) -> None:
        budget = BUFFERS * BUFFER_SIZE * 2  # what can have been there when we began, and more
        while budget > 0:
            try:
                count = os.readv(source.fd, [self._buffer])
            except BlockingIOError:
                break
            if count <= 0:
                break
            budget -= count
            self._take_in(source.disk, source.stream.feed(bytes(memoryview(self._buffer)[:count])))
        for fault in source.stream.faults:
            self._sink.lost(source.disk.id, fault)
        source.stream.faults.clear()


def _online(cpu: int) -> bool:
    """Whether the CPU runs; the first often cannot be switched off and has no such file."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/online").read_text().strip() != "0"
    except OSError:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}").is_dir()
