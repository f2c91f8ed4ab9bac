"""An operation that fails at its end, or whose answer is lost, leaves what the same call can be repeated from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Classic, Cloud
from tests.azure.siterecovery_sim.inputs import DISABLE, drill_input, failover_input

COMMENTS = models.TestFailoverCleanupInput(properties=models.TestFailoverCleanupInputProperties(comments="done"))


def steps(cloud: Cloud, classic: Classic) -> list[tuple[str, str, Callable[[], Any]]]:
    """The tutorial's calls in order: method and path as a fault matches them, and the call."""
    machine, site = cloud.machine(), cloud.site
    items, at = site.replication_protected_items, (*classic.at, "item-web1")
    known: dict[str, Any] = {}

    def discover() -> None:
        known["found"] = classic.discover(machine.name, machine.ip)

    def enable() -> None:
        policy = f"{classic.vault.sr_id}/replicationPolicies/gold"
        items.begin_create(*at, classic.enable_input(policy, known["found"])).result()
        items.get(*at)

    def change() -> None:
        point = next(iter(site.recovery_points.list_by_replication_protected_items(*at)))
        given = models.ApplyRecoveryPointInput(
            properties=models.ApplyRecoveryPointInputProperties(
                recovery_point_id=point.id, provider_specific_details=models.InMageAzureV2ApplyRecoveryPointInput()
            )
        )
        items.begin_apply_recovery_point(*at, given).result()

    return [
        ("PUT", "*/replicationPolicies/*", classic.policy),
        ("PUT", "*ContainerMappings/*", lambda: classic.map(f"{classic.vault.sr_id}/replicationPolicies/gold")),
        ("POST", "*/discoverProtectableItem", discover),
        ("PUT", "*/replicationProtectedItems/*", enable),
        ("POST", "*/testFailover", lambda: items.begin_test_failover(*at, drill_input(cloud)).result()),
        ("POST", "*/testFailoverCleanup", lambda: items.begin_test_failover_cleanup(*at, COMMENTS).result()),
        ("POST", "*/unplannedFailover", lambda: items.begin_unplanned_failover(*at, failover_input()).result()),
        ("POST", "*/applyRecoveryPoint", change),
        ("POST", "*/failoverCommit", lambda: items.begin_failover_commit(*at).result()),
        ("POST", "*/remove", lambda: items.begin_delete(*at, DISABLE).result()),
    ]  # fmt: skip


def test_each_step_that_fails_at_its_end_succeeds_when_it_is_repeated(cloud: Cloud, classic: Classic) -> None:
    for method, path, call in steps(cloud, classic):
        cloud.sim.faults.fail_at_end(method, path, "499", "An internal error occurred.")
        with pytest.raises(HttpResponseError, match="499"):
            call()
        if path == "*/replicationProtectedItems/*":
            item = cloud.site.replication_protected_items.get(*classic.at, "item-web1").properties
            assert item.protection_state == "EnablingFailed"
            cloud.site.replication_protected_items.begin_delete(*classic.at, "item-web1", DISABLE).result()
        call()
    assert cloud.vm_names() == ["web1-dr"]
    failed = list(cloud.site.replication_jobs.list(GROUP, VAULT, filter="JobStatus eq 'Failed'"))
    assert len(failed) == 10
    assert {one.properties.errors[0].service_error_details.code for one in failed} == {"499"}


def test_each_step_goes_through_while_azure_throttles_and_stumbles(cloud: Cloud, classic: Classic) -> None:
    for method, path, call in steps(cloud, classic):
        cloud.sim.faults.throttle(method, path, retry_after=0)
        cloud.sim.faults.server_error("GET", "*/replicationOperationStatus/*", status=503)
        call()
        cloud.sim.faults.clear()
    assert cloud.vm_names() == ["web1-dr"]
    assert {one.properties.state for one in cloud.site.replication_jobs.list(GROUP, VAULT)} == {"Succeeded"}
