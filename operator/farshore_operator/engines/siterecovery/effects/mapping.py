"""Associates a policy with the container of a configuration server or appliance."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.calls import MapContainer
from farshore_operator.engines.siterecovery.client import VaultClient, begin
from farshore_operator.engines.siterecovery.facts import Scenario

AZURE = "Microsoft Azure"
BASE = "ReplicationProviderSpecificContainerMappingInput"


def map_container(client: VaultClient, call: MapContainer) -> str:
    """Begin."""
    # The providers of physical machines have no input of their own; the base one wants a word all the same.
    instance = BASE if call.appliance.scenario is Scenario.CLASSIC else call.appliance.scenario.value
    given = models.CreateProtectionContainerMappingInput(
        properties=models.CreateProtectionContainerMappingInputProperties(
            policy_id=call.policy_id,
            target_protection_container_id=AZURE,
            provider_specific_input=models.ReplicationProviderSpecificContainerMappingInput(instance_type=instance),
        )
    )
    return begin(
        f"associating policy {call.policy}",
        client.site.replication_protection_container_mappings.begin_create,
        *client.at,
        call.appliance.name,
        call.appliance.container,
        naming.mapping(call.policy),
        given,
    )
