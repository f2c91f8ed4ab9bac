"""What goes wrong at Azure or in the manifests is told with cause and remedy, and heals when the cause is gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.azure.siterecovery.scene import NAMESPACE, Control, Scene, settings
from tests.azure.siterecovery_sim.conftest import Cloud
from tests.azuresim.siterecovery import Target, protected

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.replication import CheckResult, State
from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_operator.engines.siterecovery.wishes import VaultWish


def test_a_vault_is_made_where_a_region_is_given_and_then_waits_for_an_appliance(cloud: Cloud) -> None:
    wish = VaultWish(NAMESPACE, "asr", settings(cloud, "fresh"), log_storage=cloud.storage_id)
    scene = Scene(cloud, Control(wish))
    scene.look()
    assert scene.control.vault.report.reason == "VaultNotFound"
    assert "spec.azure.region" in scene.control.vault.report.remedy and scene.calls == []
    there = replace(scene.control.vault, settings=settings(cloud, "fresh", region="westeurope"))
    scene.control.vault = there
    scene.look(3)
    assert scene.calls == ["CreateVault "]
    report = scene.control.vault.report
    assert report.exists and report.reason == "NoServerRegistered" and "five days" in report.remedy
    vault = cloud.sr.vaults[next(iter(cloud.sr.vaults))]
    cloud.sr.appliance(vault, "appl1")
    scene.look()
    report = scene.control.vault.report
    assert report.reason == "" and [one.scenario for one in report.appliances] == ["InMageRcm"]


def test_a_lost_configuration_server_and_its_errors_show_with_microsofts_remedy(classic: Scene) -> None:
    server = _server(classic)
    classic.look()
    assert classic.control.vault.report.checks == ()
    server.servers[0].suffer("806")
    server.certificate_days = 20
    classic.cloud.sr.lose_heartbeat(server, ago=timedelta(hours=1))
    classic.look()
    report = classic.control.vault.report
    assert report.reason == "ServerNotConnected" and "clock" in report.remedy
    told = {one.name: one for one in report.checks}
    assert {"SiteRecovery806", "SiteRecovery25012", "SiteRecovery25015"} <= set(told)
    assert all(one.remedy and "Possible causes" in one.message for one in told.values())


def test_a_push_that_fails_stops_with_the_remedy_and_is_tried_again(classic: Scene) -> None:
    machine = classic.protect("web1", "10.0.0.11")
    machine.push_error = "95108"
    classic.until(lambda: classic.state("web1") is State.BLOCKED)
    report = classic.report("web1")
    assert report.reason == "Failed95108" and "not root" in report.message and "SFTP" in report.remedy
    classic.look(3)
    assert len([one for one in classic.calls if one.startswith("EnableProtection")]) == 1, "not at once"
    machine.push_error = ""
    classic.cloud.sr.advance(minutes=11)
    classic.protected("web1")


@pytest.mark.parametrize("code", ["78188", "78174", "78169"])
def test_health_errors_become_checks_with_cause_and_remedy(classic: Scene, code: str) -> None:
    machine = classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    machine.suffer(code)
    classic.look()
    (check,) = classic.report("web1").checks
    assert (check.name, check.result) == (f"SiteRecovery{code}", CheckResult.ERROR)
    assert "Possible causes" in check.message and check.remedy
    assert classic.report("web1").remedy == check.remedy
    machine.recover(code)
    classic.look()
    assert classic.report("web1").checks == ()


def test_what_the_manifest_does_not_say_is_asked_for(classic: Scene) -> None:
    classic.protect("web1", "10.0.0.11")
    classic.control.vault = replace(classic.control.vault, log_storage="", linux_account="deploy")
    classic.until(lambda: classic.state("web1") is State.BLOCKED)
    assert classic.report("web1").remedy == "Set spec.azure.cacheStorageAccount"
    classic.control.vault = replace(classic.control.vault, log_storage=classic.cloud.storage_id)
    classic.look()
    assert classic.report("web1").reason == "NoAccount" and "it has: root" in classic.report("web1").message
    classic.control.vault = replace(classic.control.vault, linux_account="root")
    classic.protected("web1")


def test_a_machine_that_the_appliance_does_not_know_is_waited_for(modern: Scene) -> None:
    appliance, modern.appliance = modern.appliance, None
    machine = modern.protect("web1", "10.0.0.11")
    modern.until(lambda: _reason(modern) == "NotDiscovered")
    assert "Manage physical servers" in modern.report("web1").remedy
    modern.cloud.sr.add_to_appliance(appliance, machine)
    modern.protected("web1")


def _reason(scene: Scene) -> str:
    report = scene.control.machines["web1"].report
    return report.reason if report is not None else ""


def test_a_machine_that_was_protected_before_is_taken_over_as_it_is(classic: Scene) -> None:
    cloud, server = classic.cloud, _server(classic)
    machine = classic.protect("web1", "10.0.0.11")
    target = Target(cloud.group_id, cloud.network_id, "default", vm_name="old", log_storage={"": cloud.storage_id})
    protected(cloud.sr, _vault(classic), server, machine, target, name="made-by-hand")
    classic.protected("web1")
    assert not [one for one in classic.calls if one.startswith(("Enable", "Discover"))], "nothing was protected anew"


def test_a_failover_outside_of_farshore_needs_a_person(classic: Scene) -> None:
    classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    done = classic.task(TaskKind.FAILOVER, "web1", "go")
    assert done.phase is TaskPhase.SUCCEEDED
    classic.look()
    assert classic.state("web1") is State.BLOCKED and classic.report("web1").reason == "FailedOverOutside"


def test_a_drill_that_somebody_else_began_is_neither_used_nor_removed(classic: Scene) -> None:
    classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    assert classic.task(TaskKind.TEST_FAILOVER, "web1", "theirs", network=classic.cloud.network_id).result is not None
    classic.control.tasks.clear()
    classic.cloud.sr.advance(hours=2)
    mine = classic.task(TaskKind.TEST_FAILOVER, "web1", "mine", network=classic.cloud.network_id)
    assert mine.phase is TaskPhase.FAILED and "Clean it up" in mine.remedy
    assert classic.task(TaskKind.CLEAN_UP, "web1", "mine").phase is TaskPhase.SUCCEEDED
    assert classic.cloud.vm_names() == ["web1-dr-test"], "the other one's machine stays"


def test_a_failover_that_azure_fails_stops_with_its_reason(classic: Scene) -> None:
    classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    classic.cloud.sim.faults.fail_at_end("POST", "*/unplannedFailover", "28031", "the quota is exceeded")
    classic.control.machines["web1"] = replace(classic.control.machines["web1"], desired=Desired.STOP)
    failed = classic.task(TaskKind.FAILOVER, "web1", "go")
    assert failed.phase is TaskPhase.FAILED and "28031" in failed.message and "start again" in failed.remedy
    again = classic.task(TaskKind.FAILOVER, "web1", "again")
    assert again.phase is TaskPhase.SUCCEEDED, again


def test_a_failover_that_fails_when_the_source_is_off_already_says_so(classic: Scene) -> None:
    machine = classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    classic.control.machines["web1"] = replace(classic.control.machines["web1"], desired=Desired.STOP)
    classic.cloud.sim.faults.quota("PUT", "*/virtualMachines/*")
    failed = classic.task(TaskKind.FAILOVER, "web1", "go", shutdown=True)
    assert failed.phase is TaskPhase.FAILED and not machine.powered_on and classic.cloud.vm_names() == []
    assert "web1 may be switched off at its site" in failed.remedy and "start it there" in failed.remedy
    again = classic.task(TaskKind.FAILOVER, "web1", "again", shutdown=True)
    assert again.phase is TaskPhase.SUCCEEDED and classic.cloud.vm_names() == ["web1-dr"], again


def test_a_change_of_point_that_fails_says_that_the_machine_may_not_run_meanwhile(classic: Scene) -> None:
    classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    point = classic.report("web1").recent_points[0].name
    classic.control.machines["web1"] = replace(classic.control.machines["web1"], desired=Desired.STOP)
    assert classic.task(TaskKind.FAILOVER, "web1", "go", shutdown=True).phase is TaskPhase.SUCCEEDED
    classic.cloud.sim.faults.quota("PUT", "*/virtualMachines/*")
    failed = classic.task(TaskKind.CHANGE_POINT, "web1", "back", point=point)
    assert failed.phase is TaskPhase.FAILED and "web1 may not run" in failed.remedy, failed
    again = classic.task(TaskKind.CHANGE_POINT, "web1", "again", point=point)
    assert again.phase is TaskPhase.SUCCEEDED and classic.cloud.vm_names() == ["web1-dr"], again


def test_a_source_that_cannot_be_switched_off_does_not_hold_a_failover_up(classic: Scene) -> None:
    machine = classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    machine.shuts_down = False
    done = classic.task(TaskKind.FAILOVER, "web1", "go", shutdown=True)
    assert done.phase is TaskPhase.SUCCEEDED and done.result is not None and done.result.confirmed is False
    assert "could not be switched off" in done.message


def _vault(scene: Scene) -> Any:
    return next(iter(scene.cloud.sr.vaults.values()))


def _server(scene: Scene) -> Any:
    return next(iter(_vault(scene).fabrics.values()))
