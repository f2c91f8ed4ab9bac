"""Where built and downloaded tools are kept between runs, so that only the first run is slow.

An entry is a directory that appears complete or not at all. Runs that want the same entry at once wait for the one
that makes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str], None]
"""Takes one line about what is being done; called in the thread that does it."""


def silent(_line: str) -> None:
    """Show no progress."""


def cache_root() -> Path:
    """Give the directory for everything that outlives a run: $FARSHORE_CACHE, else ~/.cache/farshore."""
    chosen = os.environ.get("FARSHORE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "farshore"


def fingerprint(*parts: bytes | str) -> str:
    """Give 16 hex digits that change when any part does."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def cached(name: str, key: str, make: Callable[[Path], None], progress: Progress = silent) -> Path:
    """Give the cache entry `name/key`, made by `make(empty directory)` if it is not there yet.

    Raises whatever `make` raises; then no entry remains.
    """
    entry = cache_root() / name / key
    if entry.is_dir():
        return entry
    entry.parent.mkdir(parents=True, exist_ok=True)
    with only_one(entry.with_name(f".{key}.lock"), lambda: progress(f"waiting for another run that makes {name}")):
        if entry.is_dir():
            return entry
        for left_over in entry.parent.glob(f".{key}.scratch-*"):  # of a run that was killed: nobody else makes it now
            shutil.rmtree(left_over)
        scratch = Path(tempfile.mkdtemp(prefix=f".{key}.scratch-", dir=entry.parent))
        try:
            make(scratch)
            scratch.chmod(0o755)
            scratch.rename(entry)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return entry


@contextmanager
def only_one(lock: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file, after a call of `waiting` if another holds it; the kernel frees it when its holder ends."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Pace:
    """Lets a line through at most every `interval` seconds, so that long work shows life without flooding a log."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._started = self._last = clock()

    def due(self) -> bool:
        """Tell whether it is time for the next line, and count from now on if so."""
        now = self._clock()
        if now - self._last < self._interval:
            return False
        self._last = now
        return True

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return self._clock() - self._started
