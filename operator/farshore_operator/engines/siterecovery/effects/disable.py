"""Stops to replicate a machine, and takes the Mobility service away where it can be reached."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery.calls import DisableProtection
from farshore_operator.engines.siterecovery.client import VaultClient, begin

BASE = "DisableProtectionProviderSpecificInput"


def disable_protection(client: VaultClient, call: DisableProtection) -> str:
    """Begin."""
    item = call.item
    given = models.DisableProtectionInput(
        properties=models.DisableProtectionInputProperties(
            replication_provider_input=models.DisableProtectionProviderSpecificInput(instance_type=BASE)
        )
    )
    operations = client.site.replication_protected_items
    doing = f"disabling protection of {item.friendly}"
    return begin(doing, operations.begin_delete, *client.at, item.fabric, item.container, item.name, given)
