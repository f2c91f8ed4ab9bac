"""Bodies of calls that many tests make."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery_sim.conftest import Cloud

DISABLE = models.DisableProtectionInput(
    properties=models.DisableProtectionInputProperties(
        replication_provider_input=models.DisableProtectionProviderSpecificInput(
            instance_type="DisableProtectionProviderSpecificInput"
        )
    )
)


def drill_input(cloud: Cloud, point: str | None = None) -> models.TestFailoverInput:
    return models.TestFailoverInput(
        properties=models.TestFailoverInputProperties(
            failover_direction="PrimaryToRecovery", network_type="VmNetworkAsInput", network_id=cloud.network_id,
            provider_specific_details=models.InMageAzureV2TestFailoverInput(recovery_point_id=point),
        )
    )  # fmt: skip


def failover_input(shutdown: str = "NotRequired", point: str | None = None) -> models.UnplannedFailoverInput:
    return models.UnplannedFailoverInput(
        properties=models.UnplannedFailoverInputProperties(
            failover_direction="PrimaryToRecovery", source_site_operations=shutdown,
            provider_specific_details=models.InMageAzureV2UnplannedFailoverInput(recovery_point_id=point),
        )
    )  # fmt: skip
