"""Which blocks of a point are in a local file, on record in a way that survives every crash.

Two files beside the image hold a byte for each block:

    IMAGE.map   what is durable: written only after the image's data was made so. Trusted always.
    IMAGE.live  what is there: written at once. Trusted while the host has not restarted since, because then nothing
                that was written is lost, whatever became of the process.

So a killed server goes on where it was, and after a power cut the disk is as the guest last flushed it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks.grid import runs_of
from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.image import translated

HEADER = 4096  # bytes
FORMAT = 1
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MAP, LIVE = ".map", ".live"


class Held(IntEnum):
    """What the local file holds of a block."""

    ABSENT = 0  # nothing: the point's block counts
    FETCHED = 1  # the point's block
    WRITTEN = 2  # what the machine wrote
    ZEROED = 3  # zeros that the machine made, as a hole


@dataclass(frozen=True)
class Identity:
    """Which disk of which point an image began as; `root` is the digest of its map."""

    machine: str
    disk: str
    point: str
    root: str
    size: int


class Presence:
    """The record of one image. Thread-safe."""

    def __init__(self, image: Path, identity: Identity, blocks: int) -> None:
        """Open the record of `image`, or begin one; an image that is empty is not there yet: the caller sizes it after.

        Raises:
            StopFault: the image is there without a record, or began as something else.
        """
        self.states: npt.NDArray[np.uint8] = np.zeros(blocks, np.uint8)
        self._identity = identity
        self._lock = threading.Lock()
        self._persisting = threading.Lock()
        self._unsaved: list[tuple[int, int]] = []
        known = self._known(image)
        self.resumed = known is not None
        with translated(image):
            if known is not None:
                self.states[:] = known
                self._live = self._begin(image.with_name(image.name + LIVE), _boot())
                self._map = os.open(image.with_name(image.name + MAP), os.O_RDWR | os.O_CLOEXEC)
            else:
                self._map = self._begin(image.with_name(image.name + MAP), "")
                self._live = self._begin(image.with_name(image.name + LIVE), _boot())
        if known is not None:  # what only the live record knew has to become durable too
            self._unsaved = [(int(first), int(count)) for first, count in runs_of(np.flatnonzero(self.states))]

    def close(self) -> None:
        """Close the files."""
        os.close(self._map)
        os.close(self._live)

    @property
    def absent(self) -> int:
        """How many blocks only the point holds."""
        return int(np.count_nonzero(self.states == Held.ABSENT))

    def mark(self, first: int, count: int, held: Held) -> None:
        """Note what the image holds of blocks, once it does; only what changed is written."""
        now = self.states[first : first + count]
        if (now == held).all():
            return
        with self._lock:
            now[:] = held
            self._unsaved.append((first, count))
            os.pwrite(self._live, now.tobytes(), HEADER + first)

    def persist(self, sync: Callable[[], None]) -> None:
        """Make what was marked so far durable, after `sync` did so with the image's data."""
        with self._persisting:
            with self._lock:
                unsaved, self._unsaved = self._unsaved, []
                snapshot = [(first, self.states[first : first + count].tobytes()) for first, count in unsaved]
            try:
                sync()
                if snapshot:
                    for first, data in snapshot:
                        os.pwrite(self._map, data, HEADER + first)
                    os.fdatasync(self._map)
            except BaseException:
                with self._lock:
                    self._unsaved = unsaved + self._unsaved
                raise

    def _known(self, image: Path) -> npt.NDArray[np.uint8] | None:
        """Return what is on record of an image that is there, None when there is none of either."""
        if not image.exists() or image.stat().st_size == 0:
            return None
        durable = self._read(image.with_name(image.name + MAP), "")
        live = self._read(image.with_name(image.name + LIVE), _boot())
        if durable is not None:
            return durable if live is None else live
        raise StopFault(
            f"{image} is there and is not an overlay of {self._identity.point} of {self._identity.machine}, disk "
            f"{self._identity.disk}",
            "Name another file, or remove this one with its .map and .live",
            reason="WrongImage",
        )

    def _header(self, boot: str) -> bytes:
        text = json.dumps({"format": FORMAT, "boot": boot, **asdict(self._identity)}, sort_keys=True)
        return text.encode().ljust(HEADER)

    def _read(self, path: Path, boot: str) -> npt.NDArray[np.uint8] | None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if content[:HEADER] != self._header(boot) or len(content) != HEADER + self.states.size:
            return None
        states = np.frombuffer(content, np.uint8, offset=HEADER)
        return states if int(states.max(initial=0)) <= max(Held) else None

    def _begin(self, path: Path, boot: str) -> int:
        """Replace a record by one that says what `states` says, durably, and return it open."""
        new = path.with_name(path.name + ".new")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(self._header(boot) + self.states.tobytes())
            os.fsync(descriptor)
            new.replace(path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _boot() -> str:
    return BOOT_ID.read_text().strip()
