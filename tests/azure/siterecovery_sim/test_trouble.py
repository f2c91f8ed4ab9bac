"""Planned trouble: it shows where Azure shows it, with a code and a remedy, and nothing is left behind."""

from __future__ import annotations

from datetime import timedelta

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Classic, Cloud
from tests.azure.siterecovery_sim.inputs import DISABLE, drill_input, failover_input
from tests.azuresim.compute.state import compute
from tests.azuresim.siterecovery import Target, protected
from tests.azuresim.siterecovery.catalog import KNOWN

PUSH = ["95105", "95103", "95107", "95108", "95320", "95517", "95519", "95520", "95524", "95572"]


@pytest.mark.parametrize("code", PUSH)
def test_a_push_that_fails_names_its_code_and_its_job_starts_again(cloud: Cloud, classic: Classic, code: str) -> None:
    machine = cloud.machine()
    machine.push_error = code
    with pytest.raises(HttpResponseError, match=code):
        classic.protect(machine)
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    item = items.get(*at).properties
    assert (item.protection_state, item.allowed_operations) == ("EnablingFailed", ["DisableProtection"])
    jobs = cloud.site.replication_jobs
    failed = next(one for one in jobs.list(GROUP, VAULT, filter="JobStatus eq 'Failed'"))
    error = failed.properties.errors[0].service_error_details
    assert (error.code, error.recommended_action) == (code, KNOWN[code].action)
    assert failed.properties.allowed_actions == ["Restart"]
    assert any(one.properties.severity == "Critical" for one in cloud.site.replication_events.list(GROUP, VAULT))
    machine.push_error = ""
    assert jobs.begin_restart(GROUP, VAULT, failed.name).result().properties.scenario_name == "RestartJob"
    assert items.get(*at).properties.protection_state == "Protected"
    assert jobs.get(GROUP, VAULT, failed.name).properties.state == "Succeeded"


def test_a_machine_that_cannot_be_reached_fails_with_the_code_of_its_system(cloud: Cloud, classic: Classic) -> None:
    machine = cloud.machine()
    machine.powered_on = False
    with pytest.raises(HttpResponseError, match="97118"):
        classic.protect(machine)
    cloud.site.replication_protected_items.begin_delete(*classic.at, "item-web1", DISABLE).result()
    assert list(cloud.site.replication_protected_items.list(GROUP, VAULT)) == []


@pytest.mark.parametrize("code", ["78188", "78169", "78186"])
def test_a_health_error_shows_with_cause_and_remedy_on_item_and_vault(
    cloud: Cloud, classic: Classic, code: str
) -> None:
    machine = cloud.machine()
    classic.protect(machine)
    if code == "78186":
        classic.server.servers[0].suffer(code)
    else:
        machine.suffer(code)
    item = cloud.site.replication_protected_items.get(*classic.at, "item-web1").properties
    assert item.replication_health == "Critical"
    assert [(one.error_code, one.possible_causes, one.recommended_action) for one in item.health_errors] == [
        (code, KNOWN[code].causes, KNOWN[code].action)
    ]
    health = cloud.site.replication_vault_health.get(GROUP, VAULT).properties
    assert [one.summary_code for one in health.protected_items_health.issues] == [code]
    events = [one.properties for one in cloud.site.replication_events.list(GROUP, VAULT)]
    assert [(one.event_type, one.severity) for one in events] == [("VmHealth", "Critical")]
    machine.recover()
    classic.server.servers[0].errors.clear()
    assert (
        cloud.site.replication_vault_health.begin_refresh(GROUP, VAULT)
        .result()
        .properties.protected_items_health.issues
        == []
    )


def test_a_silent_machine_has_a_growing_rpo_no_points_and_then_no_heartbeat(cloud: Cloud, classic: Classic) -> None:
    machine = cloud.machine()
    classic.protect(machine)
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    machine.sends = False
    cloud.sr.advance(minutes=16)
    item = items.get(*at).properties
    details = item.provider_specific_details
    assert details.rpo_in_seconds >= 960
    assert [one.error_code for one in item.health_errors] == ["78174"]
    assert len(list(cloud.site.recovery_points.list_by_replication_protected_items(*at))) == 1
    machine.sends = True
    cloud.sr.advance(minutes=5)
    item = items.get(*at).properties
    assert (item.replication_health, item.health_errors) == ("Normal", [])


