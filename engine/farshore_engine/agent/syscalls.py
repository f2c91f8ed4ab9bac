"""The few system calls that Python has no name for, so that the rest of the agent reads as ordinary Python.

Numbers are those of include/uapi/linux/{fs,mman,mount}.h, the same on every architecture that we ship for.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
FS_IOC_FIEMAP = 0xC020660B
BLKGETSIZE64 = 0x80081272
BLKSSZGET = 0x1268

RB_POWER_OFF = 0x4321FEDC

MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
MNT_DETACH = 2
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, fstype: str, flags: int = MS_NOSUID_NODEV_NOEXEC) -> None:
    """Mount a file system; raises OSError."""
    _check(
        _libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), None),
        f"mount {fstype} on {target}",
    )


def unmount_lazily(target: str) -> None:
    """Detach a mount; open descriptors keep it usable. Raises OSError."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def syncfs(fd: int) -> None:
    """Write the file system that holds `fd` back to its device; raises OSError."""
    _check(_libc.syncfs(fd), "syncfs")


def lock_everything() -> None:
    """Keep every page that this process touches in memory, now and later; raises OSError."""
    result = _libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
    if result != 0:  # before Linux 4.4 there was no MCL_ONFAULT
        result = _libc.mlockall(MCL_CURRENT | MCL_FUTURE)
    _check(result, "mlockall")


def locked_buffer(size: int) -> tuple[mmap.mmap, bool]:
    """Return `size` bytes of page-aligned memory, touched, and whether they could be locked."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, mmap.PAGESIZE):
        area[at] = 0
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    locked = _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)) == 0
    return area, locked


def freeze(fd: int) -> None:
    """FIFREEZE the file system that holds `fd`.

    Raises:
        OSError: EBUSY when it is frozen already, EOPNOTSUPP when the file system has no freeze.
    """
    fcntl.ioctl(fd, FIFREEZE, 0)


def thaw(fd: int) -> None:
    """FITHAW the file system that holds `fd`; raises OSError (EINVAL when it is not frozen)."""
    fcntl.ioctl(fd, FITHAW, 0)


def power_off() -> None:
    """Cut the power of the caller's machine at once, by reboot(2): nothing is written back, nobody is asked.

    In a PID namespace it ends that namespace and no more. Raises OSError.
    """
    _check(_libc.reboot(ctypes.c_int(RB_POWER_OFF)), "reboot")


def device_size(fd: int) -> int:
    """Return the size of an opened block device in bytes."""
    answer = fcntl.ioctl(fd, BLKGETSIZE64, bytes(8))
    return int(struct.unpack("=Q", answer)[0])


def file_extents(fd: int, limit: int = 4096) -> list[tuple[int, int]]:
    """Return the (physical offset, length) in bytes of a file's extents, at most `limit` of them; raises OSError."""
    head, extent = struct.Struct("=QQLLLL"), struct.Struct("=QQQQQLLLL")
    request = bytearray(head.pack(0, (1 << 64) - 1, 0, 0, limit, 0)) + bytearray(extent.size * limit)
    fcntl.ioctl(fd, FS_IOC_FIEMAP, request)
    mapped = head.unpack_from(request)[3]
    found = []
    for index in range(mapped):
        fields = extent.unpack_from(request, head.size + index * extent.size)
        found.append((fields[1], fields[2]))
    return found
