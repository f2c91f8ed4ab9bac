"""The tutorial by the driver, for two machines in each experience: from nothing to the commit, bytes compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.azure.siterecovery.scene import NAMESPACE, Scene

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.replication import State
from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.wishes import MachineWish


def _bytes(machine: object) -> list[bytes]:
    return [disk.path.read_bytes() for disk in machine.disks]  # type: ignore[attr-defined]


@pytest.mark.parametrize("experience", ["classic", "modern"])
def test_two_machines_are_protected_drilled_failed_over_committed_and_disabled(
    experience: str, request: pytest.FixtureRequest
) -> None:
    scene: Scene = request.getfixturevalue(experience)
    cloud = scene.cloud
    machines = {name: scene.protect(name, f"10.0.0.{number}") for number, name in ((11, "web1"), (12, "db1"))}
    scene.protected(*machines)
    report = scene.report("web1")
    assert (report.process_server, report.epoch, len(report.disks)) == ("siterecovery-asr", 1, 2)
    assert report.agent is not None and report.agent.connected and report.agent.version
    assert report.operation is None or report.operation.call == "EnableProtection"
    enabled = [call for call in scene.calls if call.startswith("EnableProtection")]
    assert sorted(enabled) == sorted(f"EnableProtection {naming.item(f'{NAMESPACE}.{name}')}" for name in machines)

    old = _bytes(machines["web1"])
    cloud.sr.advance(minutes=6)
    scene.look()
    point = scene.report("web1").last_point
    assert point is not None
    for machine in machines.values():
        for disk in machine.disks:
            disk.path.write_bytes(b"changed since" + disk.path.read_bytes()[13:])
    new = {name: _bytes(machine) for name, machine in machines.items()}
    cloud.sr.advance(minutes=60)
    scene.look()
    assert scene.report("web1").last_app_consistent_point is not None or experience == "modern"

    chosen = scene.task(TaskKind.SELECT_POINT, "web1", "drill", selector=point.name).result
    assert chosen is not None and chosen.point is not None and chosen.point.name == point.name
    apart = cloud.network_id.replace("/vnet", "/testvnet")
    made = scene.task(TaskKind.TEST_FAILOVER, "web1", "drill", network=apart, point=point.name)
    assert made.phase is TaskPhase.SUCCEEDED, made
    assert [cloud.vm_bytes("web1-dr-test", number, len(one)) for number, one in enumerate(old)] == old
    assert "test failover" in (scene.task(TaskKind.PROBE_MACHINE, "web1", "drill").result or made).evidence
    scene.control.tasks.clear()
    cleaned = scene.task(TaskKind.CLEAN_UP, "web1", "drill", notes="went well")
    assert cleaned.phase is TaskPhase.SUCCEEDED and cloud.vm_names() == []

    for name in machines:
        scene.control.machines[name] = _with(scene, name, Desired.STOP)
        failed_over = scene.task(TaskKind.FAILOVER, name, "go", selector="Latest", shutdown=True)
        assert failed_over.phase is TaskPhase.SUCCEEDED and failed_over.result is not None, failed_over
        assert failed_over.result.confirmed and not machines[name].powered_on
        assert [cloud.vm_bytes(f"{name}-dr", number, len(one)) for number, one in enumerate(new[name])] == new[name]
    scene.look()
    assert scene.state("web1") is State.STOPPED

    changed = scene.task(TaskKind.CHANGE_POINT, "web1", "back", point=point.name)
    assert changed.phase is TaskPhase.SUCCEEDED, changed
    assert [cloud.vm_bytes("web1-dr", number, len(one)) for number, one in enumerate(old)] == old
    for name in machines:
        assert scene.task(TaskKind.COMMIT, name, "commit").phase is TaskPhase.SUCCEEDED
    scene.look()
    assert scene.report("web1").point_count > 0, "what was known of the points is not forgotten with them"

    for name in machines:
        scene.control.machines[name] = _with(scene, name, Desired.UNINSTALL)
    scene.until(lambda: all(scene.state(name) is State.UNINSTALLED for name in machines))
    assert sorted(cloud.vm_names()) == ["db1-dr", "web1-dr"], "the recovered machines stay"
    assert len(scene.calls) == len(set(scene.calls)), "nothing was called twice"


def _with(scene: Scene, name: str, desired: Desired) -> MachineWish:
    return replace(scene.control.machines[name], desired=desired)
