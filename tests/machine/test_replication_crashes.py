"""Whatever dies, replication goes on by itself, with no wrong point and with the least work that is correct."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.machine.replication_rig import Stage, open_stage

from farshore_engine.agent.ledger import Ledger

ROOT = Path(__file__).parents[2]
SLOW = 12 << 20  # bytes per second: a first copy that can be interrupted


@dataclass
class Killable:
    """The process server as a process; `reports` is what it told, over all its lives."""

    stage: Stage
    policy: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        directory = self.stage.directory
        wanted = {
            "spool_bytes": 1 << 30,
            "vault": str(directory / "vault"),
            "policy": self.policy,
            "data_port": self.stage.data_port,
        }
        (directory / "wanted.json").write_text(json.dumps(wanted))
        log = (directory / "ps.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/machine/processserver_process.py"), str(directory)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=log,
            stdout=log,
        )
        log.close()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def reports(self) -> list[dict[str, Any]]:
        path = self.stage.directory / "reports.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return parsed(lines)

    def wait(self, wanted: Callable[[dict[str, Any]], bool], timeout: float = 240, after: int = 0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, (self.stage.directory / "ps.log").read_text()[-3000:]
            for report in self.reports()[after:]:
                if wanted(report):
                    return report
            time.sleep(0.05)
        raise AssertionError((self.stage.directory / "ps.log").read_text()[-3000:])

    def modes(self) -> list[dict[str, str]]:
        """The sync modes of every connection, in order, as the log tells them."""
        events = parsed((self.stage.directory / "ps.log").read_text().splitlines())
        return [event["modes"] for event in events if event["event"] == "agent connected"]

    def events(self, name: str) -> list[dict[str, Any]]:
        events = parsed((self.stage.directory / "ps.log").read_text().splitlines())
        return [event for event in events if event["event"] == name]


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    """Return the objects among some lines; one that is being written, or was when its writer was killed, is none."""
    found = []
    for line in lines:
        if line.startswith("{"):
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


@contextmanager
def killable(stage: Stage, **policy: object) -> Iterator[Killable]:
    server = Killable(stage, {"crashConsistentInterval": "PT2S", **policy})
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


def fill(stage: Stage, mib: int) -> None:
    """Put files with real content on the first disk."""
    disk = stage.rig.disks[0]
    assert disk.mount is not None
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={disk.mount}/fill", "bs=1M", f"count={mib}", "conv=fsync"],
        check=True,
        capture_output=True,
    )


def test_a_process_server_killed_in_the_first_copy_goes_on_where_it_was(stage: Stage) -> None:
    stage.rig.disk("ext4", size_mib=320)
    fill(stage, 120)
    with ExitStack() as stack:
        server = stack.enter_context(killable(stage, bandwidthLimit=SLOW))
        stack.enter_context(stage.agent())
        server.wait(lambda r: bool(r.get("progress")) and r["progress"]["percent"] > 25)
        server.kill()
        seen = len(server.reports())
        server.policy["bandwidthLimit"] = 0
        stack.enter_context(stage.rig.fio(stage.rig.disks[0]))
        server.start()
        server.wait(lambda r: r["pointCount"] >= 2 and r["agent"]["connected"], after=seen)
    modes = server.modes()
    assert set(modes[0].values()) == {"full"}
    assert {mode for m in modes[1:] for mode in m.values()} == {"delta"}
    assert not any(stage.wrong_blocks().values())


def test_a_process_server_killed_again_and_again_makes_no_wrong_point(stage: Stage) -> None:
    stage.rig.disk("ext4", size_mib=200)
    with ExitStack() as stack:
        server = stack.enter_context(killable(stage))
        stack.enter_context(stage.rig.fio(stage.rig.disks[0]))
        stack.enter_context(stage.agent())
        for count, moment in ((1, 0.0), (2, 0.35), (3, 0.7), (4, 1.1), (5, 1.6)):
            server.wait(lambda r, count=count: r["pointCount"] >= count)  # type: ignore[misc]
            time.sleep(moment)
            server.kill()
            server.start()
        seen = len(server.reports())
        server.wait(lambda r: r["pointCount"] >= 7, after=seen)
    assert {mode for m in server.modes()[1:] for mode in m.values()} == {"delta"}
    verdicts = stage.wrong_blocks()
    assert len(verdicts) >= 7
    assert not any(verdicts.values())


def test_a_spool_that_is_lost_heals_without_a_resync_once_a_point_is_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.rig.disk("ext4", size_mib=200)
    heard: list[str] = []  # names of points, by the agent
    commit = Ledger.commit

    def hears(self: Ledger, point: str, name: str) -> bool:
        heard.append(name)
        return commit(self, point, name)

    monkeypatch.setattr(Ledger, "commit", hears)
    with ExitStack() as stack:
        server = stack.enter_context(killable(stage))
        stack.enter_context(stage.rig.fio(stage.rig.disks[0]))
        stack.enter_context(stage.agent())
        server.wait(lambda r: r["pointCount"] >= 2)
        server.kill()
        seen, points = len(server.reports()), stage.points()
        while heard[-1:] != [points[-1].manifest.name]:
            server.start()  # it died before its agent had heard of the newest point, and a comparison would be right
            server.wait(lambda r: r["pointCount"] > len(points), after=seen)  # noqa: B023 - called at once
            server.kill()
            seen, points = len(server.reports()), stage.points()
        shutil.rmtree(stage.directory / "ps" / "spool")
        server.start()
        server.wait(lambda r: r["pointCount"] >= len(points) + 3, after=seen)
    assert {mode for m in server.modes()[1:] for mode in m.values()} == {"delta"}
    assert not any(stage.wrong_blocks().values())


def test_an_agent_that_restarts_sends_only_blocks_that_differ(stage: Stage) -> None:
    disk = stage.rig.disk("ext4", size_mib=320)
    fill(stage, 100)
    with ExitStack() as stack:
        logs = stack.enter_context(structlog.testing.capture_logs())
        stack.enter_context(stage.process_server())
        stage.assign()
        with stage.agent():
            stage.wait_points(2)
        assert disk.mount is not None
        subprocess.run(
            ["dd", "if=/dev/urandom", f"of={disk.mount}/while-away", "bs=64k", "count=16", "conv=fsync"],
            check=True,
            capture_output=True,
        )
        before, again = stage.points(), datetime.now(UTC)
        with stage.agent():
            report = stage.control.wait_report("vm", lambda r: r.point_count >= len(before) + 2)
    # One that the first agent left may have been committed since.
    after = [p for p in stage.points() if p.manifest.time >= again]
    # In the log, for a comparison may be over before the next report.
    assert any("restarted" in str(line.get("resync")) for line in logs)
    assert 1 << 20 <= after[0].manifest.bytes_changed < 8 << 20
    assert report.initial_seconds > 0
    assert not any(stage.wrong_blocks().values())


def exchange(one: Path, other: Path) -> None:
    """Let two paths change places at one instant: whoever finds neither there would make a directory of its own."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if ctypes.CDLL(None, use_errno=True).renameat2(here, bytes(one), here, bytes(other), swap) != 0:
        raise OSError(ctypes.get_errno(), "renameat2", str(one))


