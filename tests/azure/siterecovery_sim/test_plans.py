"""Recovery plans: what the server adds, and machines that go together."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Classic, Cloud
from tests.azure.siterecovery_sim.inputs import failover_input


def protect_two(cloud: Cloud, classic: Classic) -> list[Any]:
    policy = classic.policy()
    classic.map(policy)
    items = cloud.site.replication_protected_items
    for name, ip in (("db1", "10.0.0.21"), ("web1", "10.0.0.22")):
        found = classic.discover(name, cloud.machine(name, ip, 1).ip)
        items.begin_create(*classic.at, f"item-{name}", classic.enable_input(policy, found)).result()
    return [items.get(*classic.at, f"item-{name}") for name in ("db1", "web1")]


def plan(classic: Classic, *groups: list[Any], recovery: str = "Microsoft Azure") -> models.CreateRecoveryPlanInput:
    made = [
        models.RecoveryPlanGroup(
            group_type="Boot",
            replication_protected_items=[
                models.RecoveryPlanProtectedItem(id=one.id, virtual_machine_id=one.name) for one in group
            ],
        )
        for group in groups
    ]
    return models.CreateRecoveryPlanInput(
        properties=models.CreateRecoveryPlanInputProperties(
            primary_fabric_id=f"{classic.vault.id}/replicationFabrics/{classic.server.name}",
            recovery_fabric_id=recovery,
            failover_deployment_model="ResourceManager", groups=made,
        )
    )  # fmt: skip


DETAILS = [models.RecoveryPlanInMageAzureV2FailoverInput(recovery_point_type="LatestProcessed")]


def test_a_plan_drills_fails_over_and_commits_all_its_machines(cloud: Cloud, classic: Classic) -> None:
    db, web = protect_two(cloud, classic)
    plans = cloud.site.replication_recovery_plans
    made = plans.begin_create(GROUP, VAULT, "shop", plan(classic, [db], [web])).result()
    assert [one.group_type for one in made.properties.groups] == ["Shutdown", "Failover", "Boot", "Boot"]
    assert made.properties.allowed_operations == ["UnplannedFailover", "TestFailover"]

    test = models.RecoveryPlanTestFailoverInput(
        properties=models.RecoveryPlanTestFailoverInputProperties(
            failover_direction="PrimaryToRecovery", network_type="VmNetworkAsInput", network_id=cloud.network_id,
            provider_specific_details=DETAILS,
        )
    )  # fmt: skip
    drilled = plans.begin_test_failover(GROUP, VAULT, "shop", test).result().properties
    assert (drilled.allowed_operations, drilled.current_scenario_status) == (["TestFailoverCleanup"], "Suspended")
    assert sorted(cloud.vm_names()) == ["db1-dr-test", "web1-dr-test"]
    cleanup = models.RecoveryPlanTestFailoverCleanupInput(
        properties=models.RecoveryPlanTestFailoverCleanupInputProperties(comments="went well")
    )
    plans.begin_test_failover_cleanup(GROUP, VAULT, "shop", cleanup).result()
    assert cloud.vm_names() == []

    fail = models.RecoveryPlanUnplannedFailoverInput(
        properties=models.RecoveryPlanUnplannedFailoverInputProperties(
            failover_direction="PrimaryToRecovery", source_site_operations="Required", provider_specific_details=DETAILS
        )
    )
    assert "Commit" in plans.begin_unplanned_failover(GROUP, VAULT, "shop", fail).result().properties.allowed_operations
    assert sorted(cloud.vm_names()) == ["db1-dr", "web1-dr"]
    plans.begin_failover_commit(GROUP, VAULT, "shop").result()
    states = [one.properties.protection_state for one in cloud.site.replication_protected_items.list(GROUP, VAULT)]
    assert states == ["UnplannedFailoverCommitted"] * 2
    with pytest.raises(HttpResponseError, match="cannot be reprotected"):
        plans.begin_reprotect(GROUP, VAULT, "shop").result()
    plans.begin_delete(GROUP, VAULT, "shop").result()
    with pytest.raises(ResourceNotFoundError):
        plans.get(GROUP, VAULT, "shop")


def test_a_plan_is_checked(cloud: Cloud, classic: Classic) -> None:
    db, web = protect_two(cloud, classic)
    plans = cloud.site.replication_recovery_plans
    for given, why in (
        (plan(classic, []), "needs a machine"),
        (plan(classic, [db], [db]), "twice"),
        (plan(classic, [db], recovery="Somewhere"), "Microsoft Azure"),
        (plan(classic, *([db], [web], *([[]] * 6))), "at most 7 groups"),
    ):
        with pytest.raises(HttpResponseError, match=why):
            plans.begin_create(GROUP, VAULT, "shop", given).result()
    assert list(plans.list(GROUP, VAULT)) == []


def test_a_machine_of_a_replication_group_fails_over_with_its_plan_only(cloud: Cloud, classic: Classic) -> None:
    policy = classic.policy(multi_vm_sync_status="Enable")
    classic.map(policy)
    found = classic.discover("web1", cloud.machine().ip)
    items = cloud.site.replication_protected_items
    given = classic.enable_input(policy, found, multi_vm_group_name="shop")
    items.begin_create(*classic.at, "item-web1", given).result()
    with pytest.raises(HttpResponseError, match="replication group 'shop'"):
        items.begin_unplanned_failover(*classic.at, "item-web1", failover_input()).result()
