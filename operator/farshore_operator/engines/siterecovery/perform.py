"""Carries out what was decided: the one place that knows which file makes which call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farshore_operator.engines.siterecovery import calls
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.effects import (
    disable,
    discover,
    drill,
    enable,
    failover,
    mapping,
    plan,
    policy,
    refresh,
    restart,
    switch,
    vault,
)

EFFECTS: dict[type[calls.Call], Callable[[VaultClient, Any], str]] = {
    calls.CreateVault: vault.create_vault,
    calls.RefreshServer: refresh.refresh_server,
    calls.CreatePolicy: policy.create_policy,
    calls.MapContainer: mapping.map_container,
    calls.DiscoverMachine: discover.discover_machine,
    calls.EnableProtection: enable.enable_protection,
    calls.RestartJob: restart.restart_job,
    calls.DisableProtection: disable.disable_protection,
    calls.TestFailover: drill.test_failover,
    calls.CleanUpTest: drill.clean_up_test,
    calls.Failover: failover.failover,
    calls.ChangePoint: failover.change_point,
    calls.Commit: failover.commit,
    calls.SwitchProvider: switch.switch_provider,
    calls.CreatePlan: plan.create_plan,
    calls.UpdatePlan: plan.update_plan,
    calls.DeletePlan: plan.delete_plan,
}


def perform(client: VaultClient, call: calls.Call) -> str:
    """Begin a call and return the name of its job, empty if it has none.

    Raises:
        Fault: Azure refuses, or does not answer; then it may have begun all the same.
    """
    return EFFECTS[type(call)](client, call)
