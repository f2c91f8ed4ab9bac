"""A point with a local file over it: the machine writes to the file, and the rest of the point streams into it.

The file is the raw image of the disk, with holes where a block is still in the vault only. When none is left, the file
alone is the disk, and neither the vault nor this server is needed to start the machine again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, blocks_touched, runs_of
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.hydrate.image import Image, translated
from farshore_engine.nbd.device import DeviceError, Extent
from farshore_engine.nbd.pointdevice import PointDevice
from farshore_engine.nbd.presence import Held, Identity, Presence
from farshore_engine.nbd.protocol import Error

log = structlog.get_logger(__name__)


class Overlay:
    """A writable device over a PointDevice; see the module's docstring."""

    read_only = False

    def __init__(self, base: PointDevice, path: Path) -> None:
        """Open the overlay `path`, or make it.

        Raises:
            StopFault: there is a file that is no overlay of this disk, or it cannot be written.
        """
        self.base = base
        self.size = base.size
        self.path = path
        self._writing = threading.Lock()  # between what the machine writes and what streams in
        self._file = _open_alone(path)
        try:
            self.presence = Presence(path, identity_of(base), base.blocks)
            self.image = Image(path, self.size, fresh=False)
            if (
                self.presence.resumed
            ):  # writes that were never on record must not show through where the point has holes
                for first, count in runs_of(self.absent(0, base.blocks)):
                    self.image.clear(first, count)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Make everything durable and close it; the base stays open."""
        try:
            self.flush()
        finally:
            self.image.close()
            self.presence.close()
            os.close(self._file)

    def at_hand(self, offset: int, length: int) -> bool:
        """See Device."""
        first, count = blocks_touched(offset, length)
        absent = np.flatnonzero(self.presence.states[first : first + count] == Held.ABSENT)
        return all(self.base.at_hand((first + int(at)) * BLOCK_SIZE, 1) for at in absent)

    def read(self, offset: int, length: int) -> Sequence[memoryview]:
        """See Device."""
        parts: list[memoryview] = []
        first, count = blocks_touched(offset, length)
        states = self.presence.states[first : first + count].copy()
        for start, run in _equal_runs(states == Held.ABSENT):
            begin = max(offset, (first + start) * BLOCK_SIZE)
            end = min(offset + length, (first + start + run) * BLOCK_SIZE)
            if states[start] == Held.ABSENT:
                parts += self.base.read(begin, end - begin)
            else:
                parts.append(self._read_file(begin, end - begin))
        return parts

    def write(self, offset: int, data: memoryview) -> None:
        """See Device. A block of which a part is written is fetched first."""
        first, count = blocks_touched(offset, len(data))
        if not count:
            return
        edges = self._edges(offset, len(data))
        with self._writing, _errors():
            for block, base in edges.items():
                if self.presence.states[block] == Held.ABSENT:
                    self._put(block * BLOCK_SIZE, base[: self.size - block * BLOCK_SIZE])
            self._put(offset, data)
            self.presence.mark(first, count, Held.WRITTEN)

    def zero(self, offset: int, length: int, *, keep_space: bool) -> None:
        """See Device."""
        first = -(-offset // BLOCK_SIZE)
        end = self.base.blocks if offset + length == self.size else (offset + length) // BLOCK_SIZE
        if end <= first or keep_space:
            self._write_zeros(offset, length)
            return
        self._write_zeros(offset, first * BLOCK_SIZE - offset)
        with self._writing, _errors():
            self.image.clear(first, end - first)
            self.presence.mark(first, end - first, Held.ZEROED)
        behind = end * BLOCK_SIZE
        self._write_zeros(behind, offset + length - behind)

    def trim(self, offset: int, length: int) -> None:
        """See Device; parts of blocks are kept."""
        first = -(-offset // BLOCK_SIZE)
        end = self.base.blocks if offset + length == self.size else (offset + length) // BLOCK_SIZE
        if end > first:
            with self._writing, _errors():
                self.image.clear(first, end - first)
                self.presence.mark(first, end - first, Held.ZEROED)

    def flush(self) -> None:
        """See Device."""
        with _errors():
            self.presence.persist(lambda: os.fdatasync(self._file))

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, Extent]]:
        """See Device."""
        first, count = blocks_touched(offset, length)
        states = self.presence.states[first : first + count].copy()
        kinds = np.where(states == Held.WRITTEN, Held.FETCHED, states)  # both are data
        at = 0
        while at < kinds.size:
            run = _run_at(kinds, at)
            begin = max(offset, (first + at) * BLOCK_SIZE)
            end = min(offset + length, (first + at + run) * BLOCK_SIZE)
            if kinds[at] == Held.ABSENT:
                yield from self.base.extents(begin, end - begin)
            else:
                yield end - begin, Extent.HOLE if kinds[at] == Held.ZEROED else Extent.DATA
            at += run

    def absent(self, first: int, count: int) -> Indexes:
        """Return which of the blocks are not in the file."""
        return np.flatnonzero(self.presence.states[first : first + count] == Held.ABSENT) + first

    def store(self, indexes: Indexes, buffer: memoryview) -> None:
        """Take in blocks of the point, one after another in an aligned buffer, where the machine has written none."""
        with self._writing, _errors():
            still = np.flatnonzero(self.presence.states[indexes] == Held.ABSENT)
            for at, run in runs_of(still):
                for first, count in runs_of(indexes[at : at + run]):
                    place = at + int(np.searchsorted(indexes[at : at + run], first))
                    self.image.write(first, buffer[place * BLOCK_SIZE : (place + count) * BLOCK_SIZE])
                    self.presence.mark(first, count, Held.FETCHED)

    def store_holes(self, indexes: Indexes) -> None:
        """Note that blocks of the point are holes, where the machine has written none."""
        with self._writing, _errors():
            still = indexes[self.presence.states[indexes] == Held.ABSENT]
            for first, count in runs_of(still):
                self.presence.mark(first, count, Held.ZEROED)

    def _write_zeros(self, offset: int, length: int) -> None:
        while length > 0:
            step = min(length, 1 << 20)
            self.write(offset, memoryview(bytes(step)))
            offset, length = offset + step, length - step

    def _edges(self, offset: int, length: int) -> dict[int, memoryview]:
        """Return the point's content of the absent blocks that are written in part."""
        first, count = blocks_touched(offset, length)
        partial = set()
        if offset % BLOCK_SIZE:
            partial.add(first)
        if (offset + length) % BLOCK_SIZE and offset + length != self.size:
            partial.add(first + count - 1)
        absent = sorted(block for block in partial if self.presence.states[block] == Held.ABSENT)
        return {block: self.base.fetch(block, 1)[0] for block in absent}

    def _put(self, offset: int, view: memoryview) -> None:
        while len(view):
            done = os.pwrite(self._file, view, offset)
            view, offset = view[done:], offset + done

    def _read_file(self, offset: int, length: int) -> memoryview:
        data = memoryview(bytearray(length))
        done = 0
        with _errors():
            while done < length:
                count = os.preadv(self._file, [data[done:]], offset + done)
                if count == 0:
                    raise DeviceError(Error.EIO, f"{self.path} is shorter than its disk")
                done += count
        return data


