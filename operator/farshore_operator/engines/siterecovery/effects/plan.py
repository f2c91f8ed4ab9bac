"""Makes, changes and deletes recovery plans. The service itself adds the groups that switch off and fail over."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery import planshape
from farshore_operator.engines.siterecovery.calls import CreatePlan, DeletePlan, UpdatePlan
from farshore_operator.engines.siterecovery.client import VaultClient, begin
from farshore_operator.engines.siterecovery.facts import PlanGroup

AZURE = "Microsoft Azure"


def create_plan(client: VaultClient, call: CreatePlan) -> str:
    """Begin. Providers of physical machines have no input of their own; only that of Azure to Azure has."""
    given = models.CreateRecoveryPlanInput(
        properties=models.CreateRecoveryPlanInputProperties(
            primary_fabric_id=call.fabric,
            recovery_fabric_id=AZURE,
            failover_deployment_model="ResourceManager",
            groups=[planshape.model(one) for one in call.groups],
        )
    )
    operations = client.site.replication_recovery_plans
    return begin(f"creating recovery plan {call.plan}", operations.begin_create, *client.at, call.plan, given)


def update_plan(client: VaultClient, call: UpdatePlan) -> str:
    """Begin. All groups are named, as the specification's example does, so that actions of the fixed ones go."""
    groups = (*(PlanGroup(kind) for kind in planshape.FIXED), *call.groups)
    given = models.UpdateRecoveryPlanInput(
        properties=models.UpdateRecoveryPlanInputProperties(groups=[planshape.model(one) for one in groups])
    )
    operations = client.site.replication_recovery_plans
    return begin(f"changing recovery plan {call.plan}", operations.begin_update, *client.at, call.plan, given)


def delete_plan(client: VaultClient, call: DeletePlan) -> str:
    """Begin."""
    operations = client.site.replication_recovery_plans
    return begin(f"deleting recovery plan {call.plan}", operations.begin_delete, *client.at, call.plan)
