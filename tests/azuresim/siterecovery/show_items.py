"""Protected machines and their points in the words of the SDK's models."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.azuresim.siterecovery import rules
from tests.azuresim.siterecovery.show_monitoring import text
from tests.azuresim.siterecovery.state import AZURE, CLASSIC, HYPERV, MODERN, Drill, Item, Phase, Point, fabric_id, last

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
WORDS = {
    # [spec examples]: Protected, Failover completed, Planned failover finished or committed; the others are [inf]
    Phase.ENABLING: "Enabling protection", Phase.ENABLE_FAILED: "Enable protection failed",
    Phase.SYNCING: "Initial replication in progress",
    Phase.PROTECTED: "Protected", Phase.FAILING_OVER: "Failover in progress",
    Phase.FAILOVER_FAILED: "Failover failed", Phase.FAILOVER_CANCELLED: "Failover cancelled",
    Phase.COMMIT_PENDING: "Failover completed",
    Phase.COMMITTED: "Failover committed",
    Phase.DISABLING: "Disabling protection", Phase.PLANNED_COMMIT_PENDING: "Planned failover finished",
    Phase.PLANNED_COMMITTED: "Planned failover committed",
}  # fmt: skip
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
        "providerSpecificDetails": _details(service, one, now),
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


def _details(service: SiteRecovery, one: Item, now: datetime) -> dict[str, Any]:
    if one.provider == CLASSIC:
        return _classic(one, now)
    if one.provider == MODERN:
        return _modern(service, one, now)
    return {"instanceType": one.provider}


def progress(one: Item) -> int:
    """Percent of the initial replication or resync; 100 when it is done."""
    if one.phase is Phase.ENABLING or one.phase is Phase.ENABLE_FAILED:
        return 0
    if one.phase is Phase.SYNCING or one.resync:
        return int(100 * (one.looks_total - one.looks) / max(one.looks_total, 1)) if one.looks_total else 0
    return 100


def _classic(one: Item, now: datetime) -> dict[str, Any]:
    """InMageAzureV2ReplicationDetails. There is no percentage of the initial replication: resync fields tell [inf]."""
    machine, target = one.machine, one.target
    server = next((it for it in one.fabric.servers if it.id == one.process_server), None)
    found: dict[str, Any] = {
        "instanceType": CLASSIC, "discoveryType": "physical", "vmId": machine.guid if machine else "",
        "ipAddress": machine.ip if machine else "",
        "osType": machine.os_type.upper() if machine else "",
        "agentVersion": machine.agent_version if machine and machine.agent_installed else "",
        "protectionStage": _stage(one), "vmProtectionState": one.phase.value,
        "vmProtectionStateDescription": WORDS[one.phase],
        "resyncProgressPercentage": progress(one), "processServerId": one.process_server,
        "processServerName": server.name if server else "",
        "masterTargetId": one.master_target, "multiVmGroupName": one.group_name,
        "multiVmSyncStatus": one.policy.settings.get("multiVmSyncStatus", "Disabled"),
        "recoveryAzureVMName": target.vm_name, "recoveryAzureVMSize": target.vm_size,
        "recoveryAzureResourceGroupId": target.group_id,
        "selectedRecoveryAzureNetworkId": target.network, "selectedTfoAzureNetworkId": target.test_network,
        "recoveryAvailabilitySetId": target.availability_set, "targetAvailabilityZone": target.zone,
        "enableRdpOnTargetOption": target.rdp,
        "useManagedDisks": "True" if target.managed else "False", "licenseType": target.license_type or "NoLicenseType",
        "recoveryAzureStorageAccount": target.storage_account,
        "recoveryAzureLogStorageAccountId": next(iter(target.log_storage.values()), ""),
        "firmwareType": machine.firmware if machine else "",
        "azureVmGeneration": "V2" if machine and machine.firmware == "UEFI" else "V1",
        "sourceVmCpuCount": machine.cpus if machine else 0, "sourceVmRamSizeInMB": machine.memory_mb if machine else 0,
        "targetVmTags": target.tags, "totalProgressHealth": _progress_health(one), "diskResized": "No",
        "vmNics": [_nic(one)], "validationErrors": [], "targetVmId": one.vm_id, "azureVMDiskDetails": [],
        "protectedDisks": [
            {
                "diskId": disk.id, "diskName": disk.id, "protectionStage": _stage(one),
                "resyncRequired": "Yes" if one.resync else "No",
                "resyncProgressPercentage": progress(one), "diskCapacityInBytes": disk.size,
                "fileSystemCapacityInBytes": disk.size,
                "progressHealth": _progress_health(one), "resyncProcessedBytes": disk.size * progress(one) // 100,
                "psDataInMegaBytes": 0.0,
                "sourceDataInMegaBytes": 0.0, "targetDataInMegaBytes": 0.0, "diskResized": "No",
                "rpoInSeconds": rules.rpo(one, now),
            }
            for disk in (machine.disks if machine else []) if disk.id in one.disk_ids
        ],
        "protectedManagedDisks": [
            {"diskId": disk, "replicaDiskType": target.disk_types.get(disk, ""),
            "targetDiskName": f"{target.vm_name}-{number}"}
            for number, disk in enumerate(one.disk_ids if target.managed else [])
        ],
        "switchProviderBlockingErrorDetails": [
            {"errorCode": "SwitchBlocked", "errorMessage": why, "possibleCauses": why,
            "recommendedAction": "Resolve it, then switch."}
            for why in rules.switch_blockers(one)
        ],
    }  # fmt: skip
    os_disk = next((disk.id for disk in machine.disks if disk.is_os), "") if machine else ""
    found["osDiskId"] = os_disk
    if one.last_data is not None:
        found |= {
            "rpoInSeconds": rules.rpo(one, now), "lastRpoCalculatedTime": text(now),
            "lastUpdateReceivedTime": text(now),
            "lastHeartbeat": text(one.last_data),
        }  # fmt: skip
    if one.switched:
        found["switchProviderDetails"] = one.switched
    if one.points:
        found["lastRecoveryPointReceived"] = text(max(it.time for it in one.points))
    return found


def _stage(one: Item) -> str:
    """[inf]"""
    if one.phase is Phase.SYNCING or one.resync:
        return "InitialSync" if one.phase is Phase.SYNCING else "Resync"
    return "DifferentialSync" if one.phase is Phase.PROTECTED else ""


def _progress_health(one: Item) -> str:
    """[SDK: VmReplicationProgressHealth and DiskReplicationProgressHealth]"""
    stuck = one.machine is not None and (not one.machine.talks or "78169" in one.machine.errors)
    if one.phase is Phase.SYNCING or one.resync:
        return "NoProgress" if stuck else "InProgress"
    return "None"


def nic_id(one: Item) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, one.name + one.friendly))


def _nic(one: Item) -> dict[str, Any]:
    target = one.target
    return {
        "nicId": nic_id(one), "selectionType": "SelectedByUser" if target.network else "NotSelected",
        "recoveryVMNetworkId": target.network,
        "tfoVMNetworkId": target.test_network,
        "ipConfigs": [{
            "name": "ipConfig1", "isPrimary": True, "isSeletedForFailover": True,
            "staticIPAddress": one.machine.ip if one.machine else "",
            "recoverySubnetName": target.subnet, "recoveryStaticIPAddress": target.static_ip,
            "recoveryIPAddressType": "Static" if target.static_ip else "Dynamic", "tfoSubnetName": target.test_subnet,
            "tfoStaticIPAddress": target.test_ip,
        }],
    }  # fmt: skip


def _modern(service: SiteRecovery, one: Item, now: datetime) -> dict[str, Any]:
    """InMageRcmReplicationDetails."""
    machine, target = one.machine, one.target
    server = next((it for it in one.fabric.servers if it.id == one.process_server), None)
    done = one.phase not in (Phase.ENABLING, Phase.ENABLE_FAILED, Phase.SYNCING)
    newest = max(one.points, key=lambda it: it.time) if one.points else None
    found: dict[str, Any] = {
        "instanceType": MODERN, "internalIdentifier": one.name, "discoveryType": "physical",
        "processServerId": one.process_server,
        "processServerName": server.name if server else "", "runAsAccountId": one.account,
        "multiVmGroupName": one.group_name,
        "fabricDiscoveryMachineId": f"{one.fabric.site_id}/machines/{machine.guid}" if machine else "",
        "osType": machine.os_type if machine else "", "firmwareType": machine.firmware if machine else "",
        "primaryNicIpAddress": machine.ip if machine else "", "processorCoreCount": machine.cpus if machine else 0,
        "allocatedMemoryInMB": float(machine.memory_mb) if machine else 0.0,
        "targetGeneration": "V2" if machine and machine.firmware == "UEFI" else "V1",
        "licenseType": target.license_type or "NoLicenseType", "targetVmName": target.vm_name,
        "targetVmSize": target.vm_size,
        "targetResourceGroupId": target.group_id, "targetLocation": service.sim.region,
        "targetAvailabilitySetId": target.availability_set,
        "targetAvailabilityZone": target.zone, "targetNetworkId": target.network, "testNetworkId": target.test_network,
        "targetBootDiagnosticsStorageAccountId": target.boot_diagnostics,
        "failoverRecoveryPointId": f"{one.id}/recoveryPoints/{one.failover_point}" if one.failover_point else "",
        "initialReplicationProgressHealth": "None" if done else _progress_health(one),
        "resyncRequired": "true" if one.resync else "false",
        "resyncState": "StartedResynchronization" if one.resync else "None",
        "resyncProgressHealth": _progress_health(one) if one.resync else "None",
        "protectedDisks": [
            {
                "diskId": disk.id, "diskName": disk.id, "isOSDisk": "true" if disk.is_os else "false",
                "capacityInBytes": disk.size,
                "diskState": "Protected" if done else "InitialReplicationPending",
                "diskType": target.disk_types.get(disk.id, "Standard_LRS"),
                "logStorageAccountId": target.log_storage.get(disk.id, ""),
                "isInitialReplicationComplete": "true" if done else "false",
                "dataPendingAtSourceAgentInMB": 0.0, "dataPendingInLogDataStoreInMB": 0.0,
            }
            for disk in (machine.disks if machine else []) if disk.id in one.disk_ids
        ],
        "vmNics": [{
            "nicId": nic_id(one), "isPrimaryNic": "true", "isSelectedForFailover": "true",
            "sourceIPAddress": machine.ip if machine else "",
            "targetIPAddress": target.static_ip, "targetSubnetName": target.subnet,
            "testSubnetName": target.test_subnet,
            "testIPAddress": target.test_ip, "targetIPAddressType": "Static" if target.static_ip else "Dynamic",
        }],
        "discoveredVmDetails": {
            "ipAddresses": [machine.ip] if machine else [],
            "powerStatus": "ON" if machine and machine.powered_on else "OFF",
            "vmFqdn": one.friendly, "isDeleted": False,
        },
        "targetVmTags": [{"tagName": key, "tagValue": value} for key, value in target.tags.items()],
    }  # fmt: skip
    # Percentages are null when nothing is copied [MIGRATE].
    if not done:
        found["initialReplicationProgressPercentage"] = progress(one)
    if one.resync:
        found["resyncProgressPercentage"] = progress(one)
    if machine is not None and machine.agent_installed:
        found["mobilityAgentDetails"] = {"version": machine.agent_version, "isUpgradeable": "false"}
        if one.last_data is not None:
            found["mobilityAgentDetails"]["lastHeartbeatUtc"] = text(one.last_data)
    if one.last_data is not None:
        found |= {"lastRpoInSeconds": rules.rpo(one, now), "lastRpoCalculatedTime": text(now)}
    if newest is not None:
        found |= {
            "lastRecoveryPointReceived": text(newest.time),
            "lastRecoveryPointId": f"{one.id}/recoveryPoints/{newest.id}",
        }
    return found


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