def _open_alone(path: Path) -> int:
    """Open the overlay's file, made if need be, for one server only."""
    with translated(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StopFault(
                f"the overlay {path} is being served already", "Use it there, or name another file", reason="InUse"
            ) from None
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # or it would read holes that are filled meanwhile
    return descriptor


def identity_of(base: PointDevice) -> Identity:
    """Return what an overlay of the device is of."""
    found = base.reader.disk(base.disk)
    root = found.root.digest if found.root is not None else ""
    machine = base.reader.vault.access.names.machine
    return Identity(machine, base.disk, base.reader.point.manifest.name, root, base.size)


def _run_at(values: npt.NDArray[Any], at: int) -> int:
    """Return how many equal values there are from `at` on."""
    differs = values[at:] != values[at]
    return int(np.argmax(differs)) if differs.any() else values.size - at


def _equal_runs(values: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    at = 0
    while at < values.size:
        run = _run_at(values, at)
        yield at, run
        at += run


@contextmanager
def _errors() -> Iterator[None]:
    """Tell the client what the local disk cannot do."""
    try:
        yield
    except Fault as fault:
        log.error("nbd overlay failed", why=str(fault))
        raise DeviceError(Error.ENOSPC if fault.reason == "DiskFull" else Error.EIO, str(fault)) from fault
    except OSError as error:
        log.error("nbd overlay failed", why=str(error))
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DeviceError(Error.ENOSPC if full else Error.EIO, str(error)) from error
