"""Makes a test machine from a point in a network, and removes it again."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery.calls import CleanUpTest, TestFailover
from farshore_operator.engines.siterecovery.client import VaultClient, begin
from farshore_operator.engines.siterecovery.facts import Scenario

TO_AZURE = "PrimaryToRecovery"


def test_failover(client: VaultClient, call: TestFailover) -> str:
    """Begin. Without a network the test machine gets no connection."""
    item, point = call.item, call.point or None
    classic = item.scenario == Scenario.CLASSIC
    details = models.InMageAzureV2TestFailoverInput if classic else models.InMageRcmTestFailoverInput
    given = models.TestFailoverInput(
        properties=models.TestFailoverInputProperties(
            failover_direction=TO_AZURE,
            network_type="VmNetworkAsInput" if call.network else "NoNetworkAttachAsInput",
            network_id=call.network or None,
            provider_specific_details=details(recovery_point_id=point),
        )
    )
    operations = client.site.replication_protected_items
    doing = f"beginning a test failover of {item.friendly}"
    return begin(doing, operations.begin_test_failover, *client.at, item.fabric, item.container, item.name, given)


def clean_up_test(client: VaultClient, call: CleanUpTest) -> str:
    """Begin."""
    item = call.item
    given = models.TestFailoverCleanupInput(
        properties=models.TestFailoverCleanupInputProperties(comments=call.notes[:1024])
    )
    operations = client.site.replication_protected_items
    doing = f"cleaning the test failover of {item.friendly} up"
    begun = operations.begin_test_failover_cleanup
    return begin(doing, begun, *client.at, item.fabric, item.container, item.name, given)
