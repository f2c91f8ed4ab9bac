"""Azure in trouble, at every call that a recovery makes: it ends right, or stops with a remedy, and leaves nothing odd.

The calls are those of a good run. Each is met by faults in turn; `make soak` meets each call by each fault.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.azure.provider.scene import MIB, SECRET, Scene, boot_disk, ours, seed
from tests.azuresim import AzureSim

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import TaskKind, TaskResult

STEPS = (TaskKind.UPLOAD_DISKS, TaskKind.START_MACHINE, TaskKind.CLEAN_UP)
MOST_TRIES = 12
Plan = Callable[[AzureSim, str, str, str], Any]


def refuse(name: str) -> Plan:
    def plan(sim: AzureSim, plane: str, method: str, path: str) -> Any:
        if plane == "data":
            return sim.faults.refuse(method, path, 503, "ServerBusy", plane="data")
        return getattr(sim.faults, name)(method, path)

    return plan


FAULTS: dict[str, Plan] = {
    "throttled": lambda sim, plane, method, path: sim.faults.refuse(
        method, path, 429, "TooManyRequests", headers={"Retry-After": "0"}, plane=plane
    ),
    "conflict": refuse("conflict"),
    "broken": lambda sim, plane, method, path: sim.faults.refuse(method, path, 500, "InternalServerError", plane=plane),
    "quota": refuse("quota"),
    "policy": refuse("policy"),
    "fails at the end": refuse("fail_at_end"),
    "preempted": refuse("cancel_at_end"),
    "answer lost": lambda sim, plane, method, path: sim.faults.lose_response(method, path, plane=plane),
    "request lost": lambda sim, plane, method, path: sim.faults.lose_request(method, path, plane=plane),
    "stale": refuse("stale"),
    "token expired": lambda sim, plane, method, path: (
        sim.faults.expire_token(method, path, revoke=True)
        if plane == "arm"
        else sim.faults.refuse(method, path, 403, "AuthenticationFailed", plane="data")
    ),
    "claims challenge": refuse("challenge_claims"),
}


@dataclass(frozen=True)
class Call:
    """A call of a good run: which one of its kind (method and path), from 1."""

    plane: str
    method: str
    path: str


@pytest.fixture(scope="module")
def shared() -> Iterator[AzureSim]:
    with AzureSim() as running:
        yield running
        cloud_module.close_clouds()


@pytest.fixture(scope="module")
def staged(shared: AzureSim, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A machine of one small disk, staged once; each test begins from a copy."""
    shared.reset()
    seed(shared)
    disk = np.zeros(21 * MIB, np.uint8)
    disk[: 2 * MIB] = boot_disk()[: 2 * MIB]
    made = Scene(shared, tmp_path_factory.mktemp("staged"), disks={"disk-os": disk})
    made.do(TaskKind.HYDRATE)
    return made


