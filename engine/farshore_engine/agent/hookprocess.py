"""One call of a hook: in a process group of its own, for a bounded time, with the end of its output kept."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

from farshore_engine.agent.logs import LOGGER_NAME

log = logging.getLogger(LOGGER_NAME)

TAIL = 4096  # bytes of output that are kept
SAID = 300  # characters of them in a note
TICK = 0.02
GRACE = 2.0  # seconds from SIGTERM to SIGKILL
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The agent is exempt from the OOM killer; what it starts for others must not be.
START = 'echo 0 2>/dev/null >/proc/self/oom_score_adj; exec "$@"'


def run_hook(
    name: str, command: tuple[str, ...], environment: dict[str, str], timeout: float, clock: Callable[[], float]
) -> str:
    """Run a hook to its end; returns what went wrong with the last lines that it said, "" for nothing.

    At the timeout (seconds) its process group is killed whole. Something that it started in a session of its own, to
    hold a lock for example, lives on; its output must go elsewhere.
    """
    phase = command[-1]
    began = clock()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", START, "farshore-hook", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **environment},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be started: {error}"
    assert process.stdout is not None
    with process.stdout as pipe:
        output = _Tail(pipe.fileno())
        while process.poll() is None and clock() - began < timeout:
            output.take(TICK)
        in_time = process.poll() is not None
        if not in_time:
            _kill_group(process, output)
        output.take(0)
    fields = {"hook": name, "phase": phase, "seconds": round(clock() - began, 3), "status": process.returncode}
    log.info("a hook ran", extra={"fields": {**fields, "output": output.text()}})
    if not in_time:
        return f"did not end within {timeout:.0f} s and was killed{output.said()}"
    if process.returncode == 0:
        return ""
    how = f"with status {process.returncode}" if process.returncode > 0 else f"by signal {-process.returncode}"
    return f"failed {how}{output.said()}"


class _Tail:
    """The last bytes that came through a pipe, taken without ever waiting for its end."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)
        self._open = True
        self._bytes = b""

    def take(self, wait: float) -> None:
        """Take in what is there, waiting at most `wait` seconds for something."""
        if not self._open:
            select.select([], [], [], wait)
            return
        if not self._poller.poll(wait * 1000):
            return
        for _ in range(64):  # one that never stops talking must not hold us
            try:
                data = os.read(self._fd, TAIL)
            except BlockingIOError:
                return
            if not data:
                self._open = False
                return
            self._bytes = (self._bytes + data)[-TAIL:]

    def text(self) -> str:
        return self._bytes.decode(errors="replace").strip()

    def said(self) -> str:
        """Return the last lines, as they go behind a sentence."""
        lines = " / ".join(line.strip() for line in self.text().splitlines()[-3:])
        return f": {lines[-SAID:]}" if lines else ""


def _kill_group(process: subprocess.Popen[bytes], output: _Tail) -> None:
    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        output.take(0)
