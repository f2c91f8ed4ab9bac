"""The kernel's side of blktrace for one disk: set up, started, read and torn down, and never left behind.

A disk has one tracer at a time (EBUSY), and one whose process died stays. The kernel does not say whose it is, so a
note in the agent's own directory does: a tracer that is ours and whose process is gone is torn down.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from farshore_engine.agent.tracker.blkrecords import COMPLETE, QUEUE

BLKTRACESETUP = 0xC0481273
BLKTRACESTART, BLKTRACESTOP, BLKTRACETEARDOWN = 0x1274, 0x1275, 0x1276
NO_END = (1 << 64) - 1  # else a disk that grows is traced up to its old end


class _Setup(ctypes.Structure):
    """struct blk_user_trace_setup."""

    _fields_ = (
        ("name", ctypes.c_char * 32), ("act_mask", ctypes.c_uint16), ("buf_size", ctypes.c_uint32),
        ("buf_nr", ctypes.c_uint32), ("start_lba", ctypes.c_uint64), ("end_lba", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
    )  # fmt: skip


class Channel:
    """The trace of one disk. `cpus` maps each CPU to its opened `traceN`."""

    def __init__(self, disk: str, debugfs: Path, notes: Path, buffers: tuple[int, int]) -> None:
        """Set the trace up without starting it.

        Args:
            disk: the kernel's name of a whole disk.
            debugfs: where it is mounted.
            notes: a directory of the agent's own, in which it says which tracers are its.
            buffers: size in bytes, and number for each CPU.

        Raises:
            OSError: the kernel refuses (EPERM under lockdown, ENOTTY without blktrace), or somebody traces the disk.
        """
        self.disk = disk
        self.cpus: dict[int, int] = {}
        self._note = notes / f"blktrace-{disk}.json"
        self._dropped = -1
        self._fd = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_CLOEXEC)
        self._ours = False
        try:
            name = self._set_up(buffers)
            directory = debugfs / "block" / name
            self._dropped = os.open(directory / "dropped", os.O_RDONLY)
            for path in sorted(directory.glob("trace[0-9]*")):
                self.cpus[int(path.name[5:])] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            self.close()
            raise
        if not self.cpus:
            self.close()
            raise OSError(errno.ENOENT, f"the kernel shows no trace of {disk}")

    def start(self) -> None:
        """Begin to record; raises OSError."""
        fcntl.ioctl(self._fd, BLKTRACESTART, 0)

    def dropped(self) -> int:
        """Return how many records found no room since the trace was set up."""
        return int(os.pread(self._dropped, 64, 0) or b"0")

    def close(self) -> None:
        """Remove the trace from the kernel; may be called twice."""
        for fd in (*self.cpus.values(), self._dropped):
            if fd >= 0:
                os.close(fd)
        self.cpus, self._dropped = {}, -1
        if self._fd < 0:
            return
        if self._ours:
            self._tear_down()
            self._ours = False
        os.close(self._fd)
        self._fd = -1

    def _set_up(self, buffers: tuple[int, int]) -> str:
        setup = _Setup(act_mask=QUEUE | COMPLETE, buf_size=buffers[0], buf_nr=buffers[1], end_lba=NO_END)
        try:
            fcntl.ioctl(self._fd, BLKTRACESETUP, setup)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise OSError(error.errno, f"{self.disk} cannot be traced: {os.strerror(error.errno or 0)}") from error
            if not self._left_by_us():
                raise OSError(errno.EBUSY, f"{self.disk} is being traced by another program (blktrace)") from error
            self._tear_down()
            setup.name = b""
            fcntl.ioctl(self._fd, BLKTRACESETUP, setup)
        self._ours = True
        self._note.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(json.dumps(_identity(os.getpid())))
        return str(setup.name.decode())

    def _left_by_us(self) -> bool:
        """Whether the note tells of a process of ours, of this boot, that lives no more."""
        try:
            note = json.loads(self._note.read_text())
            return bool(note["boot"] == _boot() and note != _identity(int(note["pid"])))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _tear_down(self) -> None:
        with suppress(OSError):
            fcntl.ioctl(self._fd, BLKTRACESTOP, 0)
        with suppress(OSError):
            fcntl.ioctl(self._fd, BLKTRACETEARDOWN, 0)
        self._note.unlink(missing_ok=True)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _identity(pid: int) -> dict[str, object]:
    """Return what tells a process from any later one with its number."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        started = ""
    return {"boot": _boot(), "pid": pid, "started": started}
