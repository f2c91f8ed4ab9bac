"""The tutorial with a configuration server, from protection to the end, bytes compared."""

from __future__ import annotations

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Classic, Cloud


def test_a_machine_is_protected_drilled_failed_over_and_disabled_with_the_bytes_of_its_points(
    cloud: Cloud, classic: Classic
) -> None:
    machine, site = cloud.machine(), cloud.site
    items, at = site.replication_protected_items, (*classic.at, "item-web1")
    item = classic.protect(machine)
    assert (item.properties.protection_state, item.properties.active_location) == ("Protected", "Primary")
    assert item.properties.allowed_operations[:3] == ["UnplannedFailover", "DisableProtection", "TestFailover"]

    old = [disk.path.read_bytes() for disk in machine.disks]
    cloud.sr.advance(minutes=5)
    for disk in machine.disks:
        disk.path.write_bytes(b"changed since" + disk.path.read_bytes()[13:])
    new = [disk.path.read_bytes() for disk in machine.disks]
    cloud.sr.advance(minutes=60)
    points = sorted(
        site.recovery_points.list_by_replication_protected_items(*at),
        key=lambda one: one.properties.recovery_point_time,
    )
    assert {one.properties.recovery_point_type for one in points} == {"CrashConsistent", "ApplicationConsistent"}

    test_network = cloud.network_id.replace("/vnet", "/testvnet")
    test = models.TestFailoverInput(
        properties=models.TestFailoverInputProperties(
            failover_direction="PrimaryToRecovery", network_type="VmNetworkAsInput", network_id=test_network,
            provider_specific_details=models.InMageAzureV2TestFailoverInput(recovery_point_id=points[0].id),
        )
    )  # fmt: skip
    drilled = items.begin_test_failover(*at, test).result()
    assert drilled.properties.test_failover_state == "WaitingForCompletion"
    assert drilled.properties.allowed_operations == ["TestFailoverCleanup"]
    assert [cloud.vm_bytes("web1-dr-test", number, len(one)) for number, one in enumerate(old)] == old
    comments = models.TestFailoverCleanupInput(properties=models.TestFailoverCleanupInputProperties(comments="fine"))
    items.begin_test_failover_cleanup(*at, comments).result()
    assert cloud.vm_names() == []

    fail = models.UnplannedFailoverInput(
        properties=models.UnplannedFailoverInputProperties(
            failover_direction="PrimaryToRecovery", source_site_operations="Required",
            provider_specific_details=models.InMageAzureV2UnplannedFailoverInput(),
        )
    )  # fmt: skip
    failed_over = items.begin_unplanned_failover(*at, fail).result()
    assert failed_over.properties.allowed_operations == [
        "CompleteMigration",
        "Commit",
        "DisableProtection",
        "ChangePit",
    ]
    assert not machine.powered_on
    assert [cloud.vm_bytes("web1-dr", number, len(one)) for number, one in enumerate(new)] == new

    change = models.ApplyRecoveryPointInput(
        properties=models.ApplyRecoveryPointInputProperties(
            recovery_point_id=points[0].id, provider_specific_details=models.InMageAzureV2ApplyRecoveryPointInput()
        )
    )
    items.begin_apply_recovery_point(*at, change).result()
    assert cloud.vm_names() == ["web1-dr"]
    assert [cloud.vm_bytes("web1-dr", number, len(one)) for number, one in enumerate(old)] == old

    committed = items.begin_failover_commit(*at).result()
    assert (committed.properties.protection_state, committed.properties.active_location) == (
        "UnplannedFailoverCommitted", "Recovery",
    )  # fmt: skip
    assert list(site.recovery_points.list_by_replication_protected_items(*at)) == []

    disable = models.DisableProtectionInput(
        properties=models.DisableProtectionInputProperties(
            replication_provider_input=models.DisableProtectionProviderSpecificInput(
                instance_type="DisableProtectionProviderSpecificInput"
            )
        )
    )
    items.begin_delete(*at, disable).result()
    assert list(site.replication_protected_items.list(GROUP, VAULT)) == []
    assert cloud.vm_names() == ["web1-dr"], "the recovered machine stays"
    jobs = [one.properties for one in site.replication_jobs.list(GROUP, VAULT)]
    assert {one.state for one in jobs} == {"Succeeded"}
