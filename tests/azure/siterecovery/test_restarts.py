"""The driver is ended at every line that matters, and at every fault that Azure can plan: nothing is done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.azure.siterecovery.scene import Everywhere, Scene, Trap

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.replication import State
from farshore_engine.contract.tasks import TaskKind, TaskPhase


def _short(scene: Scene) -> None:
    """The tutorial without its forks: protect, drill, clean up, fail over, commit, disable."""
    scene.protect("web1", "10.0.0.11")
    scene.protected("web1")
    ends = [scene.task(TaskKind.TEST_FAILOVER, "web1", "drill", network=scene.cloud.network_id)]
    ends.append(scene.task(TaskKind.CLEAN_UP, "web1", "drill"))
    scene.control.machines["web1"] = replace(scene.control.machines["web1"], desired=Desired.STOP)
    ends.append(scene.task(TaskKind.FAILOVER, "web1", "go", shutdown=True))
    ends.append(scene.task(TaskKind.COMMIT, "web1", "commit"))
    assert [one.phase for one in ends] == [TaskPhase.SUCCEEDED] * 4, ends
    scene.control.machines["web1"] = replace(scene.control.machines["web1"], desired=Desired.UNINSTALL)
    scene.until(lambda: scene.state("web1") is State.UNINSTALLED)


def _changes(scene: Scene) -> Counter[str]:
    """What Azure was told to do, and did."""
    return Counter(
        f"{one.method} {one.path.split('/vaults/')[-1]}"
        for one in scene.cloud.sim.calls
        if one.method != "GET" and one.plane == "arm" and 200 <= one.status < 300 and "/vaults/" in one.path
    )


EXPECTED = 9
"""Calls of the short tutorial: policy, mapping, discovery, enable, drill, clean-up, failover, commit, disable."""


def test_the_driver_can_end_in_every_look_and_begins_nothing_twice(classic: Scene) -> None:
    classic.cloud.sim.pace.polls = 2
    classic.control.trap = trap = Everywhere(at=1)
    _short(classic)
    assert trap.ended > 10
    done = _changes(classic)
    assert {k: n for k, n in done.items() if n != 1} == {} and len(done) == EXPECTED, done
    assert classic.cloud.vm_names() == ["web1-dr"]


@pytest.mark.parametrize("crash", range(1, 34, 5))
def test_a_crash_at_each_place_is_healed(classic: Scene, crash: int) -> None:
    classic.control.trap = Trap(crash)
    _short(classic)
    done = _changes(classic)
    assert {k: n for k, n in done.items() if n != 1} == {} and len(done) == EXPECTED, done


FAULTS: dict[str, Callable[[Scene, str, str], object]] = {
    "throttled": lambda s, m, p: s.cloud.sim.faults.throttle(m, p, retry_after=1),
    "unavailable": lambda s, m, p: s.cloud.sim.faults.server_error(m, p, status=503),
    "conflict": lambda s, m, p: s.cloud.sim.faults.conflict(m, p),
    "answer lost": lambda s, m, p: s.cloud.sim.faults.lose_response(m, p),
    "question lost": lambda s, m, p: s.cloud.sim.faults.lose_request(m, p),
}
WRITES = {
    "policy": ("PUT", "*/replicationPolicies/*"),
    "mapping": ("PUT", "*/replicationProtectionContainerMappings/*"),
    "discovery": ("POST", "*/discoverProtectableItem"),
    "enable": ("PUT", "*/replicationProtectedItems/*"),
    "drill": ("POST", "*/testFailover"),
    "clean-up": ("POST", "*/testFailoverCleanup"),
    "failover": ("POST", "*/unplannedFailover"),
    "commit": ("POST", "*/failoverCommit"),
    "disable": ("POST", "*/remove"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_time_heals_is_healed_at_every_call(classic: Scene, fault: str) -> None:
    for method, path in WRITES.values():
        FAULTS[fault](classic, method, path)
    _short(classic)
    assert len(classic.cloud.sim.faults.struck) == len(WRITES)
    done = _changes(classic)
    assert {k: n for k, n in done.items() if n != 1} == {} and len(done) == EXPECTED, done
    assert classic.cloud.vm_names() == ["web1-dr"]


def test_reading_is_repeated_too(classic: Scene) -> None:
    classic.protect("web1", "10.0.0.11")
    for part in ("replicationFabrics", "replicationPolicies", "replicationProtectedItems", "recoveryPoints"):
        classic.cloud.sim.faults.throttle("GET", f"*/{part}", retry_after=7)
    assert classic.driver.look() == 7, "Azure is left alone for as long as it asks"
    assert classic.control.vault.report.reason == "Throttled" and classic.control.vault.report.waits
    classic.protected("web1")
    assert classic.control.vault.report.reason == ""


def test_no_credential_is_in_a_report_or_a_log(classic: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    classic.cloud.sim.faults.expire_token("PUT", "*/replicationPolicies/*")
    classic.cloud.sim.faults.refuse("PUT", "*/replicationProtectedItems/*", 403, "AuthorizationFailed", "no")
    classic.protect("web1", "10.0.0.11")
    classic.look(8)
    assert classic.state("web1") is not None
    secret = classic.cloud.sim.credential().client_secret
    captured = capsys.readouterr()
    everything = "\n".join((*classic.control.told, captured.out, captured.err))
    assert secret not in everything and "Bearer" not in everything and "eyJ" not in everything
    assert "&s=" not in everything, "no signed URL of an operation is kept"
