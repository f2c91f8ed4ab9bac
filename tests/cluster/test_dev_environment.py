"""`farshore dev`: an environment that stays when its shell ends, and goes when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farshore_cli.dev.environment import Environment
from farshore_cli.dev.processes import start
from farshore_engine.contract.faults import StopFault


def farshore(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "farshore_cli.main", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "environment"
    yield where
    Environment(where).down()


def test_up_twice_status_down_twice(directory: Path) -> None:
    where = ("--dir", str(directory))
    nothing = farshore("dev", "status", *where)
    assert (nothing.returncode, nothing.stdout.count("farshore dev up")) == (1, 1)

    up = farshore("dev", "up", *where)
    assert up.returncode == 0, up.stderr
    environment = Environment(directory)
    assert f"export KUBECONFIG={environment.kubeconfig}" in up.stdout
    assert f"farshore dev down --dir {directory}" in up.stdout
    assert environment.alive
    before = [part.process for part in environment.parts()]

    assert farshore("dev", "up", *where).stdout == up.stdout
    assert [part.process for part in environment.parts()] == before
    status = farshore("dev", "status", *where)
    assert (status.returncode, status.stdout) == (0, up.stdout)

    command = [str(environment.bin / "kubectl"), "--kubeconfig", str(environment.kubeconfig), "get", "ns", "-o", "name"]
    assert "namespace/default" in subprocess.run(command, capture_output=True, text=True, check=True).stdout

    down = farshore("dev", "down", *where)
    assert down.returncode == 0, down.stderr
    assert not any(process.alive for process in before)
    assert [entry.name for entry in directory.iterdir()] == [".lock"]
    assert "Nothing runs" in farshore("dev", "down", *where).stdout


def test_a_dead_program_shows_and_up_brings_it_back_with_its_data(directory: Path) -> None:
    environment = Environment(directory)
    environment.up()
    environment.control_plane.kubectl("create", "namespace", "kept")
    environment.control_plane.kill("etcd")

    status = farshore("dev", "status", "--dir", str(directory))
    assert status.returncode == 1
    assert [line.split()[:2] for line in status.stdout.splitlines() if " dead " in line] == [["etcd", "dead"]]

    assert farshore("dev", "up", "--dir", str(directory)).returncode == 0
    assert "kept" in environment.control_plane.kubectl("get", "ns").stdout


def test_down_takes_what_was_left_in_the_environment(directory: Path, tmp_path: Path) -> None:
    """The demo leaves its operator and its machines up with KEEP=1; one command removes all."""
    directory.mkdir()
    environment = Environment(directory)
    left = start("operator", ["/bin/sleep", "600"], tmp_path / "log")
    environment.keep(left)
    order = tmp_path / "order"
    environment.clean_with(["/bin/sh", "-c", f"echo first-made >> {order}"])
    environment.clean_with(["/bin/sh", "-c", f"test -e {tmp_path}/free || {{ echo busy >&2; exit 1; }}"])
    environment.clean_with(["/bin/sh", "-c", f"! kill -0 {left.pid} && echo last-made >> {order}"])

    with pytest.raises(StopFault, match="busy"):
        environment.down()
    assert not left.alive
    assert order.read_text().split() == ["last-made", "first-made"]
    assert environment.exists

    (tmp_path / "free").touch()
    environment.down()
    assert not environment.exists
    assert order.read_text().split() == ["last-made", "first-made"]
