"""A real process server is stopped between its last check and its put, fenced meanwhile, and goes on (invariant 4)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.machine.replication_rig import Stage, open_stage
from tests.machine.test_replication_crashes import fill, killable

from farshore_engine.vault.chain import list_slots, live_slots, read_base, read_slots


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


@pytest.mark.timeout(600)
def test_a_process_server_that_was_stopped_before_its_put_adds_nothing(stage: Stage) -> None:
    stage.rig.disk("ext4", size_mib=128)
    with ExitStack() as stack:
        server = stack.enter_context(killable(stage))
        fill(stage, 16)
        stack.enter_context(stage.agent())
        server.wait(lambda r: r["pointCount"] >= 2)
        (stage.directory / "stall").touch()
        fill(stage, 8)
        assert server.process is not None
        _wait_stopped(server.process.pid)
        try:
            before = [point.manifest.name for point in stage.points()]
            vault = stage.open_vault()
            claim = vault.claim(writer="ps-2", epoch=2, reason="the machine was assigned to another server").claim
            seen = len(server.reports())
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        report = server.wait(lambda r: r["vaultEpoch"] >= 2, 240, after=seen)
        assert report["pointCount"] >= 2
        numbers = live_slots(list_slots(vault.access), read_base(vault.access))
        slots = [slot.record for slot in read_slots(vault.access, numbers)]
        vault.close()
    assert [point.manifest.name for point in stage.points()] == before
    assert numbers[-1] == claim
    assert all(record is not None for record in slots)
    assert not any(stage.wrong_blocks().values())


def _wait_stopped(pid: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt":
            return
        time.sleep(0.05)
    raise AssertionError("the process server has not stopped itself")
