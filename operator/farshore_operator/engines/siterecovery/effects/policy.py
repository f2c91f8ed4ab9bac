"""Makes a replication policy. The API counts in minutes, whatever portal and PowerShell show."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_engine.contract.assignment import Policy
from farshore_operator.engines.siterecovery.calls import CreatePolicy
from farshore_operator.engines.siterecovery.client import VaultClient, begin
from farshore_operator.engines.siterecovery.facts import Scenario
from farshore_operator.engines.siterecovery.naming import minutes

CRASH_MINUTES = 5
"""How often Site Recovery makes a crash-consistent point; it cannot be changed."""
THRESHOLD_MINUTES = 15
"""Only raises Site Recovery's own alert; ours is the policy's rpoThreshold."""


def create_policy(client: VaultClient, call: CreatePolicy) -> str:
    """Begin."""
    classic = call.appliance.scenario is Scenario.CLASSIC
    given = models.CreatePolicyInput(
        properties=models.CreatePolicyInputProperties(
            provider_specific_input=_classic(call.wished) if classic else _modern(call.wished)
        )
    )
    operations = client.site.replication_policies
    return begin(f"creating policy {call.policy}", operations.begin_create, *client.at, call.policy, given)


def _app(wished: Policy) -> int:
    return minutes(wished.app_consistent_interval) if wished.app_consistent_interval else 0


def _classic(wished: Policy) -> models.InMageAzureV2PolicyInput:
    return models.InMageAzureV2PolicyInput(
        recovery_point_threshold_in_minutes=THRESHOLD_MINUTES,
        recovery_point_history=minutes(wished.retention.keep_all),
        crash_consistent_frequency_in_minutes=CRASH_MINUTES,
        app_consistent_frequency_in_minutes=_app(wished),
        multi_vm_sync_status="Disable",
    )


def _modern(wished: Policy) -> models.InMageRcmPolicyCreationInput:
    return models.InMageRcmPolicyCreationInput(
        recovery_point_history_in_minutes=minutes(wished.retention.keep_all),
        crash_consistent_frequency_in_minutes=CRASH_MINUTES,
        app_consistent_frequency_in_minutes=_app(wished),
        enable_multi_vm_sync="false",
    )
