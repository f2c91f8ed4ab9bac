"""Freezes all file systems of the protected disks together, and sees to it that they thaw.

Order: the file system mounted last is frozen first and thawed last, so one that lies in a file of another is never
asked to write into a frozen one. A record in a runtime directory tells a later agent what may be left frozen.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from farshore_engine.agent import syscalls
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.mounts import Mount
from farshore_engine.agent.watchdog import Watchdog

log = logging.getLogger(LOGGER_NAME)

HURRIED = -15  # nice value
NO_FREEZE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)


class FreezeFailed(Exception):
    """No point can be made of this freeze. `reason` is a CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class Opened:
    """File systems opened for a freeze, in mount order, and what became of it."""

    mounts: list[Mount]
    descriptors: list[int]
    frozen: list[int] = field(default_factory=list)  # descriptors, in the order of freezing
    unfreezable: list[Mount] = field(default_factory=list)
    frozen_at: float = 0.0  # seconds since the epoch, before the first FIFREEZE
    began: float = 0.0  # monotonic
    seconds: float = 0.0  # first FIFREEZE to last thaw

    def explain(self, late: dict[str, int]) -> str:
        """Say by what so many blocks of which disk were written although the file systems were frozen."""
        blocks = ", ".join(f"{number} blocks of {disk}" for disk, number in late.items())
        parts = ", ".join(f"{m.point} ({m.kind})" for m in self.unfreezable) or "programs that write to raw devices"
        return f"{blocks} were written during the freeze by what cannot be frozen: {parts}"


def hurry() -> None:
    """Put the calling thread before the programs that wait for the thaw; without effect where that is not allowed."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HURRIED)


@contextmanager
def hurried() -> Iterator[None]:
    """Do the same for the length of the block."""
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    hurry()
    try:
        yield
    finally:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, before)


class Freezer:
    """Freezes and thaws under the watchdog's eye.

    Args:
        watchdog: started; a freeze without its answer does not happen.
        runtime_dir: where the record of a freeze is kept while it lasts.
    """

    def __init__(self, watchdog: Watchdog, runtime_dir: Path) -> None:
        self._watchdog = watchdog
        self._runtime_dir = runtime_dir
        self._record = runtime_dir / "frozen.json"

    def thaw_leftovers(self) -> list[str]:
        """Thaw what an earlier agent recorded and cannot have thawed; returns the mount points that were frozen."""
        try:
            points = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        thawed = []
        for point in points:
            with suppress(OSError):
                fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    syscalls.thaw(fd)
                    thawed.append(point)
                finally:
                    os.close(fd)
        with suppress(OSError):
            self._record.unlink()
        return thawed

    def open(self, mounts: list[Mount]) -> Opened:
        """Open the file systems and write down their names; call `close` in the end.

        Raises:
            FreezeFailed: one cannot be opened.
        """
        opened = Opened(list(mounts), [])
        try:
            self._watchdog.start()
            for mount in mounts:
                opened.descriptors.append(os.open(mount.point, os.O_RDONLY | os.O_CLOEXEC))
            self._runtime_dir.mkdir(parents=True, exist_ok=True)
            temporary = self._record.with_suffix(".new")
            temporary.write_text(json.dumps([m.point for m in mounts]), encoding="utf-8")
            temporary.replace(self._record)
        except OSError as error:
            self.close(opened)
            raise FreezeFailed(
                "FreezeNotPossible", f"a file system cannot be prepared for the freeze: {error}"
            ) from error
        return opened

    def flush(self, opened: Opened) -> None:
        """Write back what is dirty in memory, so that the freeze itself has little to write."""
        for fd in opened.descriptors:
            with suppress(OSError):
                syscalls.syncfs(fd)

    def freeze(self, opened: Opened, bound: float) -> None:
        """Freeze all; from here until `thaw` touch no file.

        Raises:
            FreezeFailed: one is frozen by somebody else, or fails; everything is thawed then.
        """
        self.flush(opened)  # once more, right before: what is dirty in memory now is written inside the freeze
        try:
            self._watchdog.arm(opened.descriptors, bound)
        except OSError as error:
            raise FreezeFailed("WatchdogGone", f"nothing is frozen without a watchdog: {error}") from error
        opened.frozen_at, opened.began = time.time(), time.monotonic()
        for mount, fd in reversed(list(zip(opened.mounts, opened.descriptors, strict=True))):
            try:
                syscalls.freeze(fd)
            except OSError as error:
                if error.errno in NO_FREEZE:
                    opened.unfreezable.append(mount)
                    continue
                with suppress(FreezeFailed):
                    self.thaw(opened)
                if error.errno == errno.EBUSY:
                    message = f"{mount.point} is frozen by somebody else; another backup may be running"
                    raise FreezeFailed("FilesystemBusy", message) from error
                raise FreezeFailed("FreezeRefused", f"{mount.point} cannot be frozen: {error}") from error
            opened.frozen.append(fd)

    def thaw(self, opened: Opened) -> None:
        """Thaw all, whatever happens to one of them.

        Raises:
            FreezeFailed: the freeze had ended before: by the watchdog, or by somebody else.
        """
        gone = 0
        while opened.frozen:
            try:
                syscalls.thaw(opened.frozen.pop())
            except OSError:
                gone += 1
        opened.seconds = time.monotonic() - opened.began
        try:
            overran = self._watchdog.disarm()
        except OSError:
            overran = False
            log.warning("the watchdog died during a freeze", extra={"fields": {"freezeSeconds": opened.seconds}})
        if overran:
            raise FreezeFailed("FreezeOverran", f"the watchdog ended the freeze after {opened.seconds:.1f} s")
        if gone:
            raise FreezeFailed("FreezeBroken", "somebody else thawed a file system during the freeze")

    def close(self, opened: Opened) -> None:
        """Let go of the file systems and of the record."""
        for fd in opened.descriptors:
            with suppress(OSError):
                os.close(fd)
        opened.descriptors = []
        with suppress(OSError):
            self._record.unlink()
