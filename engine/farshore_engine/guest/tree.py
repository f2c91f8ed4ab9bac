"""A mounted file tree of a guest, which may lie: no symbolic link in it leads out of it.

Every path is resolved by the kernel as a chroot would (openat2 with RESOLVE_IN_ROOT, Linux 5.6), whatever the guest's
links say, so that preparing a hostile disk cannot change the host.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import struct
from pathlib import PurePosixPath

SYS_OPENAT2 = 437  # on every architecture
RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x02, 0x10
LARGEST = 1 << 20  # bytes of a file that is edited
NOTE = "note: "  # begins what is told of a guest and was no change of it
WAS = ".farshore-was"  # suffix of what was there before
_libc = ctypes.CDLL(None, use_errno=True)


class Tree:
    """The tree below a directory. Paths are absolute in the guest."""

    def __init__(self, root: str) -> None:
        """Open it; use `close` in the end."""
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._root)

    def exists(self, path: str) -> bool:
        """Whether the path names anything, a dangling link included."""
        return self._status(path) is not None

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory, through links of the guest."""
        try:
            os.close(self._open(path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def read(self, path: str) -> str | None:
        """Return a small text file, None if there is none."""
        try:
            handle = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode) or os.fstat(handle).st_size > LARGEST:
                return None
            return file.read(LARGEST).decode(errors="surrogateescape")

    def write(self, path: str, text: str, mode: int = 0o644) -> bool:
        """Replace a file, whole or not at all, and keep its mode and owner; returns whether that changed anything."""
        if self.read(path) == text:
            return False
        parent, name = self._parent(path, create=True)
        temporary = f".farshore-{secrets.token_hex(4)}"
        try:
            before = self._status(path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(temporary, flags, 0o600, dir_fd=parent)
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode(errors="surrogateescape"))
                regular = before is not None and stat.S_ISREG(before.st_mode)
                os.fchmod(handle, stat.S_IMODE(before.st_mode) if regular and before is not None else mode)
                if regular and before is not None:
                    os.fchown(handle, before.st_uid, before.st_gid)
                file.flush()
                os.fsync(handle)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            os.close(parent)
        return True

    def set_aside(self, path: str) -> bool:
        """Give a file another name, under which nobody looks for it; returns whether there was one."""
        if not self.exists(path):
            return False
        parent, name = self._parent(path)
        try:
            os.rename(name, name + WAS, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            os.close(parent)
        return True

    def put_back(self, path: str) -> bool:
        """Undo `set_aside`; returns whether there was anything to put back."""
        if not self.exists(path + WAS):
            return False
        parent, name = self._parent(path)
        try:
            os.rename(name + WAS, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            os.close(parent)
        return True

    def remove(self, path: str) -> bool:
        """Remove a file, a link itself, or a directory with all that is in it; returns whether there was anything."""
        if not self.exists(path):
            return False
        parent, name = self._parent(path)
        try:
            _remove(parent, name)
        finally:
            os.close(parent)
        return True

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none if it is none."""
        try:
            handle = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return sorted(os.listdir(handle))  # noqa: PTH208 - of a descriptor
        finally:
            os.close(handle)

    def _status(self, path: str) -> os.stat_result | None:
        try:
            parent, name = self._parent(path)
        except OSError:
            return None
        try:
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return None
        finally:
            os.close(parent)

    def _parent(self, path: str, *, create: bool = False) -> tuple[int, str]:
        pure = PurePosixPath(path)
        if ".." in pure.parts or not pure.name:
            raise OSError(errno.EINVAL, f"{path} is no path of a file")
        try:
            return self._open(str(pure.parent), os.O_RDONLY | os.O_DIRECTORY), pure.name
        except FileNotFoundError:
            if not create:
                raise
        above, name = self._parent(str(pure.parent), create=True)
        try:
            os.mkdir(name, 0o755, dir_fd=above)
        finally:
            os.close(above)
        return self._open(str(pure.parent), os.O_RDONLY | os.O_DIRECTORY), pure.name

    def _open(self, path: str, flags: int) -> int:
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        handle: int = _libc.syscall(
            SYS_OPENAT2, self._root, os.fsencode(path.lstrip("/") or "."), how, ctypes.c_size_t(len(how))
        )
        if handle < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return handle


def _remove(parent: int, name: str) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for inner in os.listdir(handle):  # noqa: PTH208 - of a descriptor
            _remove(handle, inner)
    finally:
        os.close(handle)
    os.rmdir(name, dir_fd=parent)
