"""The modernized experience: an appliance discovers, InMageRcm replicates; and the way there from the classic one."""

from __future__ import annotations

import json

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest
from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery_sim.conftest import GROUP, Classic, Cloud
from tests.azure.siterecovery_sim.modern import VAULT, modern


def test_a_physical_server_of_an_appliance_is_protected_drilled_and_failed_over(cloud: Cloud) -> None:
    scene, machine = modern(cloud), cloud.machine()
    cloud.sr.sync_looks = 3
    item = scene.protect(machine)
    site, at = cloud.site, (*scene.at, "item-web1")
    progress = [item.properties.provider_specific_details.initial_replication_progress_percentage]
    while item.properties.protection_state != "Protected":
        item = site.replication_protected_items.get(*at)
        progress.append(item.properties.provider_specific_details.initial_replication_progress_percentage)
    assert progress == [66, None], "the poller of the enabling has read it once before"
    site_machines = f"{scene.appliance.site_id}/machines?api-version=2023-06-06"
    listed = json.loads(site._client.send_request(HttpRequest("GET", cloud.sim.endpoint + site_machines)).body())[
        "value"
    ]
    assert [one["properties"]["networkAdapters"][0]["ipAddressList"] for one in listed] == [["10.0.0.11"]]

    assert (item.properties.failover_health, [one.error_code for one in item.properties.health_errors]) == (
        "Warning",
        ["161011"],
    )
    assert item.properties.replication_health == "Normal", "a drill that is missing is no trouble of replication"
    assert len(item.properties.provider_specific_details.protected_disks) == 2
    shown = next(iter(site.replication_protected_items.list(GROUP, VAULT))).properties.provider_specific_details
    assert shown.protected_disks == [] and shown.vm_nics == [], "a list leaves them out"
    fabric = next(iter(site.replication_fabrics.list(GROUP, VAULT)))
    assert fabric.properties.custom_details.process_servers == []
    whole = site.replication_fabrics.get(GROUP, VAULT, fabric.name).properties.custom_details
    assert whole.process_servers[0].health == "Normal"

    old = [disk.path.read_bytes() for disk in machine.disks]
    machine.disks[0].path.write_bytes(b"later" + old[0][5:])
    cloud.sr.advance(minutes=5)
    points = list(site.recovery_points.list_by_replication_protected_items(*at))
    newest = site.replication_protected_items.get(*at).properties.provider_specific_details.last_recovery_point_id
    assert newest == points[-1].id
    test = models.TestFailoverInput(
        properties=models.TestFailoverInputProperties(
            failover_direction="PrimaryToRecovery", network_type="VmNetworkAsInput", network_id=cloud.network_id,
            provider_specific_details=models.InMageRcmTestFailoverInput(recovery_point_id=points[0].id),
        )
    )  # fmt: skip
    site.replication_protected_items.begin_test_failover(*at, test).result()
    assert [cloud.vm_bytes("web1-dr-test", number, len(one)) for number, one in enumerate(old)] == old
    comments = models.TestFailoverCleanupInput(properties=models.TestFailoverCleanupInputProperties(comments="ok"))
    site.replication_protected_items.begin_test_failover_cleanup(*at, comments).result()

    fail = models.UnplannedFailoverInput(
        properties=models.UnplannedFailoverInputProperties(
            failover_direction="PrimaryToRecovery", source_site_operations="NotRequired",
            provider_specific_details=models.InMageRcmUnplannedFailoverInput(perform_shutdown="true"),
        )
    )  # fmt: skip
    site.replication_protected_items.begin_unplanned_failover(*at, fail).result()
    assert cloud.vm_bytes("web1-dr", 0, 5) == b"later" and not machine.powered_on
    site.replication_protected_items.begin_failover_commit(*at).result()
    with pytest.raises(HttpResponseError, match="physical server"):
        reverse = models.ReverseReplicationInput(
            properties=models.ReverseReplicationInputProperties(
                failover_direction="RecoveryToPrimary",
                provider_specific_details=models.InMageRcmReprotectInput(
                    reprotect_agent_id="a", datastore_name="d", log_storage_account_id=cloud.storage_id
                ),
            )
        )
        site.replication_protected_items.begin_reprotect(*at, reverse).result()


