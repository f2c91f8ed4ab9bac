"""A process of a machine is gone when its last thread is: until then it holds its disks' locks and its ports."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from farshore_engine.machines.process import ProcessRef

FIRST_THREAD_ENDS = (
    "import ctypes, platform, threading, time\n"
    "threading.Thread(target=time.sleep, args=(600,)).start()\n"
    "ctypes.PyDLL(None).syscall(60 if platform.machine() == 'x86_64' else 93, 0)\n"  # exit, of this thread only
)


def test_a_process_whose_first_thread_has_ended_is_alive_until_the_last_one_has() -> None:
    with subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS]) as child:
        try:
            stat = Path(f"/proc/{child.pid}/stat")
            deadline = time.monotonic() + 60
            while stat.read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            found = ProcessRef.of(child.pid)
            assert found is not None and found.alive()
            assert found.kill(60)
        finally:
            child.kill()
    assert not found.alive()
