"""Fails a machine over, makes it anew from another point, and declares that final."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery.calls import ChangePoint, Commit, Failover
from farshore_operator.engines.siterecovery.client import VaultClient, begin
from farshore_operator.engines.siterecovery.effects.drill import TO_AZURE
from farshore_operator.engines.siterecovery.facts import Scenario


def failover(client: VaultClient, call: Failover) -> str:
    """Begin. A shutdown that does not work does not stop it."""
    item, point = call.item, call.point or None
    details: models.UnplannedFailoverProviderSpecificInput
    if item.scenario == Scenario.CLASSIC:
        details = models.InMageAzureV2UnplannedFailoverInput(recovery_point_id=point)
    else:
        shutdown = "true" if call.shutdown else "false"
        details = models.InMageRcmUnplannedFailoverInput(recovery_point_id=point, perform_shutdown=shutdown)
    given = models.UnplannedFailoverInput(
        properties=models.UnplannedFailoverInputProperties(
            failover_direction=TO_AZURE,
            source_site_operations="Required" if call.shutdown else "NotRequired",
            provider_specific_details=details,
        )
    )
    operations = client.site.replication_protected_items
    doing = f"beginning the failover of {item.friendly}"
    return begin(doing, operations.begin_unplanned_failover, *client.at, item.fabric, item.container, item.name, given)


def change_point(client: VaultClient, call: ChangePoint) -> str:
    """Begin."""
    item = call.item
    details: models.ApplyRecoveryPointProviderSpecificInput
    if item.scenario == Scenario.CLASSIC:
        details = models.InMageAzureV2ApplyRecoveryPointInput()
    else:
        details = models.InMageRcmApplyRecoveryPointInput(recovery_point_id=call.point)
    given = models.ApplyRecoveryPointInput(
        properties=models.ApplyRecoveryPointInputProperties(
            recovery_point_id=call.point, provider_specific_details=details
        )
    )
    operations = client.site.replication_protected_items
    doing = f"changing the recovery point of {item.friendly}"
    return begin(
        doing, operations.begin_apply_recovery_point, *client.at, item.fabric, item.container, item.name, given
    )


def commit(client: VaultClient, call: Commit) -> str:
    """Begin."""
    item = call.item
    operations = client.site.replication_protected_items
    doing = f"committing the failover of {item.friendly}"
    return begin(doing, operations.begin_failover_commit, *client.at, item.fabric, item.container, item.name)