def test_a_machine_of_a_configuration_server_moves_to_an_appliance_and_leaves_its_points(
    cloud: Cloud, classic: Classic
) -> None:
    scene, machine = modern(cloud), cloud.machine()
    classic.protect(machine)
    cloud.sr.advance(minutes=10)
    items = cloud.site.replication_protected_items
    given = models.SwitchProviderInput(
        properties=models.SwitchProviderInputProperties(
            target_instance_type="InMageRcm",
            provider_specific_details=models.InMageAzureV2SwitchProviderInput(
                target_vault_id=scene.vault.id, target_appliance_id=scene.appliance.dra,
                target_fabric_id=f"{scene.vault.id}/replicationFabrics/{scene.appliance.name}",
            ),
        )
    )  # fmt: skip
    machine.agent_version = "9.45.1.1"
    with pytest.raises(HttpResponseError, match=r"older than 9\.50"):
        items.begin_switch_provider(*classic.at, "item-web1", given).result()
    machine.agent_version = "9.63.1.1"
    items.begin_switch_provider(*classic.at, "item-web1", given).result()
    moved = next(iter(cloud.site.replication_protected_items.list(GROUP, VAULT)))
    assert moved.properties.provider_specific_details.instance_type == "InMageRcm"
    assert moved.properties.protection_state == "Protected"
    assert len(list(cloud.site.recovery_points.list_by_replication_protected_items(*scene.at, "item-web1"))) == 1

    left = items.get(*classic.at, "item-web1").properties
    assert left.allowed_operations == ["UnplannedFailover", "DisableProtection"]
    assert left.provider_specific_details.switch_provider_details.target_resource_id == moved.id
    cloud.sr.advance(minutes=30)
    old_points = cloud.site.recovery_points.list_by_replication_protected_items(*classic.at, "item-web1")
    assert len(list(old_points)) == 3, "the classic item makes no points any more"
    with pytest.raises(HttpResponseError, match="switched before"):
        items.begin_switch_provider(*classic.at, "item-web1", given).result()
    cloud.sr.advance(hours=25)
    assert list(items.list_by_replication_protection_containers(*classic.at)) == [], "gone with its last point"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"disks_default": None}, "either disksToInclude or disksDefault"),
        ({"target_vm_name": "-bad-"}, "no legal name"),
        ({"process_server_id": "nobody"}, "no process server"),
        ({"target_network_id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/x"},
        "does not exist"),
        ({"target_subnet_name": "nowhere"}, "no subnet"),
        ({"run_as_account_id": "nobody"}, "no run-as account"),
        ({"target_availability_zone": "1", "target_availability_set_id": "x"}, "not both"),
    ],
    ids=["no disks", "an illegal name", "an unknown process server", "a network that is not there", "an unknown subnet",
    "an unknown account",
    "set and zone"],
)  # fmt: skip
def test_enabling_refuses(cloud: Cloud, change: dict[str, object], message: str) -> None:
    scene, machine = modern(cloud), cloud.machine()
    discovered = cloud.sr.add_to_appliance(scene.appliance, machine)
    given = scene.enable_input(scene.policy(), discovered, **change)
    with pytest.raises(HttpResponseError, match=message):
        cloud.site.replication_protected_items.begin_create(*scene.at, "item", given).result()
    assert list(cloud.site.replication_protected_items.list(GROUP, VAULT)) == []


def test_a_vault_of_today_takes_no_configuration_server_and_no_classic_policy(cloud: Cloud) -> None:
    scene = modern(cloud)
    classic_policy = models.CreatePolicyInput(
        properties=models.CreatePolicyInputProperties(
            provider_specific_input=models.InMageAzureV2PolicyInput(
                multi_vm_sync_status="Disable", recovery_point_history=60
            )
        )
    )
    with pytest.raises(HttpResponseError, match="modernized experience only"):
        cloud.site.replication_policies.begin_create(GROUP, VAULT, "old", classic_policy).result()
    with pytest.raises(HttpResponseError, match="multiVmSyncStatus"):
        wrong = {"properties": {"providerSpecificInput": {"instanceType": "InMageAzureV2", "recoveryPointHistory": 60}}}
        cloud.site.replication_policies.begin_create(GROUP, VAULT, "old", wrong).result()
    assert scene.vault.policies == {}
