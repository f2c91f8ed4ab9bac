"""Protected machines and their points in the words of the SDK's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.azuresim.siterecovery import rules
from tests.azuresim.siterecovery.show_details import WORDS, details
from tests.azuresim.siterecovery.show_monitoring import text
from tests.azuresim.siterecovery.state import AZURE, HYPERV, MODERN, Drill, Item, Phase, Point, fabric_id, last

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

TYPE = "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems"
CLOUD = (
    "d49858f157601230a6ac5862fbbc6e63bf38d23ecd96cf953767945d457fe9d5/replicationProtectionContainers/"
    "d38048d4-b460-4791-8ece-108395ee8478"
)
"""Azure's own fabric and container [spec examples]."""
NEVER = "1753-01-01T01:01:01Z"
"""`startTime` of the scenario "None" [spec examples]."""
SIZES = (("Standard_D2s_v3", 2, 8.0, 4, 2), ("Standard_D4s_v3", 4, 16.0, 8, 2), ("Standard_D8s_v3", 8, 32.0, 16, 4))


def item(service: SiteRecovery, one: Item) -> dict[str, Any]:
    """A ReplicationProtectedItem of the SDK [spec example ReplicationProtectedItems_Get]."""
    now, vault = service.clock.now(), one.vault
    job, fabric = one.job, fabric_id(vault, one.fabric)
    running = job is not None and job.state in ("InProgress", "Suspended", "Cancelling")
    properties: dict[str, Any] = {
        "friendlyName": one.friendly, "protectedItemType": "HyperVVirtualMachine" if one.provider == HYPERV else "",
        "protectableItemId": one.protectable_id, "switchProviderState": "None",
        "recoveryServicesProviderId": f"{fabric}/replicationRecoveryServicesProviders/{one.fabric.dra}",
        "primaryFabricFriendlyName": one.fabric.friendly,
        "primaryFabricProvider": "InMageRcmFabric" if one.provider == MODERN else one.fabric.kind,
        "recoveryFabricFriendlyName": AZURE,
        "recoveryFabricId": AZURE, "primaryProtectionContainerFriendlyName": one.container.friendly,
        "recoveryProtectionContainerFriendlyName": AZURE,
        "recoveryContainerId": f"{vault.sr_id}/replicationFabrics/{CLOUD}",
        "protectionState": one.phase.value, "protectionStateDescription": _words(one),
        "activeLocation": rules.active_location(one),
        "testFailoverState": one.drill.value[0], "testFailoverStateDescription": one.drill.value[1],
        "allowedOperations": rules.allowed(one), "replicationHealth": rules.replication_health(one, now),
        "failoverHealth": rules.failover_health(one, now),
        "healthErrors": rules.health_errors(one, now), "policyId": one.policy_id,
        "policyFriendlyName": last(one.policy_id),
        "currentScenario": {
            "scenarioName": job.scenario if job and running else "None",
            "jobId": f"{vault.sr_id}/replicationJobs/{job.id if job and running else 'None'}",
            "startTime": text(job.began) if job and running else NEVER,
        },
        "providerSpecificDetails": details(service, one, now),
    }  # fmt: skip
    if one.provider == MODERN:
        del properties["protectableItemId"]  # null [MIGRATE]
    if one.switched:
        # [SDK: the members exist; the word is [inf]]
        properties |= {"switchProviderState": "Completed", "switchProviderStateDescription": "Completed"}
    if one.failover_point:
        properties["failoverRecoveryPointId"] = f"{one.id}/recoveryPoints/{one.failover_point}"
    if one.last_failover is not None:
        properties["lastSuccessfulFailoverTime"] = text(one.last_failover)
    if one.last_drill is not None:
        properties["lastSuccessfulTestFailoverTime"] = text(one.last_drill)
    return {"id": one.id, "name": one.name, "type": TYPE, "properties": properties}


def listed(body: dict[str, Any]) -> dict[str, Any]:
    """The item as a list shows it: of the modernized provider without its disks and network interfaces [MIGRATE]."""
    details = body["properties"]["providerSpecificDetails"]
    if details["instanceType"] == MODERN:
        details |= {"protectedDisks": [], "unprotectedDisks": [], "vmNics": []}
    return body


def _words(one: Item) -> str:
    if one.drill is Drill.WAITING and one.phase is Phase.PROTECTED:
        return "Cleanup test failover pending"  # [spec example ReplicationProtectedItems_TestFailover]
    return WORDS[one.phase]


def point(of: Item, one: Point) -> dict[str, Any]:
    """[spec example RecoveryPoints_ListByReplicationProtectedItems]."""
    properties: dict[str, Any] = {"recoveryPointTime": text(one.time), "recoveryPointType": one.kind}
    if of.provider != HYPERV:
        properties["providerSpecificDetails"] = {"instanceType": of.provider, "isMultiVmSyncPoint": "false"}
    return {
        "id": f"{of.id}/recoveryPoints/{one.id}",
        "name": one.id,
        "type": f"{TYPE}/recoveryPoints",
        "properties": properties,
    }


def affected(one: Item) -> dict[str, str]:
    """`affectedObjectDetails` of a job [spec example ReplicationJobs_Cancel]."""
    return {
        "PrimaryCloudId": one.container.name, "PrimaryCloudName": one.container.friendly,
        "PrimaryFabricProviderId": one.fabric.kind,
        "PrimaryVmId": one.name, "PrimaryVmName": one.friendly, "PrimaryVmmId": one.fabric.guid,
        "PrimaryVmmName": one.fabric.friendly,
        "ProtectionProfileId": last(one.policy_id), "RecoveryCloudName": AZURE, "RecoveryFabricProviderId": "Azure",
        "RecoveryVmName": one.target.vm_name, "RecoveryVmmName": AZURE,
    }  # fmt: skip


def size(of: Item, region: str, one: tuple[str, int, float, int, int]) -> dict[str, Any]:
    name, cpus, memory, disks, nics = one
    return {
        "id": f"{of.id}/targetComputeSizes/{name}", "name": name, "type": f"{TYPE}/targetComputeSizes",
        "properties": {
            "name": name, "friendlyName": name, "cpuCoresCount": cpus, "memoryInGB": memory, "maxDataDiskCount": disks,
            "maxNicsCount": nics, "errors": [], "highIopsSupported": "True",
        },
    }  # fmt: skip


def systems(path: str, provider: str) -> dict[str, Any]:
    """Operating systems of the tutorial's table; the form of the versions is [inf]."""
    linux = [
        {"osName": "CentOS", "osType": "Linux", "osVersions": [{"version": one} for one in ("6.9", "7.3")]},
        {"osName": "Ubuntu", "osType": "Linux", "osVersions": [{"version": one} for one in ("14.04", "16.04")]},
    ]
    windows = [{"version": one} for one in ("2008 R2 SP1", "2012", "2012 R2", "2016", "2019")]
    return {
        "id": path, "name": "default", "type": "Microsoft.RecoveryServices/vaults/replicationSupportedOperatingSystems",
        "properties": {"supportedOsList": [{
            "instanceType": provider, "supportedOs": [{"osName": "Windows Server", "osType": "Windows",
            "osVersions": windows}, *linux],
        }]},
    }  # fmt: skip
