"""Writes large new files past the page cache: their bytes are not read again soon, and copying them there costs more
than encrypting them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
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
