"""What Site Recovery refuses: registration, order of teardown, operations that a state does not allow, rights."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.recoveryservices import models as vault_models
from azure.mgmt.recoveryservicessiterecovery import SiteRecoveryManagementClient, models
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Classic, Cloud
from tests.azure.siterecovery_sim.inputs import DISABLE, drill_input, failover_input
from tests.azuresim.siterecovery import SetupRefused

UNMAP = models.RemoveProtectionContainerMappingInput(
    properties=models.RemoveProtectionContainerMappingInputProperties(
        provider_specific_input=models.ReplicationProviderContainerUnmappingInput()
    )
)


@pytest.mark.parametrize(
    ("more", "classic_vault"),
    [({"key_age": timedelta(days=6)}, True), ({"clock_skew": timedelta(minutes=6)}, True), ({}, False)],
    ids=["a key older than five days", "a clock six minutes off", "a vault of today"],
)
def test_unified_setup_stops_and_nothing_appears(cloud: Cloud, more: dict[str, Any], classic_vault: bool) -> None:
    vault = cloud.sr.vault(GROUP, VAULT, classic=classic_vault)
    with pytest.raises(SetupRefused):
        cloud.sr.unified_setup(vault, "cs1", **more)
    assert list(cloud.site.replication_fabrics.list(GROUP, VAULT)) == []


def test_teardown_goes_item_mapping_policy_server_vault(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    site, vaults = cloud.site, cloud.vaults.vaults
    steps: list[tuple[Callable[[], Any], str]] = [
        (lambda: site.replication_protected_items.begin_delete(*classic.at, "item-web1", DISABLE).result(), ""),
        (
            lambda: site.replication_protection_container_mappings.begin_delete(*classic.at, "goldmap", UNMAP).result(),
            "protected",
        ),
        (lambda: site.replication_policies.begin_delete(GROUP, VAULT, "gold").result(), "associated"),
        (
            lambda: site.replication_fabrics.begin_delete(GROUP, VAULT, classic.server.name).result(),
            "protected|associated",
        ),
    ]
    for step, why in steps[1:]:
        with pytest.raises(ResourceExistsError, match=why):
            step()
    with pytest.raises(HttpResponseError, match="cs1"):
        vaults.begin_delete(GROUP, VAULT).result()
    for step, _ in steps:
        step()
    vaults.begin_delete(GROUP, VAULT).result()
    with pytest.raises(ResourceNotFoundError):
        vaults.get(GROUP, VAULT)


def test_a_state_allows_what_its_list_says_and_nothing_else(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    with pytest.raises(
        ResourceExistsError, match="Allowed operations: UnplannedFailover, DisableProtection, TestFailover"
    ):
        items.begin_failover_commit(*at).result()
    items.begin_test_failover(*at, drill_input(cloud)).result()
    for refused in (
        lambda: items.begin_test_failover(*at, drill_input(cloud)).result(),
        lambda: items.begin_unplanned_failover(*at, failover_input()).result(),
        lambda: items.begin_delete(*at, DISABLE).result(),
    ):
        with pytest.raises(ResourceExistsError, match="Allowed operations: TestFailoverCleanup"):
            refused()
    with pytest.raises(HttpResponseError, match="CancelFailover"):
        items.begin_failover_cancel(*at).result()


def test_an_input_for_another_provider_is_refused(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    wrong = failover_input()
    wrong.properties.provider_specific_details = models.InMageRcmUnplannedFailoverInput(perform_shutdown="true")
    with pytest.raises(HttpResponseError, match="provider InMageAzureV2"):
        cloud.site.replication_protected_items.begin_unplanned_failover(*classic.at, "item-web1", wrong).result()
    with pytest.raises(ResourceNotFoundError, match="recovery point"):
        cloud.site.replication_protected_items.begin_unplanned_failover(
            *classic.at, "item-web1", failover_input(point="nowhere")
        ).result()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"recovery_point_history": 16 * 1440}, "150261"),
        ({"app_consistent_frequency_in_minutes": 30}, "150261"),
        ({"app_consistent_frequency_in_minutes": 240, "recovery_point_history": 120}, "150261"),
    ],
    ids=["sixteen days", "app points each half hour", "app points rarer than retention"],
)
def test_a_policy_beyond_the_limits_fails_at_the_end(classic: Classic, settings: dict[str, int], why: str) -> None:
    with pytest.raises(HttpResponseError, match=why):
        classic.policy(**settings)


def test_a_machine_is_found_once_and_by_an_ipv4_address(cloud: Cloud, classic: Classic) -> None:
    cloud.machine()
    classic.discover("web1", "10.0.0.11")
    with pytest.raises(ResourceExistsError, match=r"10\.0\.0\.11"):
        classic.discover("again", "10.0.0.11")
    for ip, system, why in (("fe80::1", "Linux", "IPv4"), ("10.0.0.12", "BeOS", "operating system")):
        with pytest.raises(HttpResponseError, match=why):
            classic.discover("web2", ip, system)


def test_the_vault_s_name_place_and_sku_are_checked(cloud: Cloud) -> None:
    vaults = cloud.vaults.vaults
    sku = vault_models.Sku(name="RS0", tier="Standard")
    given = vault_models.Vault(location="westeurope", sku=sku, properties=vault_models.VaultProperties())
    with pytest.raises(HttpResponseError, match="InvalidResourceName"):
        vaults.begin_create_or_update(GROUP, "1vault", given).result()
    with pytest.raises(HttpResponseError, match="sku"):
        vaults.begin_create_or_update(GROUP, "fine", vault_models.Vault(location="westeurope")).result()
    made = vaults.begin_create_or_update(GROUP, "fine", given).result()
    assert (made.location, made.properties.provisioning_state) == ("westeurope", "Succeeded")
    assert [one.name for one in vaults.list_by_subscription_id()] == ["fine"]
    given.location = "northeurope"
    with pytest.raises(ResourceExistsError, match="InvalidResourceLocation"):
        vaults.begin_create_or_update(GROUP, "fine", given).result()


def test_enabling_needs_rights_on_what_it_links_to(cloud: Cloud, classic: Classic) -> None:
    policy = classic.policy()
    classic.map(policy)
    cloud.machine()
    found = classic.discover("web1", "10.0.0.11")
    who = cloud.sim.principal("contributor", "pw")
    cloud.sim.grant(who, "Microsoft.RecoveryServices/*")
    given = cloud.sim.credential(who)
    credential = ClientSecretCredential(
        given.tenant_id, given.client_id, given.client_secret, authority=given.authority,
        disable_instance_discovery=True, connection_verify=str(cloud.sim.ca_bundle),
    )  # fmt: skip
    site = SiteRecoveryManagementClient(credential, cloud.sim.subscription, **cloud.sim.client_options())
    for right in ("Microsoft.Network/virtualNetworks/subnets/join/action", "Microsoft.Compute/virtualMachines/write",
                  "Microsoft.Storage/storageAccounts/listKeys/action"):  # fmt: skip
        with pytest.raises(HttpResponseError, match=f"LinkedAuthorizationFailed(.|\n)*{right}"):
            site.replication_protected_items.begin_create(
                *classic.at, "item", classic.enable_input(policy, found)
            ).result()
        cloud.sim.grant(who, right)
    site.replication_protected_items.begin_create(*classic.at, "item", classic.enable_input(policy, found)).result()


def test_a_physical_server_cannot_be_reprotected(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    reverse = models.ReverseReplicationInput(
        properties=models.ReverseReplicationInputProperties(
            failover_direction="RecoveryToPrimary",
            provider_specific_details=models.InMageReprotectInput(
                master_target_id="mt", process_server_id="ps", retention_drive="R", profile_id="p"
            ),
        )
    )
    with pytest.raises(ResourceExistsError, match="ReverseReplicate"):
        items.begin_reprotect(*at, reverse).result()
    items.begin_unplanned_failover(*at, failover_input()).result()
    assert items.begin_failover_commit(*at).result().properties.allowed_operations == [
        "ReverseReplicate",
        "DisableProtection",
    ]
    with pytest.raises(HttpResponseError, match="VMware virtual machine only"):
        items.begin_reprotect(*at, reverse).result()


def test_a_retired_classic_experience_can_be_read_switched_and_disabled_only(cloud: Cloud, classic: Classic) -> None:
    classic.protect(cloud.machine())
    classic.vault.retired = True
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    for refused in (
        lambda: items.begin_test_failover(*at, drill_input(cloud)).result(),
        lambda: items.begin_unplanned_failover(*at, failover_input()).result(),
        lambda: classic.discover("web2", "10.0.0.12"),
    ):
        with pytest.raises(HttpResponseError, match="retired"):
            refused()
    assert items.get(*at).properties.protection_state == "Protected"
    items.begin_delete(*at, DISABLE).result()


def test_a_machine_is_protected_again_after_it_came_home(cloud: Cloud, classic: Classic) -> None:
    """The tutorial's last step: "To do this, repeat the steps in this article"."""
    machine = cloud.machine()
    classic.protect(machine)
    items, at = cloud.site.replication_protected_items, (*classic.at, "item-web1")
    items.begin_unplanned_failover(*at, failover_input("Required")).result()
    items.begin_failover_commit(*at).result()
    items.begin_delete(*at, DISABLE).result()
    machine.powered_on = True
    found = next(iter(cloud.site.replication_protectable_items.list_by_replication_protection_containers(*classic.at)))
    assert (found.properties.protection_status, len(found.properties.custom_details.disk_details)) == ("Unprotected", 2)
    again = classic.enable_input(f"{classic.vault.sr_id}/replicationPolicies/gold", found, run_as_account_id=None)
    items.begin_create(*classic.at, "again", again).result()
    assert items.get(*classic.at, "again").properties.protection_state == "Protected"
