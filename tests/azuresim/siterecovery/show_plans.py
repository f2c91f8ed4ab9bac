"""Recovery plans in the words of the SDK's model."""

from __future__ import annotations

from typing import Any

from tests.azuresim.siterecovery.show_monitoring import text
from tests.azuresim.siterecovery.state import AZURE, HYPERV, Drill, Item, Phase, Plan, Vault, fabric_id


def plan_id(vault: Vault, plan: Plan) -> str:
    return f"{vault.sr_id}/replicationRecoveryPlans/{plan.name}"


def _allowed(items: list[Item]) -> list[str]:
    """[spec examples ReplicationRecoveryPlans_Get, _UnplannedFailover, _TestFailover]: less exact than the
    machines' own; PlannedFailover is of Hyper-V only [inf]."""
    if any(one.drill is Drill.WAITING for one in items):
        return ["TestFailoverCleanup"]
    found = ["PlannedFailover"] if any(one.provider == HYPERV for one in items) else []
    pending = any(one.phase in (Phase.COMMIT_PENDING, Phase.PLANNED_COMMIT_PENDING) for one in items)
    return [*found, "UnplannedFailover", "TestFailover", *(["Commit"] if pending else [])]


def show(vault: Vault, plan: Plan, items: list[Item]) -> dict[str, Any]:
    """A RecoveryPlan of the SDK [spec examples ReplicationRecoveryPlans_Create, _TestFailover]."""
    primary = next(
        (one for one in vault.fabrics.values() if fabric_id(vault, one).lower() == plan.primary_id.lower()), None
    )
    properties: dict[str, Any] = {
        "friendlyName": plan.name, "primaryFabricId": plan.primary_id,
        "primaryFabricFriendlyName": primary.friendly if primary else "",
        "recoveryFabricId": AZURE, "recoveryFabricFriendlyName": AZURE, "failoverDeploymentModel": plan.model,
        "replicationProviders": sorted({one.provider for one in items}), "groups": plan.groups,
        "allowedOperations": _allowed(items),
    }  # fmt: skip
    if plan.last_test is not None:
        properties["lastTestFailoverTime"] = text(plan.last_test)
    if plan.last_planned is not None:
        properties["lastPlannedFailoverTime"] = text(plan.last_planned)
    if plan.last_unplanned is not None:
        properties["lastUnplannedFailoverTime"] = text(plan.last_unplanned)
    if plan.job is not None:
        properties |= {
            "currentScenario": {
                "scenarioName": plan.job.scenario, "jobId": f"{vault.sr_id}/replicationJobs/{plan.job.id}",
                "startTime": text(plan.job.began),
            },
            "currentScenarioStatus": plan.job_status, "currentScenarioStatusDescription": plan.job_status,
        }  # fmt: skip
    kind = "Microsoft.RecoveryServices/vaults/replicationRecoveryPlans"
    return {"id": plan_id(vault, plan), "name": plan.name, "type": kind, "properties": properties}
