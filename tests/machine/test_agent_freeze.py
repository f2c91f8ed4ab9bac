"""A freeze ends within its bound, whichever process dies or hangs (invariant 7)."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.machine.agent_rig import RealDisk, Rig, running_agent

from farshore_engine.agent import syscalls
from farshore_engine.agent.agent import Variants
from farshore_engine.agent.freezing import FreezeFailed, Freezer
from farshore_engine.agent.mounts import Mount, current_mounts
from farshore_engine.agent.watchdog import Watchdog
from farshore_engine.wire.messages import PointFailed


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDisk]:
    rig = Rig(tmp_path_factory.mktemp("rig")).open()
    yield rig.disk("ext4", 64)
    rig.close()


def is_frozen(point: Path) -> bool:
    fd = os.open(point, os.O_RDONLY)
    try:
        syscalls.freeze(fd)
    except OSError as error:
        assert error.errno == errno.EBUSY
        return True
    else:
        syscalls.thaw(fd)
        return False
    finally:
        os.close(fd)


def thawed_after(point: Path, limit: float) -> float:
    started = time.monotonic()
    while is_frozen(point):
        assert time.monotonic() - started < limit, "still frozen"
        time.sleep(0.02)
    return time.monotonic() - started


AGENT = """
import sys, time
from pathlib import Path
from farshore_engine.agent.freezing import Freezer
from farshore_engine.agent.mounts import current_mounts
from farshore_engine.agent.watchdog import Watchdog
watchdog = Watchdog()
freezer = Freezer(watchdog, Path(sys.argv[2]))
opened = freezer.open([m for m in current_mounts() if m.point == sys.argv[1]])
freezer.freeze(opened, float(sys.argv[3]))
print(watchdog.pid, flush=True)
time.sleep(600)
"""


class FreezingAgent:
    """A process that freezes and never thaws."""

    def __init__(self, point: Path, runtime: Path, bound: float, *, sure: bool = True) -> None:
        command = [sys.executable, "-c", AGENT, str(point), str(runtime), str(bound)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.watchdog = int(self.process.stdout.readline())
        assert not sure or is_frozen(point)  # a short bound may have passed before we look

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    return tmp_path / "run"


def mounts_of(disk: RealDisk) -> list[Mount]:
    return [m for m in current_mounts() if m.point == str(disk.mount)]


def test_a_killed_agent_leaves_nothing_frozen(disk: RealDisk, runtime: Path) -> None:
    assert disk.mount is not None
    agent = FreezingAgent(disk.mount, runtime, 300)
    agent.kill()
    thawed_after(disk.mount, 100)  # long before the bound


def test_a_hanging_agent_is_thawed_at_its_bound(disk: RealDisk, runtime: Path) -> None:
    assert disk.mount is not None
    started = time.monotonic()
    agent = FreezingAgent(disk.mount, runtime, 4.0, sure=False)
    agent.process.send_signal(signal.SIGSTOP)
    thawed_after(disk.mount, 100)
    assert time.monotonic() - started >= 3.9, "not before the bound"
    agent.kill()


@pytest.mark.parametrize("command", ["thaw", "new agent"])
def test_when_every_process_is_killed_the_next_one_thaws(disk: RealDisk, runtime: Path, command: str) -> None:
    assert disk.mount is not None
    agent = FreezingAgent(disk.mount, runtime, 300)
    os.kill(agent.watchdog, signal.SIGKILL)
    agent.kill()
    time.sleep(0.2)
    assert is_frozen(disk.mount)
    assert json.loads((runtime / "frozen.json").read_text()) == [str(disk.mount)]
    if command == "thaw":
        config = runtime / "config.json"
        paths = {name: f"/nowhere/{name}" for name in ("ca", "certificate", "key")}
        servers = [{"host": "127.0.0.1"}]
        config.write_text(json.dumps({"machineId": "m", "servers": servers, "runtimeDir": str(runtime), **paths}))
        arguments = ["thaw", "--config", str(config)]
        subprocess.run([sys.executable, "-m", "farshore_engine.agent.main", *arguments], check=True)
    else:
        assert Freezer(Watchdog(), runtime).thaw_leftovers() == [str(disk.mount)]
    assert not is_frozen(disk.mount)
    assert Freezer(Watchdog(), runtime).thaw_leftovers() == []


@pytest.fixture
def freezer(runtime: Path) -> Iterator[Freezer]:
    watchdog = Watchdog()
    yield Freezer(watchdog, runtime)
    watchdog.stop()


def test_a_freeze_without_a_living_watchdog_does_not_happen(disk: RealDisk, runtime: Path) -> None:
    watchdog = Watchdog()
    freezer = Freezer(watchdog, runtime)
    opened = freezer.open(mounts_of(disk))
    assert watchdog.pid is not None
    os.kill(watchdog.pid, signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(FreezeFailed) as caught:
        freezer.freeze(opened, 60)
    assert caught.value.reason == "WatchdogGone"
    assert disk.mount is not None
    assert not is_frozen(disk.mount)
    freezer.close(opened)
    opened = freezer.open(mounts_of(disk))  # starts it again
    freezer.freeze(opened, 60)
    freezer.thaw(opened)
    freezer.close(opened)
    watchdog.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_watchdog_that_fails_inside_a_freeze_keeps_nobody_from_thawing(
    disk: RealDisk, runtime: Path, how: signal.Signals
) -> None:
    watchdog = Watchdog()
    freezer = Freezer(watchdog, runtime)
    opened = freezer.open(mounts_of(disk))
    freezer.freeze(opened, 60)
    assert watchdog.pid is not None
    first = watchdog.pid
    os.kill(first, how)
    freezer.thaw(opened)
    assert disk.mount is not None
    assert not is_frozen(disk.mount)
    freezer.close(opened)
    opened = freezer.open(mounts_of(disk))  # with another watchdog
    assert watchdog.pid not in (None, first)
    freezer.freeze(opened, 60)
    freezer.thaw(opened)
    freezer.close(opened)
    watchdog.stop()


def test_the_policys_bound_ends_a_freeze_and_the_point_is_given_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "rig").open()
    try:
        mount = rig.disk("ext4", 64).mount
        assert mount is not None
        thawed: list[float] = []

        def linger(point: str) -> None:
            if point.startswith("slow"):
                thawed.append(thawed_after(mount, 100))

        with running_agent(rig, Variants(on_frozen=linger)) as running:
            running.peer.settings = replace(running.peer.settings, freeze_bound=3.0)
            running.peer.wait_synced()
            for _ in range(5):
                failed = running.peer.take_point("slow", retry=False)
                assert isinstance(failed, PointFailed)
                assert failed.reason == "FreezeOverran"
                if thawed[-1] > 0.5:  # else the host was so busy that the bound had passed before we could look
                    break
            else:
                pytest.fail(f"it was never seen frozen: {thawed}")
            assert running.verdicts[running.peer.take_point("next").id] == []
    finally:
        rig.close()


def test_a_file_system_frozen_by_somebody_else_is_left_to_them(disk: RealDisk, freezer: Freezer) -> None:
    opened = freezer.open(mounts_of(disk))
    subprocess.run(["fsfreeze", "-f", str(disk.mount)], check=True)
    try:
        with pytest.raises(FreezeFailed) as caught:
            freezer.freeze(opened, 60)
        assert caught.value.reason == "FilesystemBusy"
        assert str(disk.mount) in caught.value.message
        assert disk.mount is not None
        assert is_frozen(disk.mount)
    finally:
        subprocess.run(["fsfreeze", "-u", str(disk.mount)], check=True)
        freezer.close(opened)


def test_a_freeze_that_somebody_ends_is_noticed(disk: RealDisk, freezer: Freezer) -> None:
    opened = freezer.open(mounts_of(disk))
    freezer.freeze(opened, 60)
    subprocess.run(["fsfreeze", "-u", str(disk.mount)], check=True)
    with pytest.raises(FreezeFailed) as caught:
        freezer.thaw(opened)
    assert caught.value.reason == "FreezeBroken"
    freezer.close(opened)


def test_a_freeze_that_overran_is_noticed(disk: RealDisk, freezer: Freezer) -> None:
    opened = freezer.open(mounts_of(disk))
    freezer.freeze(opened, 0.3)
    assert disk.mount is not None
    thawed_after(disk.mount, 100)
    with pytest.raises(FreezeFailed) as caught:
        freezer.thaw(opened)
    assert caught.value.reason == "FreezeOverran"
    freezer.close(opened)


def test_a_freeze_that_comes_about_after_its_bound_is_ended_too(disk: RealDisk, runtime: Path) -> None:
    """On a busy disk the kernel may take longer than that to freeze, and then the agent may die."""
    assert disk.mount is not None
    watchdog = Watchdog()
    watchdog.start()
    fd = os.open(disk.mount, os.O_RDONLY)
    try:
        watchdog.arm([fd], 0.01)
        time.sleep(0.5)
        syscalls.freeze(fd)
        thawed_after(disk.mount, 100)
        assert watchdog.disarm(), "and it is told"
    finally:
        os.close(fd)
        watchdog.stop()


def test_the_watchdog_locks_its_memory_and_stays_small(disk: RealDisk, freezer: Freezer) -> None:
    opened = freezer.open(mounts_of(disk))
    try:
        pid = freezer._watchdog.pid
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Vm")
        )
        assert int(status["VmLck"].split()[0]) > 0
        assert int(status["VmRSS"].split()[0]) < 40_000
    finally:
        freezer.close(opened)
