"""Programs of a development environment are stopped by process id only while that id still means the same program."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.test_machines_process import FIRST_THREAD_ENDS

from farshore_cli.dev import processes
from farshore_cli.dev.processes import Lifeline, Process, free_ports, load, save, start, tail
from farshore_engine.contract.faults import StopFault


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = start("sleeper", ["/bin/sleep", "60"], tmp_path / "log")
    yield process
    process.kill()


def test_a_process_that_took_over_the_id_is_left_alone(sleeper: Process) -> None:
    recycled = dataclasses.replace(sleeper, began=sleeper.began - 1)
    other_boot = dataclasses.replace(sleeper, boot="0a")
    for stranger in (recycled, other_boot):
        assert not stranger.alive
        stranger.stop()
        stranger.kill()
    assert sleeper.alive
    sleeper.stop()
    assert not sleeper.alive


def test_records_survive_the_run_that_made_them(sleeper: Process, tmp_path: Path) -> None:
    save([sleeper], tmp_path / "records.json")
    assert load(tmp_path / "records.json") == [sleeper]
    assert load(tmp_path / "none.json") == []


def test_a_program_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    stubborn = start("stubborn", ["/bin/sh", "-c", script], tmp_path / "log")
    while "ready" not in tail(tmp_path / "log"):
        time.sleep(0.01)
    stubborn.stop(grace=0.2)
    assert not stubborn.alive


def test_a_killed_child_is_not_taken_for_alive_while_it_is_a_corpse(sleeper: Process) -> None:
    os.kill(sleeper.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while sleeper.alive:
        assert time.monotonic() < deadline
    sleeper.stop()


def test_a_program_that_ends_while_it_is_looked_at_leaves_the_process_table(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was told that it is gone met its corpse."""
    stat, look = Path(f"/proc/{sleeper.pid}/stat"), processes._began

    def ends(pid: int) -> int | None:
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
        return look(pid)

    monkeypatch.setattr(processes, "_began", ends)
    assert not sleeper.alive
    monkeypatch.undo()
    assert not stat.exists()


def test_a_program_whose_first_thread_has_ended_is_alive_until_the_last_one_has(tmp_path: Path) -> None:
    survivor = start("survivor", [sys.executable, "-c", FIRST_THREAD_ENDS], tmp_path / "log")
    stat = Path(f"/proc/{survivor.pid}/stat")
    deadline = time.monotonic() + 60
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, tail(tmp_path / "log")
        time.sleep(0.01)
    assert survivor.alive
    survivor.kill()
    assert not survivor.alive


def test_a_program_gets_none_of_our_environment_but_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_NAME", "leaked")
    env = start("env", ["/usr/bin/env"], tmp_path / "log", environment={"WANTED": "1"})
    while env.alive:
        time.sleep(0.01)
    assert "WANTED=1" in tail(tmp_path / "log", 100)
    assert "ETCD_NAME" not in tail(tmp_path / "log", 100)


def test_a_lifeline_ends_its_program_when_it_is_let_go(tmp_path: Path) -> None:
    lifeline = Lifeline()
    reader = start("reader", ["/bin/cat"], tmp_path / "log", stdin=lifeline.end)
    time.sleep(0.1)
    assert reader.alive
    lifeline.close()
    deadline = time.monotonic() + 60
    while reader.alive:
        assert time.monotonic() < deadline


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StopFault, match=r"ghost cannot be started: .*No such file"):
        start("ghost", ["/nonexistent/ghost"], tmp_path / "log")


def test_ports_are_free_different_and_outside_the_range_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in ports:
        assert port < lowest
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


def test_runs_side_by_side_are_given_different_ports_before_anybody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARSHORE_CACHE", str(tmp_path / "cache"))
    script = "from farshore_cli.dev.processes import free_ports; print([free_ports(4) for _ in range(50)])"
    command = [sys.executable, "-c", script]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    given = [port for run in runs for four in json.loads(run.communicate(timeout=300)[0]) for port in four]
    assert len(given) == len(set(given)) == 400
