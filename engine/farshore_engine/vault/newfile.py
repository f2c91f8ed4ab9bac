"""Writes large new files past the page cache: their bytes are not read again soon, and copying them there costs more
than encrypting them. Gives out the aligned memory which that needs, and takes it back to be used again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

ALIGNMENT = 4096  # bytes; of memory, offset and length, enough for every file system
DIRECT_FROM = 1 << 20  # bytes; smaller writes gain nothing


def create_file(
    path: Path, data: bytes | bytearray | memoryview, sync: Callable[[int], None] | None = os.fdatasync
) -> None:
    """Write `data` to a new file and have `sync` make it durable; its name in the directory is the caller's business.

    Raises:
        OSError: the file exists, or cannot be written; nothing is left behind then.
    """
    view = memoryview(data).cast("B")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if len(view) >= DIRECT_FROM and _address(view) % ALIGNMENT == 0:
            view = _write_directly(descriptor, view)
        while len(view):
            view = view[os.write(descriptor, view) :]
        if sync is not None:
            sync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _write_directly(descriptor: int, view: memoryview) -> memoryview:
    """Write as much as the file system takes past the page cache; return what is left, at least the unaligned end."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        while whole := len(view) // ALIGNMENT * ALIGNMENT:
            count = os.write(descriptor, view[:whole])
            view = view[count:]
            if count % ALIGNMENT:  # the medium is nearly full: what follows is not aligned any more
                break
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # there are file systems without
            raise
    finally:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return view


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


class Buffers:
    """Page-aligned memory of one size that is used again once nobody refers to it any more. Thread-safe."""

    def __init__(self, size: int, kept: int) -> None:
        """Give out buffers of `size` bytes, and keep at most `kept` that are not in use."""
        self._size = size
        self._kept = kept
        self._spare: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def take(self) -> memoryview:
        """Return a buffer with whatever it held before; it comes back when the last view of it is gone."""
        with self._lock:
            area = self._spare.pop() if self._spare else mmap.mmap(-1, self._size)
        lease = np.frombuffer(area, np.uint8)
        weakref.finalize(lease, self._take_back, area).atexit = False
        return memoryview(lease)  # type: ignore[arg-type]

    def _take_back(self, area: mmap.mmap) -> None:
        with self._lock:
            if len(self._spare) < self._kept:
                self._spare.append(area)
