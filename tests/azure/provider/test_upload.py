"""A disk's upload goes on where it was cut off, with signatures that expire, and never mixes two versions of a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.azure.provider.scene import MIB, Scene
from tests.azuresim import AzureSim

from farshore_engine.azure import upload as upload_module
from farshore_engine.azure.upload import PAGE, data_runs
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskKind

STAGED = "disk-0.raw"


def pages(sim: AzureSim) -> list[str]:
    """Return the ranges that were written, as the data plane saw them."""
    return [one.path for one in sim.calls if one.plane == "data" and one.method == "PUT"]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "WINDOW", 4 * MIB)
    monkeypatch.setattr(upload_module, "PUT", MIB)


@pytest.mark.usefixtures("small_windows")
def test_an_upload_that_was_called_off_goes_on_behind_what_was_noted(scene: Scene, sim: AzureSim) -> None:
    scene.do(TaskKind.HYDRATE)
    looks = 0

    def call_off(percent: int | None, sentence: str) -> None:
        nonlocal looks
        looks += percent is not None and percent >= 20
        if looks == 1:
            raise StopFault("the task was called off", reason="CalledOff")

    scene.progress = call_off
    with pytest.raises(StopFault, match="called off"):
        scene.do(TaskKind.UPLOAD_DISKS)
    sent, scene.progress = len(pages(sim)), None
    assert sent > 2
    sim.calls.clear()
    uploaded = scene.do(TaskKind.UPLOAD_DISKS)
    scene.check_disks(uploaded.disk_paths)
    assert not [one for one in sim.calls if one.method == "DELETE"], "it began anew"


@pytest.mark.usefixtures("small_windows")
def test_what_was_uploaded_counts_no_more_once_the_disk_is_staged_anew(scene: Scene, sim: AzureSim) -> None:
    """The guest is prepared on the staged disk: pages of before and after would make a broken file system."""
    scene.do(TaskKind.HYDRATE)
    scene.progress = lambda percent, _: _stop() if percent and percent >= 20 else None
    with pytest.raises(StopFault):
        scene.do(TaskKind.UPLOAD_DISKS)
    scene.progress = None
    scene.do(TaskKind.HYDRATE)
    (image,) = [path for path in scene.staged() if path.name == STAGED]
    data = np.fromfile(image, np.uint8)
    data[MIB : 2 * MIB] = 0
    data.tofile(image)
    uploaded = scene.do(TaskKind.UPLOAD_DISKS)
    assert [one for one in sim.calls if one.method == "DELETE"], "the half disk was gone on with"
    assert np.array_equal(scene.bytes_of(uploaded.disk_paths[0])[: data.size], data)


def _stop() -> None:
    raise StopFault("the task was called off", reason="CalledOff")


def test_a_disk_of_which_another_process_server_uploaded_a_part_is_made_anew(scene: Scene, sim: AzureSim) -> None:
    scene.do(TaskKind.HYDRATE)
    scene.progress = lambda percent, _: _stop() if percent else None
    with pytest.raises(StopFault):
        scene.do(TaskKind.UPLOAD_DISKS)
    scene.progress = None
    scene.lose_staged()
    result = scene.recover()
    scene.check_disks(result.disk_paths)


@pytest.mark.usefixtures("small_windows")
def test_a_signature_that_expires_is_renewed(scene: Scene, sim: AzureSim, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.do(TaskKind.HYDRATE)
    refused = sim.faults.refuse("PUT", "*", 403, "AuthenticationFailed", nth=3, times=3, plane="data")
    uploaded = scene.do(TaskKind.UPLOAD_DISKS)
    scene.check_disks(uploaded.disk_paths)
    assert [one for one, *_ in sim.faults.struck if one is refused]
    granted = [one for one in sim.calls if one.path.endswith("/beginGetAccess")]
    assert len(granted) > len(uploaded.disk_paths)


@pytest.mark.usefixtures("small_windows")
def test_a_renewed_signature_cuts_off_nobody_who_is_about_to_write_with_the_old_one(
    scene: Scene, sim: AzureSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.do(TaskKind.HYDRATE)
    access, late = upload_module._Blob._access, threading.Lock()

    def access_late(blob: upload_module._Blob) -> tuple[Any, int]:
        client, generation = access(blob)
        if generation == 0 and late.acquire(blocking=False):
            deadline = time.monotonic() + 120
            while blob._generation == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
        return client, generation

    monkeypatch.setattr(upload_module._Blob, "_access", access_late)
    refused = sim.faults.refuse("PUT", "*", 403, "AuthenticationFailed", plane="data")
    uploaded = scene.do(TaskKind.UPLOAD_DISKS)
    scene.check_disks(uploaded.disk_paths)
    assert late.locked() and [one for one, *_ in sim.faults.struck if one is refused]


def test_signatures_that_never_work_end_the_upload_with_a_remedy(scene: Scene, sim: AzureSim) -> None:
    scene.do(TaskKind.HYDRATE)
    sim.faults.refuse("PUT", "*", 403, "AuthenticationFailed", times=10_000, plane="data")
    with pytest.raises(StopFault, match="each new signature is refused") as told:
        scene.do(TaskKind.UPLOAD_DISKS)
    assert "clock" in told.value.remedy


KILLED = """
import sys, time
from pathlib import Path
import farshore_engine.azure.upload as upload
import farshore_engine.azure.cloud as cloud
from farshore_engine.contract.tasks import TaskAssignment, TaskKind
from farshore_engine.processserver.dispatch import executor_of
import pickle
task, context_parts = pickle.loads(Path(sys.argv[1]).read_bytes())
cloud.POLL_SECONDS = 0
upload.WINDOW = upload.PUT = 1 << 20
note = upload._note
def slow(*given):
    note(*given)
    print("noted", flush=True)
    time.sleep(0.3)
upload._note = slow
from tests.azure.provider.scene import context_of
executor_of(task)(task, context_of(Path(context_parts), lambda percent, sentence: None))
"""


def test_an_upload_whose_process_was_killed_goes_on(scene: Scene, sim: AzureSim, tmp_path: Path) -> None:
    import pickle

    scene.do(TaskKind.HYDRATE)
    given = tmp_path / "task"
    given.write_bytes(pickle.dumps((scene.task(TaskKind.UPLOAD_DISKS), str(scene.directory))))
    with subprocess.Popen([sys.executable, "-c", KILLED, str(given)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(8):
            assert process.stdout.readline() == "noted\n"
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    done = len(pages(sim))
    assert done > 0
    sim.calls.clear()
    uploaded = scene.do(TaskKind.UPLOAD_DISKS)
    scene.check_disks(uploaded.disk_paths)
    assert not [one for one in sim.calls if one.method == "DELETE"], "it began anew"


@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        pytest.param([], [], id="zeros are not sent"),
        pytest.param([(0, 1)], [(0, PAGE)], id="one byte takes its page"),
        pytest.param([(0, 1), (3 * PAGE, 1)], [(0, 4 * PAGE)], id="a short gap is sent along"),
        pytest.param([(0, 1), (500 * PAGE, 9)], [(0, PAGE), (500 * PAGE, 501 * PAGE)], id="a long gap is left out"),
        pytest.param([(1023 * PAGE + 511, 1)], [(1023 * PAGE, 1024 * PAGE)], id="the last byte"),
    ],
)
def test_which_pages_are_sent(filled: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    data = np.zeros(1024 * PAGE, np.uint8)
    for at, length in filled:
        data[at : at + length] = 1
    assert list(data_runs(data)) == expected
