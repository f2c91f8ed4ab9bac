"""The provider's part of a protected machine, in the words of the SDK's models."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.azuresim.siterecovery import rules
from tests.azuresim.siterecovery.show_monitoring import text
from tests.azuresim.siterecovery.state import CLASSIC, MODERN, Item, Phase

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

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


def progress(one: Item) -> int:
    """Percent of the initial replication or resync; 100 when it is done."""
    if one.phase is Phase.ENABLING or one.phase is Phase.ENABLE_FAILED:
        return 0
    if one.phase is Phase.SYNCING or one.resync:
        return int(100 * (one.looks_total - one.looks) / max(one.looks_total, 1)) if one.looks_total else 0
    return 100


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


def details(service: SiteRecovery, one: Item, now: datetime) -> dict[str, Any]:
    if one.provider == CLASSIC:
        return _classic(one, now)
    if one.provider == MODERN:
        return _modern(service, one, now)
    return {"instanceType": one.provider}
