"""A process server that keeps a warm replica, or fails over with one, is killed with -9, and goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.azure.provider.counting import Request
from tests.azure.provider.scene import ours
from tests.azure.provider.test_warm_guest import SIZE, WANTED, linux_disk, nothing_left
from tests.azure.provider.warmchild import PATIENCE, PROCESSES, Child, round_of, step, step_into_guest
from tests.azure.provider.warmscene import WarmScene, change, same
from tests.azuresim import AzureSim

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.tasks import TaskKind
from farshore_engine.hydrate import windows
from farshore_engine.machines import loop
from farshore_engine.nbd import files

STEPS = (TaskKind.HYDRATE, TaskKind.PREPARE_GUEST, TaskKind.UPLOAD_DISKS)


def killed_at(warm: WarmScene, child: Child, wanted: Callable[[Request], bool]) -> None:
    """Kill the child when it makes a request like this one, which is not carried out."""
    met, once = threading.Event(), threading.Lock()

    def refuse(request: Request) -> tuple[int, str] | None:
        if not wanted(request) or not once.acquire(blocking=False):
            return None
        child.kill()
        met.set()
        return 503, "ServerBusy"

    warm.store.refuse = refuse
    with child:
        assert child.dead() and met.wait(PATIENCE)
    warm.store.refuse = lambda _: None


def test_a_keeper_that_was_killed_goes_on_where_it_was(warm: WarmScene, monkeypatch: pytest.MonkeyPatch) -> None:
    warm.take_point()
    child = Child(round_of, warm.task(TaskKind.HYDRATE), "ps-1")
    killed_at(warm, child, lambda one: one.writes and warm.store.written() > 1 << 20)
    change(warm, "disk-os", 3, 9)
    warm.take_point()
    monkeypatch.setattr(windows, "WINDOW", 40)
    warm.keep()
    same(warm)
    change(warm, "disk-os", 4, 9)
    change(warm, "disk-data", 2, 9)
    warm.take_point()
    child = Child(round_of, warm.task(TaskKind.HYDRATE), "ps-1")
    killed_at(warm, child, lambda one: one.writes and "disk-data" in one.path)
    warm.store.requests.clear()
    warm.keep()
    same(warm)
    assert warm.store.written("disk-os") == 0 and warm.store.written() < 2 * BLOCK_SIZE


def test_a_failover_whose_process_server_is_killed_again_and_again_ends_right(
    warm: WarmScene, sim: AzureSim, tmp_path: Path
) -> None:
    warm.disks = {"disk-os": linux_disk(tmp_path)}
    warm.take_point()
    warm.keep()
    change(warm, "disk-os", 600, 5)
    warm.point = warm.take_point()
    before = warm.replica_bytes("disk-os")

    def child(kind: TaskKind) -> Child:
        return Child(step, warm.task(kind, preparation=WANTED), warm.directory)

    killed_at(warm, child(TaskKind.HYDRATE), lambda one: "x-ms-copy-source" in one.headers)
    killed_at(warm, child(TaskKind.HYDRATE), lambda one: one.writes and "/runs/" in one.path)
    warm.do(TaskKind.HYDRATE)
    reached = PROCESSES.Event()
    preparation = warm.task(TaskKind.PREPARE_GUEST, preparation=WANTED)
    with Child(step_into_guest, preparation, warm.directory, reached) as preparing:
        assert reached.wait(PATIENCE)
        preparing.kill()
        assert preparing.dead()
    place = files.place_of(str(warm.context.machines_dir / warm.machine_name))
    assert [one for one in loop.attached() if one.backing.startswith(f"{place}/")], "it died in the middle"
    warm.do(TaskKind.PREPARE_GUEST, preparation=WANTED)
    nothing_left(warm)
    killed_at(warm, child(TaskKind.UPLOAD_DISKS), lambda one: one.writes and "/runs/" in one.path)
    killed_at(warm, child(TaskKind.UPLOAD_DISKS), lambda one: one.method == "DELETE" and "/runs/" in one.path)
    uploaded = warm.do(TaskKind.UPLOAD_DISKS)
    found = warm.bytes_of(uploaded.disk_paths[0])[:SIZE]
    differs = (found != warm.disks["disk-os"]).reshape(-1, BLOCK_SIZE).any(axis=1)
    assert b"console=ttyS0" in found.tobytes() and np.count_nonzero(differs) < 40
    assert len(ours(sim)) == 1 and warm.replica_bytes("disk-os") == before
    assert not [one for one in warm.names() if "/runs/" in one or "@" in one]
    warm.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []
