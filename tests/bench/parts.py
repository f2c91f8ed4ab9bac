"""A real agent and a real process server, each a process of its own, as they run for a user: TLS, spool, vault.

What happened is read from the agent's log and from the process server's metrics, not from inside.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from tests.machine.replication_rig import MACHINE, Stage, free_port

ROOT = Path(__file__).resolve().parents[2]
TICK = 0.02  # seconds between two looks at a log
START_SECONDS = 60.0
LAST_WORDS = 20_000  # characters
WELCOME = "the process server bids welcome"
SYNCED = "all disks are passed over"
SENT = "a point was sent"
COMMITTED = "a point is committed"
FAILED = "no point was made"


@dataclass(frozen=True)
class Event:
    """A line of the agent's log; `time` in seconds since the epoch."""

    time: float
    message: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A point that the vault has; times in seconds since the epoch, the freeze in seconds."""

    asked: float
    committed: float
    freeze: float


class Parts:
    """The running parts of one stage; made by `running`."""

    def __init__(self, stage: Stage, server: subprocess.Popen[bytes], metrics_port: int) -> None:
        self._stage = stage
        self._server = server
        self._metrics_port = metrics_port
        self._agent: subprocess.Popen[bytes] | None = None

    def start_agent(self) -> None:
        """Start the agent for all disks of the stage."""
        home, stage = self._stage.installer.directory, self._stage
        self._until(lambda: (home / "server").exists(), START_SECONDS, "the process server did not install the agent")
        host, port = (home / "server").read_text().split()
        config = {
            "machineId": f"demo.{MACHINE}",
            "servers": [{"host": host, "port": int(port)}],
            "ca": str(home / "ca.pem"),
            "certificate": str(home / "agent.pem"),
            "key": str(home / "agent.key"),
            "stateDir": str(stage.directory / "agent-state"),
            "runtimeDir": str(stage.directory / "agent-run"),
            "disks": {"include": [disk.device for disk in stage.rig.disks]},
            "recoveryDir": str(stage.directory / "recovery.d"),
        }
        path = home / "config.json"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "farshore_engine.agent.main", "run", "--config", str(path)]
        with self._log.open("wb") as log:
            self._agent = _popen(command, log)

    def stop_agent(self) -> None:
        """End the agent; `start_agent` begins another one."""
        assert self._agent is not None
        self._agent.terminate()
        self._agent.wait(30)
        self._agent = None

    def stop(self) -> None:
        """End both, the agent first."""
        for process in (self._agent, self._server):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20 if process is self._agent else 0.5)  # the server holds nothing that a kill can hurt
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def events(self, *messages: str) -> list[Event]:
        """Return the agent's log lines with these messages, oldest first."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        parsed = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [
            Event(datetime.fromisoformat(line["time"]).timestamp(), line["message"], line)
            for line in parsed
            if line["message"] in messages
        ]

    def points(self) -> list[Point]:
        """Return the committed points in order; an attempt that was called off in between is left out."""
        points = []
        sent: Event | None = None
        for event in self.events(SENT, COMMITTED):
            if event.message == SENT:
                sent = event
            elif sent is not None:
                asked = sent.time - sent.fields["seconds"]
                points.append(Point(asked, event.time, sent.fields["freezeSeconds"]))
                sent = None
        return points

    def wait_welcome(self) -> float:
        """Return when the session began."""
        self._until(lambda: self.events(WELCOME), START_SECONDS, "the agent did not connect")
        return self.events(WELCOME)[0].time

    def wait_synced(self, after: float, timeout: float) -> None:
        """Wait until an agent that was started after that time has passed over all disks."""
        self._until(lambda: any(e.time > after for e in self.events(SYNCED)), timeout, "the disks are not passed over")

    def wait_point(self, after: float, timeout: float) -> Point:
        """Return the first point that was asked for after that time."""
        self._until(lambda: any(p.asked > after for p in self.points()), timeout, "no point was made")
        return next(p for p in self.points() if p.asked > after)

    def cpu(self) -> float:
        """Return the CPU seconds that agent and process server have used."""
        assert self._agent is not None
        return _cpu(self._agent.pid) + _cpu(self._server.pid)

    def agent_cpu(self) -> float:
        """Return the CPU seconds that the agent has used."""
        assert self._agent is not None
        return _cpu(self._agent.pid)

    def server_memory(self) -> float:
        """Return the MiB that the process server has had resident at most."""
        return _memory(f"/proc/{self._server.pid}/status", "VmHWM")

    def received(self) -> int:
        """Return the bytes of blocks that the process server has received, before compression."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.split()[-1]) for line in lines if line.startswith("farshore_received_bytes_total{")]
        return int(sum(values))

    def agent_memory(self) -> float:
        """Return the MiB that the agent has had resident at most, with what its watchdog does not share with it."""
        assert self._agent is not None
        pid = self._agent.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return _memory(f"/proc/{pid}/status", "VmHWM") + sum(
            _memory(f"/proc/{child}/smaps_rollup", "Private_Clean", "Private_Dirty") for child in children
        )

    @property
    def _log(self) -> Path:
        return self._stage.directory / "agent.log"

    def _until(self, found: Callable[[], object], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not found():
            dead = [p for p in (self._server, self._agent) if p is not None and p.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{what}{': a process died' if dead else f' in {timeout:.0f} s'}\n{self._last_words()}"
                )
            time.sleep(TICK)

    def _last_words(self) -> str:
        """Let both say where their threads are, end them, and return the ends of their logs and the last report."""
        for process in (self._agent, self._server):
            if process is not None:
                process.send_signal(signal.SIGABRT)
                process.wait()
        files = (*self._stage.directory.glob("*.log"), self._stage.directory / "reports.jsonl")
        return "\n".join(f"-- {path.name}\n{path.read_text()[-LAST_WORDS:]}" for path in files if path.exists())


@contextmanager
def running(stage: Stage, interval: float) -> Iterator[Parts]:
    """Run a process server that asks for a point each `interval` seconds; its agent is not started yet."""
    directory, metrics_port = stage.directory, free_port()
    wanted = {
        "spool_bytes": 1 << 30,
        "vault": str(directory / "vault"),
        "policy": {"crashConsistentInterval": f"PT{interval:g}S"},
        "data_port": stage.data_port,
        "metrics_port": metrics_port,
    }
    (directory / "wanted.json").write_text(json.dumps(wanted))
    command = [sys.executable, str(ROOT / "tests/machine/processserver_process.py"), str(directory)]
    with (directory / "server.log").open("wb") as log:
        server = _popen(command, log)
    parts = Parts(stage, server, metrics_port)
    try:
        yield parts
    finally:
        parts.stop()


def _popen(command: list[str], log: BinaryIO) -> subprocess.Popen[bytes]:
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONFAULTHANDLER": "1"}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(path: str, *names: str) -> float:
    """Return the sum of these lines of a file that counts in KiB, in MiB."""
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    return sum(int(line[1]) for line in lines if line[0].rstrip(":") in names) / 1024
