"""Tells a configuration server of a physical machine by its IP address: to Site Recovery, so is a Hub's machine."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery.calls import DiscoverMachine
from farshore_operator.engines.siterecovery.client import VaultClient, begin


def discover_machine(client: VaultClient, call: DiscoverMachine) -> str:
    """Begin."""
    given = models.DiscoverProtectableItemRequest(
        properties=models.DiscoverProtectableItemRequestProperties(
            friendly_name=call.machine, ip_address=call.address, os_type="Windows" if call.windows else "Linux"
        )
    )
    return begin(
        f"discovering {call.machine} at {call.address}",
        client.site.replication_protection_containers.begin_discover_protectable_item,
        *client.at,
        call.appliance.name,
        call.appliance.container,
        given,
    )
