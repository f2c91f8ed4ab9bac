"""The process that ends a freeze when the agent cannot: when its bound has passed, or when the agent is gone.

It shares the descriptors of the mounts, has all of its memory locked, reads and writes no file once it runs, and
hears of the agent's death by the end of their socket. A file system whose freeze takes longer than the bound, on a busy
disk, is thawed as soon as it is frozen. Messages on the socket (one packet each)::

    agent: "arm SECONDS" with the descriptors   watchdog: "armed"
    agent: "disarm"                             watchdog: "idle", or "thawed" if the bound had passed

Under systemd it runs in a scope of its own, beside the agent's unit: whatever ends all processes of that unit at once
leaves the watchdog alone, which then thaws.

An agent in the middle of FIFREEZE cannot die before the call returns, so its end is seen after the freeze, never
before.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from farshore_engine.agent import syscalls

MAX_MOUNTS = 253  # descriptors in one packet (SCM_MAX_FD of the kernel)
ANSWER_SECONDS = 5.0
LATE_SECONDS = 0.2  # between two looks for a freeze that is not complete when its bound has passed
START_SECONDS = 60.0  # an interpreter takes long to start on a machine that is under load; nothing is frozen yet


class WatchdogGone(OSError):
    """The watchdog does not answer: without it nothing may be frozen."""


class Watchdog:
    """The agent's end: starts the process and talks to it.

    Args:
        interpreter: the command line that starts Python.
    """

    def __init__(self, interpreter: tuple[str, ...] = (sys.executable,)) -> None:
        self._interpreter = interpreter
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process unless it runs; raises OSError."""
        if self.pid is not None:
            return
        apart = _own_scope()
        try:
            self._start(apart)
        except OSError:
            if not apart:
                raise
            self._start(())  # systemd does not answer: better beside the agent than not at all

    def _start(self, prefix: tuple[str, ...]) -> None:
        self.stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [*prefix, *self._interpreter, "-B", "-m", "farshore_engine.agent.watchdog", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        ours.settimeout(START_SECONDS)
        self._socket = ours
        self._expect(b"idle")  # its greeting
        ours.settimeout(ANSWER_SECONDS)

    def arm(self, descriptors: list[int], bound: float) -> None:
        """Have the mounts thawed `bound` seconds from now; raises WatchdogGone."""
        try:
            assert self._socket is not None
            socket.send_fds(self._socket, [f"arm {bound}".encode()], descriptors)
        except (OSError, AssertionError) as error:
            raise WatchdogGone(f"the watchdog is gone: {error}") from error
        self._expect(b"armed")

    def disarm(self) -> bool:
        """Call it off; returns whether the watchdog had to thaw. Raises WatchdogGone."""
        try:
            assert self._socket is not None
            self._socket.send(b"disarm")
        except (OSError, AssertionError) as error:
            raise WatchdogGone(f"the watchdog is gone: {error}") from error
        return self._expect(b"idle", b"thawed") == b"thawed"

    def stop(self) -> None:
        """End the process; whatever is armed is thawed."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _expect(self, *answers: bytes) -> bytes:
        try:
            assert self._socket is not None
            answer = self._socket.recv(64)
        except (OSError, AssertionError) as error:
            self.stop()  # an answer that comes late would be taken for that to the next question
            raise WatchdogGone(f"the watchdog does not answer: {error}") from error
        if answer not in answers:
            self.stop()
            raise WatchdogGone(f"the watchdog answered {answer!r}")
        return answer


def _own_scope() -> tuple[str, ...]:
    """Return what starts a program in a unit and cgroup of its own, if this process is a service of systemd.

    systemd-run becomes that program itself, so its process number and its descriptors stay.
    """
    if "INVOCATION_ID" not in os.environ or not Path("/run/systemd/system").is_dir() or not shutil.which("systemd-run"):
        return ()
    unit = f"--unit=farshore-watchdog-{os.getpid()}-{secrets.token_hex(2)}"
    return ("systemd-run", "--scope", "--quiet", "--collect", "--slice=system.slice", unit, "--")


def serve(control: socket.socket) -> None:
    """Guard freezes until the agent's end of the socket closes."""
    armed: list[int] = []
    deadline = 0.0
    thawed = False
    poller = select.poll()
    poller.register(control, select.POLLIN)
    control.send(b"idle")
    while True:
        wait = max(0.0, deadline - time.monotonic()) * 1000 if armed else None
        if not poller.poll(wait):
            armed, deadline = _thaw(armed), time.monotonic() + LATE_SECONDS
            thawed = True
            continue
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 64, MAX_MOUNTS)
        except OSError:
            message, descriptors = b"", []
        if not message:
            _thaw(armed)
            return
        if message.startswith(b"arm "):
            armed += descriptors
            deadline = time.monotonic() + float(message[4:])
            thawed = False
            control.send(b"armed")
        else:
            for fd in armed:
                os.close(fd)
            armed.clear()
            control.send(b"thawed" if thawed else b"idle")


def _thaw(descriptors: list[int]) -> list[int]:
    """Thaw and forget; returns those that are not frozen, in their order: their freeze may still be on its way."""
    late = []
    for fd in reversed(descriptors):
        try:
            syscalls.thaw(fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                late.append(fd)
                continue
        os.close(fd)
    return late[::-1]


def main() -> None:
    """Run the watchdog on the socket whose number is the first argument."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
        score.write("-1000")
    with suppress(OSError):
        syscalls.lock_everything()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
