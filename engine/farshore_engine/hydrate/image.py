"""Writing blocks into an image file or block device: sparse where the file system can, zeros where it cannot.

Data goes past the page cache where the file system allows it: the cache would cost more processor time than everything
else that hydration does (a page that was never used has to be cleared first), and push out what the host needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import Fault, StopFault, WaitFault

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
ZEROS = bytes(1 << 20)
SECTOR = 4096  # bytes; what goes past the page cache is aligned to this, in memory and in the file
_libc = ctypes.CDLL(None, use_errno=True)


class Image:
    """An open image of `size` bytes. Writes from several threads do not disturb each other."""

    def __init__(self, path: Path, size: int, *, fresh: bool) -> None:
        """Open it; `fresh` empties a file first, so that all of it is a hole.

        Raises:
            StopFault: a device is too small, or the path may not be written.
        """
        self.path = path
        self.size = size
        with translated(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self.is_device = stat.S_ISBLK(os.fstat(self._descriptor).st_mode)
                if self.is_device:
                    self._check_device()
                else:
                    if fresh:
                        os.ftruncate(self._descriptor, 0)
                    os.ftruncate(self._descriptor, size)
            except BaseException:
                os.close(self._descriptor)
                raise
        self._direct = self._open_direct()

    def _open_direct(self) -> int | None:
        """Return a second descriptor that goes past the page cache, None where the file system has none."""
        try:
            return os.open(self.path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return None

    def _check_device(self) -> None:
        there = os.lseek(self._descriptor, 0, os.SEEK_END)
        if there < self.size:
            raise StopFault(
                f"{self.path} has {there} bytes, the disk needs {self.size}",
                "Attach a larger device",
                reason="TooSmall",
            )

    def write(self, block: int, data: bytes | bytearray | memoryview) -> None:
        """Write data from a block on, cut at the image's end; from an `aligned_buffer` it passes the page cache by."""
        offset = block * BLOCK_SIZE
        view = memoryview(data)[: max(0, self.size - offset)]
        with translated(self.path):
            straight = len(view) // SECTOR * SECTOR if self._direct is not None else 0
            done = self._pass_by(view[:straight], offset)
            self._put(self._descriptor, view[done:], offset + done)

    def _pass_by(self, view: memoryview, offset: int) -> int:
        """Write past the page cache and return how many bytes; 0 where that cannot be after all."""
        if self._direct is None or not len(view):
            return 0
        try:
            self._put(self._direct, view, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the buffer is not aligned, or the device's sectors are larger
                raise
            return 0
        return len(view)

    @staticmethod
    def _put(descriptor: int, view: memoryview, offset: int) -> None:
        while len(view):
            done = os.pwrite(descriptor, view, offset)
            view, offset = view[done:], offset + done

    def clear(self, first: int, count: int) -> None:
        """Make blocks read as zeros, without taking space where that is possible."""
        offset = first * BLOCK_SIZE
        length = min(count * BLOCK_SIZE, self.size - offset)
        if length <= 0:
            return
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        result = _libc.fallocate(self._descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
        if result == 0:
            return
        if ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV):
            with translated(self.path):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with translated(self.path):
            while length > 0:
                done = os.pwrite(self._descriptor, ZEROS[:length], offset)
                offset, length = offset + done, length - done

    def sync(self) -> None:
        """Make everything written so far durable."""
        with translated(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it, without making anything durable."""
        if self._direct is not None:
            os.close(self._direct)
        os.close(self._descriptor)


def aligned_buffer(size: int) -> memoryview:
    """Return memory that can be written past the page cache; to be used again and again."""
    return memoryview(mmap.mmap(-1, size))


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn an OSError about an image into a fault."""
    try:
        yield
    except OSError as error:
        raise _fault(path, error) from error


def _fault(path: Path, error: OSError) -> Fault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WaitFault(f"no space left for the image {path}", "Free space there; the work resumes", reason="DiskFull")
    return StopFault(
        f"cannot write the image {path}: {error.strerror or error}",
        "Check path, permissions and disk",
        reason="ImageError",
    )