def test_a_vault_outage_is_ridden_out_and_says_so(stage: Stage) -> None:
    stage.rig.disk("ext4", size_mib=200)
    vault, away = stage.directory / "vault", stage.directory / "vault-away"
    with ExitStack() as stack:
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.rig.fio(stage.rig.disks[0]))
        stack.enter_context(stage.agent())
        stage.wait_points(2)
        away.write_text("not a directory")
        exchange(vault, away)
        stage.control.wait_report("vm", lambda r: "retried in" in r.message)
        count = stage.control.last("vm").point_count  # type: ignore[union-attr]
        time.sleep(3)
        exchange(vault, away)
        stage.wait_points(count + 2)
    assert not any(stage.wrong_blocks().values())


def test_a_full_spool_holds_the_agent_back_and_loses_nothing(stage: Stage) -> None:
    stage.rig.disk("ext4", size_mib=320)
    fill(stage, 150)
    vault, away = stage.directory / "vault", stage.directory / "vault-away"
    stage.control.configure(spool_bytes=24 << 20)
    with ExitStack() as stack:
        stack.enter_context(stage.process_server())
        stage.assign()
        stage.control.wait_report("vm", lambda r: r.state.value == "WaitingForAgent")
        away.write_text("not a directory")
        exchange(vault, away)
        stack.enter_context(stage.agent())
        used = stage.control.wait_for(
            lambda: (a := stage.control.appliance_report) is not None and a.spool.used_bytes > 12 << 20 and a.spool
        )
        stage.control.wait_report("vm", lambda r: "the spool is full" in r.message and "retried in" in r.message)
        time.sleep(6)  # so that the appliance has reported again
        last = stage.control.appliance_report
        assert last is not None
        assert used
        assert last.spool.used_bytes <= (24 << 20) + (8 << 20)
        exchange(vault, away)
        stage.wait_points(2)
    assert not any(stage.wrong_blocks().values())
