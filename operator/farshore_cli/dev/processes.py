"""Starts and stops the programs of a development environment, by process id and start time.

A recorded process id may by now belong to another program. So a record holds when that process began, and nothing is
signalled that began at another time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from farshore_cli.dev.cache import cache_root, only_one
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.machines.process import ProcessRef

# Below the range from which the kernel takes ports for outgoing connections: a port stays free for a restart.
_PORTS = range(14000, 32000)
# What a program needs of our environment; the rest (proxies, ETCD_*, KUBECONFIG) must not reach it.
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG")


@dataclass(frozen=True)
class Process:
    """A started program: its process id and the moment it began, in clock ticks since the boot named `boot`."""

    name: str
    pid: int
    began: int
    boot: str

    @property
    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        if self.boot == _boot() and _began(self.pid) == self.began:
            return True
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # if it was our child, let it leave the process table
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, grace: float = 10.0) -> None:
        """Ask the process to end, insist after `grace` seconds, and return when it is gone."""
        self.signal(signal.SIGTERM)
        if not self._gone_within(grace):
            self.kill()

    def kill(self) -> None:
        """End the process at once, as `kill -9` does, and return when it is gone."""
        self.signal(signal.SIGKILL)
        if not self._gone_within(60.0):
            raise WaitFault(f"{self.name} (pid {self.pid}) does not die", "Look at what it waits for with ps")

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


class Service(ABC):
    """What can be started and stopped; as a context manager it is stopped also when its start fails halfway."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start what does not run, and return when it serves."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it; nothing happens if it does not run."""


class Lifeline:
    """A pipe that programs hold the reading end of: it closes when this process ends, however that happens."""

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None

    @property
    def end(self) -> int:
        """Descriptor to pass as standard input."""
        if self._ends is None:
            self._ends = os.pipe()
        return self._ends[0]

    def close(self) -> None:
        """Let go of the programs; the next use makes a new pipe."""
        if self._ends is not None:
            for descriptor in self._ends:
                os.close(descriptor)
            self._ends = None


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start a program in a session of its own, its output appended to `log`.

    Args:
        name: how messages call it.
        command: absolute path of the program, then its arguments.
        log: file that receives both outputs.
        stdin: descriptor that becomes its standard input; /dev/null if None.
        environment: variables beside the few that every program gets.

    Raises StopFault if the program cannot be started.
    """
    variables = {key: os.environ[key] for key in _PASSED_ON if key in os.environ} | dict(environment or {})
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        # Not subprocess.Popen: it wants to be waited for by the object that started it, and ours may outlive this run.
        pid = os.posix_spawn(
            command[0],
            list(command),
            variables,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null if stdin is None else stdin, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, out, 2),
            ],
            setsid=True,
        )
    except OSError as error:
        raise StopFault(f"{name} cannot be started: {error}", f"Check that {command[0]} can be executed") from error
    finally:
        os.close(out)
        os.close(null)
    began = _began(pid)
    return Process(name, pid, -1 if began is None else began, _boot())


def _began(pid: int) -> int | None:
    """Give the start time of a live process in clock ticks since boot; None if it is gone or only a corpse."""
    found = ProcessRef.of(pid)
    return found.start_ticks if found is not None else None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def save(processes: Sequence[Process], path: Path) -> None:
    """Write the records as JSON, complete or not at all."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps([asdict(process) for process in processes], indent=2))
    scratch.replace(path)


def load(path: Path) -> list[Process]:
    """Read what `save` wrote; nothing if there is no such file."""
    return [Process(**record) for record in json.loads(path.read_text())] if path.is_file() else []


def free_ports(count: int) -> list[int]:
    """Give TCP ports on 127.0.0.1 that nobody listens on, and that no run beside this one was given.

    Who is given a port listens on it some moments later. So ports are handed out in turn, to all runs with one cache.
    """
    book = cache_root() / "last-port"
    book.parent.mkdir(parents=True, exist_ok=True)
    held: list[socket.socket] = []
    try:
        with only_one(book.with_suffix(".lock"), lambda: None):
            last = _noted(book)
            while len(held) < count:
                last = last + 1 if last + 1 in _PORTS else _PORTS.start
                candidate = socket.socket()
                try:
                    candidate.bind(("127.0.0.1", last))
                except OSError:
                    candidate.close()
                else:
                    held.append(candidate)
            book.write_text(str(last))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _noted(book: Path) -> int:
    """Give the port that was handed out last; any of them if that is not known."""
    try:
        return int(book.read_text())
    except (FileNotFoundError, ValueError):
        return random.choice(_PORTS)


def tail(log: Path, lines: int = 15) -> str:
    """Give the last lines of a log, for a message about why its program failed."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.is_file() else "(no log)"