@pytest.fixture
def scene(shared: AzureSim, staged: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(cloud_module, "POLL_SECONDS", 0)
    monkeypatch.setattr(cloud_module, "TIMES", {**cloud_module.TIMES, "retry_total": 0})
    return fresh(shared, staged, tmp_path)


def fresh(sim: AzureSim, staged: Scene, directory: Path) -> Scene:
    sim.reset()
    seed(sim)
    shutil.rmtree(directory / "state", ignore_errors=True)
    shutil.copytree(staged.directory / "state", directory / "state")
    sim.calls.clear()
    return Scene(sim, staged.directory, disks=staged.disks, point=staged.point, own=directory)


def patterned(path: str) -> str:
    """Return a path without what differs from run to run: operations' ids, and blobs' names."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27,}|md-[^/]+", "*", path)


def good_calls(scene: Scene) -> list[Call]:
    """Return every call of a good run, each kind once, in their order."""
    for kind in STEPS:
        scene.do(kind)
    asked = [
        Call(one.plane, one.method, patterned(one.path)) for one in scene.sim.calls if one.plane in ("arm", "data")
    ]
    subscription = f"/subscriptions/{scene.sim.subscription}"
    return [
        Call(one.plane, one.method, one.path.replace("/subscriptions/*", subscription)) for one in dict.fromkeys(asked)
    ]


def persist(scene: Scene, kind: TaskKind) -> TaskResult:
    """Carry a step out as the task runner does: again while it must wait. Raises StopFault."""
    for tried in itertools.count(1):
        try:
            return scene.do(kind)
        except WaitFault as fault:
            assert fault.message and tried < MOST_TRIES, f"{kind} waits for ever: {fault}"
    raise AssertionError


def play(scene: Scene, plan: Plan, call: Call) -> str:
    """Play the run under a fault and check every promise; returns how it ended."""
    sim = scene.sim
    plan(sim, call.plane, call.method, call.path)
    ended = "right"
    try:
        for kind in STEPS:
            result = persist(scene, kind)
            if kind is TaskKind.START_MACHINE:
                check_running(scene, result)
    except StopFault as stop:
        assert stop.message and stop.remedy, f"no remedy: {stop.message}"
        ended = stop.reason
    assert sim.faults.struck, f"{call} was never made"
    nothing_odd(sim)
    sim.faults.clear()
    sim.settle()
    persist(scene, TaskKind.CLEAN_UP)
    assert ours(sim) == [], f"left behind, {ended}"
    assert not list(sim.store.of("Microsoft.Compute/disks"))
    return ended


def check_running(scene: Scene, result: TaskResult) -> None:
    compute = scene.sim.parts["compute"]
    (machine,) = scene.sim.store.of("Microsoft.Compute/virtualMachines")
    assert compute.power_of(machine.name) == "running"
    scene.check_disks(result.disk_paths)


def nothing_odd(sim: AzureSim) -> None:
    """There is never a second machine, nor a disk or interface without its owner's tags."""
    assert len(list(sim.store.of("Microsoft.Compute/virtualMachines"))) <= 1
    for kind in ("Microsoft.Compute/disks", "Microsoft.Network/networkInterfaces", "Microsoft.Compute/virtualMachines"):
        for one in sim.store.of(kind):
            assert one.tags.get("farshore-machine") == "shop.web", f"{one.id} has no owner"


def test_each_call_meets_some_faults(scene: Scene, staged: Scene, shared: AzureSim, tmp_path: Path) -> None:
    calls, names = good_calls(scene), list(FAULTS)
    assert len(calls) > 20
    met: dict[str, set[str]] = {}
    for number, call in enumerate(calls):
        name = names[number * 5 % len(names)]
        ended = play(fresh(shared, staged, tmp_path), FAULTS[name], call)
        met.setdefault(name, set()).add(ended)
    assert set(met) == set(names)
    assert "right" in met["answer lost"] & met["throttled"]


@pytest.mark.soak
def test_each_call_meets_each_fault(scene: Scene, staged: Scene, shared: AzureSim, tmp_path: Path) -> None:
    for call in good_calls(scene):
        for name, plan in FAULTS.items():
            try:
                play(fresh(shared, staged, tmp_path), plan, call)
            except AssertionError as error:
                raise AssertionError(f"{name} at {call}: {error}") from error


def test_no_secret_and_no_signature_is_logged(
    scene: Scene, shared: AzureSim, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    shared.faults.lose_response("PUT", "*", plane="data")
    shared.faults.refuse("PUT", "*", 500, "InternalError", nth=3, plane="data")
    told = []
    for kind in STEPS:
        try:
            persist(scene, kind)
        except StopFault as fault:
            told.append(str(fault))
    shown = capsys.readouterr()
    text = "\n".join([caplog.text, shown.out, shown.err, *told, *scene.told])
    assert len(caplog.records) > 20
    assert shared.me.secret not in text and SECRET not in text
    signatures = [one.query["sig"] for one in shared.calls if one.plane == "data"]
    assert signatures and not [one for one in signatures if one in text]
