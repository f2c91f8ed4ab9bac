"""Begins to replicate a machine, with what it becomes in Azure. Which disks it has is known only to its agent."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery.calls import EnableProtection
from farshore_operator.engines.siterecovery.client import VaultClient, begin
from farshore_operator.engines.siterecovery.facts import Scenario


def enable_protection(client: VaultClient, call: EnableProtection) -> str:
    """Begin."""
    classic = call.appliance.scenario is Scenario.CLASSIC
    given = models.EnableProtectionInput(
        properties=models.EnableProtectionInputProperties(
            policy_id=call.policy_id,
            protectable_item_id=call.protectable.id if classic else "",
            provider_specific_details=_classic(call) if classic else _modern(call),
        )
    )
    return begin(
        f"enabling protection of {call.protectable.name}",
        client.site.replication_protected_items.begin_create,
        *client.at,
        call.appliance.name,
        call.appliance.container,
        call.item,
        given,
    )


def _classic(call: EnableProtection) -> models.InMageAzureV2EnableProtectionInput:
    target = call.target
    return models.InMageAzureV2EnableProtectionInput(
        process_server_id=call.process_server,
        # What PowerShell sends for a physical machine: no master target is needed towards Azure.
        master_target_id=call.process_server,
        run_as_account_id=call.account or None,
        disk_type=target.disk_type,
        log_storage_account_id=call.log_storage,
        target_azure_v2_resource_group_id=target.resource_group,
        target_azure_network_id=target.network or None,
        target_azure_subnet_id=target.subnet or None,  # the name of the subnet, in spite of the field's
        target_azure_vm_name=target.name or None,
        target_vm_size=target.size or None,
        target_availability_set_id=target.availability_set or None,
        target_availability_zone=target.zone or None,
        target_vm_tags=dict(target.tags) or None,
        enable_rdp_on_target_option="Never",
    )


def _modern(call: EnableProtection) -> models.InMageRcmEnableProtectionInput:
    target = call.target
    return models.InMageRcmEnableProtectionInput(
        fabric_discovery_machine_id=call.protectable.id,
        process_server_id=call.process_server,
        run_as_account_id=call.account or None,
        disks_default=models.InMageRcmDisksDefaultInput(
            disk_type=target.disk_type, log_storage_account_id=call.log_storage
        ),
        target_resource_group_id=target.resource_group,
        target_network_id=target.network or None,
        target_subnet_name=target.subnet or None,
        target_vm_name=target.name or None,
        target_vm_size=target.size or None,
        target_availability_set_id=target.availability_set or None,
        target_availability_zone=target.zone or None,
        target_vm_tags=[models.UserCreatedResourceTag(tag_name=key, tag_value=text) for key, text in target.tags]
        or None,
    )