def test_app_points_that_fail_are_a_warning(cloud: Cloud, classic: Classic) -> None:
    machine = cloud.machine()
    machine.app_consistent = False
    classic.protect(machine)
    cloud.sr.advance(minutes=65)
    item = cloud.site.replication_protected_items.get(*classic.at, "item-web1").properties
    assert (item.replication_health, [one.error_code for one in item.health_errors]) == ("Warning", ["78144"])
    listed = cloud.site.recovery_points.list_by_replication_protected_items(*classic.at, "item-web1")
    assert {one.properties.recovery_point_type for one in listed} == {"CrashConsistent"}


def test_points_older_than_the_retention_go_with_their_bytes(cloud: Cloud, classic: Classic) -> None:
    classic.policy(recovery_point_history=60, app_consistent_frequency_in_minutes=0)
    classic.protect(cloud.machine())
    for _ in range(4):
        cloud.sr.advance(minutes=30)
    listed = list(cloud.site.recovery_points.list_by_replication_protected_items(*classic.at, "item-web1"))
    times = [one.properties.recovery_point_time for one in listed]
    assert max(times) - min(times) <= timedelta(minutes=61)
    kept = list((cloud.sim.directory / "siterecovery").iterdir())  # type: ignore[operator]
    assert len(kept) <= 2 * 4, "one snapshot for each advance within the retention"


def test_a_lost_configuration_server_shows_and_a_refresh_fails_until_it_is_back(cloud: Cloud, classic: Classic) -> None:
    site, name = cloud.site, classic.server.name
    cloud.sr.lose_heartbeat(classic.server, ago=timedelta(minutes=20))
    fabric = site.replication_fabrics.get(GROUP, VAULT, name).properties
    assert (fabric.health, [one.error_code for one in fabric.health_error_details]) == ("Critical", ["25012"])
    provider = next(iter(site.replication_recovery_services_providers.list_by_replication_fabrics(GROUP, VAULT, name)))
    assert provider.properties.connection_status == "NotConnected"
    refresh = site.replication_recovery_services_providers.begin_refresh_provider
    with pytest.raises(HttpResponseError, match="25012"):
        refresh(GROUP, VAULT, name, provider.name).result()
    cloud.sr.restore_heartbeat(classic.server)
    assert refresh(GROUP, VAULT, name, provider.name).result().properties.connection_status == "Connected"
    classic.server.certificate_days = 20
    fabric = site.replication_fabrics.get(GROUP, VAULT, name).properties
    assert (fabric.health, fabric.custom_details.ssl_cert_expiry_remaining_days) == ("Warning", 20)


def test_a_new_account_appears_after_fifteen_minutes_or_a_refresh(cloud: Cloud, classic: Classic) -> None:
    def names() -> list[str]:
        details = cloud.site.replication_fabrics.get(GROUP, VAULT, classic.server.name).properties.custom_details
        return [one.account_name for one in details.run_as_accounts]

    cloud.sr.add_account(classic.server, "later")
    assert names() == ["root"]
    cloud.sr.advance(minutes=15)
    assert names() == ["root", "later"]
    cloud.sr.add_account(classic.server, "now")
    cloud.site.replication_recovery_services_providers.begin_refresh_provider(
        GROUP, VAULT, classic.server.name, classic.server.dra
    ).result()
    assert names() == ["root", "later", "now"]


