"""Names a process so that it is never mistaken for another that got its pid later."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessRef:
    """A process: its pid and when it started, in clock ticks since boot (field 22 of /proc/PID/stat)."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessRef | None:
        """The process that has this pid now; None if there is none or it is a corpse.

        A process whose first thread has ended is a zombie to look at while others of its threads end, and until the
        last one has, it holds its files, their locks and its ports: proc_pid_stat(5), field num_threads.
        """
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat.rpartition(")")[2].split()
        gone = fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1)
        return None if gone else cls(pid, int(fields[19]))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessRef.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process and to no later bearer of its pid; no error if it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # With the pidfd open the pid cannot change its meaning between this check and the signal.
            if self.alive():
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)

    def ask(self, grace: float) -> bool:
        """Ask it to end (SIGTERM) and wait so many seconds; True when it is gone. With no grace it is not asked."""
        if grace <= 0:
            return False
        self.signal(signal.SIGTERM)
        return self.wait(grace)

    def kill(self, patience: float = 10) -> bool:
        """Kill it and wait so many seconds; True when it is gone."""
        self.signal(signal.SIGKILL)
        return self.wait(patience)

    def wait(self, seconds: float) -> bool:
        """Wait until it is gone, at most so long; True when it is."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True
