"""Moves a machine from the classic experience to an appliance: Site Recovery makes the new item in the other vault."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery.calls import SwitchProvider
from farshore_operator.engines.siterecovery.client import VaultClient, begin
from farshore_operator.engines.siterecovery.facts import Scenario


def switch_provider(client: VaultClient, call: SwitchProvider) -> str:
    """Begin, at the vault that the machine moves from."""
    item = call.item
    given = models.SwitchProviderInput(
        properties=models.SwitchProviderInputProperties(
            target_instance_type=Scenario.MODERN.value,
            provider_specific_details=models.InMageAzureV2SwitchProviderInput(
                target_vault_id=call.vault,
                target_fabric_id=f"{call.vault}/replicationFabrics/{call.appliance.name}",
                target_appliance_id=call.appliance.identity,
            ),
        )
    )
    operations = client.site.replication_protected_items
    doing = f"moving {item.friendly} to appliance {call.appliance.friendly}"
    return begin(doing, operations.begin_switch_provider, *client.at, item.fabric, item.container, item.name, given)