@pytest.mark.parametrize(
    ("kind", "code"), [("virtualMachines", "28031"), ("disks", "28031"), ("networkInterfaces", "28092")]
)
def test_a_quota_stops_the_failover_leaves_nothing_and_its_job_starts_again(
    cloud: Cloud, classic: Classic, kind: str, code: str
) -> None:
    classic.protect(cloud.machine())
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    cloud.sim.faults.quota("PUT", f"*/{kind}/*")
    before = len(cloud.sim.store.found)
    with pytest.raises(HttpResponseError, match=code):
        items.begin_unplanned_failover(*at, failover_input()).result()
    assert len(cloud.sim.store.found) == before
    item = items.get(*at).properties
    assert (item.protection_state, item.allowed_operations) == (
        "UnplannedFailoverFailed", ["UnplannedFailover", "DisableProtection", "TestFailover"],
    )  # fmt: skip
    failed = next(iter(cloud.site.replication_jobs.list(GROUP, VAULT, filter="JobStatus eq 'Failed'")))
    cloud.site.replication_jobs.begin_restart(GROUP, VAULT, failed.name).result()
    assert items.get(*at).properties.protection_state == "UnplannedFailoverCommitPendingStatesBegin"
    assert cloud.vm_names() == ["web1-dr"]


def test_a_cancelled_failover_stops_and_does_not_replicate_again(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    site, at = cloud.site, (*classic.at, "item-web1")
    cloud.sim.pace.polls = 5
    site.replication_protected_items.begin_unplanned_failover(*at, failover_input("Required"), polling=False)
    item = site.replication_protected_items.get(*at).properties
    assert (item.protection_state, item.allowed_operations) == ("UnplannedFailoverInitiated", [])
    job = site.replication_jobs.get(GROUP, VAULT, item.current_scenario.job_id.rpartition("/")[2])
    assert job.properties.state == "InProgress" and job.properties.allowed_actions == ["Cancel"]
    assert [one.state for one in job.properties.tasks] == ["Succeeded", "InProgress", "NotStarted", "NotStarted"]
    site.replication_jobs.begin_cancel(GROUP, VAULT, job.name, polling=False)
    assert site.replication_jobs.get(GROUP, VAULT, job.name).properties.state == "Cancelling"
    cloud.sim.settle()
    assert site.replication_jobs.get(GROUP, VAULT, job.name).properties.state == "Cancelled"
    cloud.sr.advance(minutes=10)
    item = site.replication_protected_items.get(*at).properties
    assert (item.replication_health, item.allowed_operations) == ("Critical", ["DisableProtection"])
    assert len(list(site.recovery_points.list_by_replication_protected_items(*at))) == 1
    assert cloud.vm_names() == []


def test_a_machine_that_does_not_shut_down_fails_over_all_the_same(cloud: Cloud, classic: Classic) -> None:
    machine = cloud.machine()
    machine.shuts_down = False
    classic.protect(machine)
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    items.begin_unplanned_failover(*at, failover_input("Required")).result()
    assert machine.powered_on and cloud.vm_names() == ["web1-dr"]
    job = next(
        one
        for one in cloud.site.replication_jobs.list(GROUP, VAULT)
        if one.properties.scenario_name == "UnplannedFailover"
    )
    states = {one.name: one.state for one in job.properties.tasks}
    assert states["ShutdownVirtualMachine"] == "Failed" and job.properties.state == "Succeeded"


def test_a_failover_goes_on_after_its_client_died(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    cloud.sim.pace.polls = 3
    token = items.begin_test_failover(*at, drill_input(cloud)).continuation_token()
    again = cloud.site.replication_protected_items.begin_test_failover(
        *at, drill_input(cloud), continuation_token=token
    )
    assert again.result().properties.test_failover_state == "WaitingForCompletion"
    assert cloud.vm_names() == ["web1-dr-test"]


def test_a_job_that_waits_for_the_cleanup_is_resumed_with_comments(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    site, at = cloud.site, (*classic.at, "item-web1")
    site.replication_protected_items.begin_test_failover(*at, drill_input(cloud)).result()
    job = next(one for one in site.replication_jobs.list(GROUP, VAULT) if one.properties.state == "Suspended")
    assert job.properties.custom_details.protected_item_details[0].test_vm_name == "web1-dr-test"
    given = models.ResumeJobParams(properties=models.ResumeJobParamsProperties(comments="all well"))
    site.replication_jobs.begin_resume(GROUP, VAULT, job.name, given).result()
    assert cloud.vm_names() == []
    allowed = site.replication_protected_items.get(*at).properties.allowed_operations
    assert allowed == ["UnplannedFailover", "DisableProtection", "TestFailover"]


def test_a_lost_answer_leaves_one_item_and_the_second_attempt_is_told(cloud: Cloud, classic: Classic) -> None:
    machine = cloud.machine()
    cloud.sim.faults.lose_response("PUT", "*/replicationProtectedItems/*")
    classic.map(classic.policy())
    found = classic.discover(machine.name, machine.ip)
    given = classic.enable_input(f"{classic.vault.sr_id}/replicationPolicies/gold", found)
    with pytest.raises(HttpResponseError, match="ProtectedItemAlreadyExists"):
        cloud.site.replication_protected_items.begin_create(*classic.at, "item-web1", given, retry_total=3).result()
    assert [one.name for one in cloud.site.replication_protected_items.list(GROUP, VAULT)] == ["item-web1"]


def test_a_resync_counts_up_and_points_wait_for_it(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    cloud.sr.sync_looks = 4
    begun = items.begin_repair_replication(*at).result().properties
    assert begun.allowed_operations[0] == "RepairReplication"
    seen = [items.get(*at).properties.provider_specific_details.resync_progress_percentage for _ in range(4)]
    assert seen == sorted(seen) and seen[-1] == 100 and seen[0] < 100


def test_changed_settings_are_those_of_the_recovered_machine(cloud: Cloud, classic: Classic) -> None:
    item = classic.protect(cloud.machine())
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    nic = item.properties.provider_specific_details.vm_nics[0]
    config = models.IPConfigInputDetails(
        ip_config_name="ipConfig1",
        is_primary=True,
        recovery_subnet_name="default",
        recovery_static_ip_address="10.9.0.77",
    )
    tags = models.InMageAzureV2UpdateReplicationProtectedItemInput(target_vm_tags={"run": "r1"})
    change = models.UpdateReplicationProtectedItemInput(
        properties=models.UpdateReplicationProtectedItemInputProperties(
            recovery_azure_vm_name="renamed", recovery_azure_vm_size="Standard_D4s_v3",
            vm_nics=[models.VMNicInputDetails(nic_id=nic.nic_id, ip_configs=[config], selection_type="SelectedByUser")],
            provider_specific_details=tags,
        )
    )  # fmt: skip
    details = items.begin_update(*at, change).result().properties.provider_specific_details
    assert (details.recovery_azure_vm_name, details.recovery_azure_vm_size) == ("renamed", "Standard_D4s_v3")
    items.begin_test_failover(*at, drill_input(cloud)).result()
    drilled = compute(cloud.sim).as_machine(compute(cloud.sim).machine("renamed-test"))
    assert drilled.addresses == ("10.9.0.77",), "the address of a failover, as it is free in the test network"
    items.begin_test_failover_cleanup(
        *at, models.TestFailoverCleanupInput(properties=models.TestFailoverCleanupInputProperties())
    ).result()
    items.begin_unplanned_failover(*at, failover_input()).result()
    made = compute(cloud.sim).as_machine(compute(cloud.sim).machine("renamed"))
    assert (made.size, made.addresses, made.tags) == ("Standard_D4s_v3", ("10.9.0.77",), {"run": "r1"})


def test_a_forced_removal_works_while_something_is_under_way(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    cloud.sim.pace.polls = 3
    items.begin_unplanned_failover(*at, failover_input(), polling=False)
    items.begin_purge(*at).result()
    cloud.sim.settle()
    assert list(items.list(GROUP, VAULT)) == [] and cloud.vm_names() == []


def test_what_was_protected_before_is_found_as_it_is(cloud: Cloud, classic: Classic) -> None:
    target = Target(cloud.group_id, cloud.network_id, "default", vm_name="old-web", log_storage={"": cloud.storage_id})
    protected(cloud.sr, classic.vault, classic.server, cloud.machine(), target, name="web1")
    found = next(iter(cloud.site.replication_protected_items.list(GROUP, VAULT))).properties
    assert (found.protection_state, found.policy_friendly_name) == ("Protected", "24-hours")
    details = found.provider_specific_details
    assert (details.recovery_azure_vm_name, details.ip_address) == ("old-web", "10.0.0.11")
    assert len(list(cloud.site.recovery_points.list_by_replication_protected_items(*classic.at, "web1"))) == 1
