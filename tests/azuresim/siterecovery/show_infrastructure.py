"""Fabrics, providers, containers and discovered machines in the words of the SDK's models."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.azuresim.siterecovery.catalog import health_error
from tests.azuresim.siterecovery.show_monitoring import text
from tests.azuresim.siterecovery.state import (
    HYPERV,
    MODERN,
    Container,
    Fabric,
    Protectable,
    Server,
    Vault,
    container_id,
    fabric_id,
)
from tests.azuresim.siterecovery.world import SourceMachine

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

TYPE = "Microsoft.RecoveryServices/vaults/replicationFabrics"
LOST = timedelta(minutes=15)
"""Without a heartbeat for so long a server is not connected any more [doc: 15 minutes; code and words are [inf]]."""


def _heard(service: SiteRecovery, at: datetime | None) -> str:
    return text(at if at is not None else service.clock.now() - timedelta(seconds=30))


def _lost(service: SiteRecovery, at: datetime | None) -> bool:
    return at is not None and service.clock.now() - at > LOST


def fabric(service: SiteRecovery, vault: Vault, one: Fabric) -> dict[str, Any]:
    """[spec example ReplicationFabrics_Get; VMwareDetails and InMageRcmFabricSpecificDetails of the SDK]."""
    now = service.clock.now()
    codes = list(one.errors)
    if _lost(service, one.heartbeat):
        codes.append("25012")
    if one.provider != HYPERV and one.certificate_days < 60:
        codes.append("25015")
    errors = [health_error(code, now, entity=one.guid) for code in codes]
    critical = any(error["errorLevel"] == "Error" for error in errors)
    return {
        "id": fabric_id(vault, one), "name": one.name, "type": TYPE,
        "properties": {
            "friendlyName": one.friendly, "internalIdentifier": one.guid, "bcdrState": "Valid",
            "health": "Critical" if critical else "Warning" if errors else "Normal", "healthErrorDetails": errors,
            "encryptionDetails": {"kekState": "None"}, "rolloverEncryptionDetails": {"kekState": "None"},
            "customDetails": _details(service, one),
        },
    }  # fmt: skip


def listed(body: dict[str, Any]) -> dict[str, Any]:
    """The fabric as a list shows it: of the modernized provider without the parts of its appliances [MIGRATE]."""
    details = body["properties"]["customDetails"]
    if details["instanceType"] == MODERN:
        details |= {key: [] for key, value in details.items() if isinstance(value, list)}
    return body


def _details(service: SiteRecovery, one: Fabric) -> dict[str, Any]:
    if one.provider == HYPERV:
        return {"instanceType": "HyperVSite"}
    if one.provider == MODERN:
        return {
            "instanceType": "InMageRcm", "physicalSiteId": one.site_id, "vmwareSiteId": "", "serviceEndpoint": "",
            "serviceResourceId": one.guid,
            "serviceContainerId": one.guid, "processServers": [rcm_server(service, server) for server in one.servers],
            "dras": [{"id": one.dra, "name": one.friendly, "health": "Normal", "version": one.version,
            "lastHeartbeatUtc": _heard(service, one.heartbeat)}],
        }  # fmt: skip
    now = service.clock.now()
    visible = [account for account in one.accounts if account.visible_from is None or account.visible_from <= now]
    return {
        "instanceType": "VMware", "hostName": one.friendly, "ipAddress": one.ip, "agentVersion": one.version,
        "versionStatus": one.version_status, "lastHeartbeat": _heard(service, one.heartbeat),
        "csServiceStatus": "Healthy",
        "sslCertExpiryRemainingDays": one.certificate_days,
        "sslCertExpiryDate": text(now + timedelta(days=one.certificate_days)),
        "processServerCount": str(len(one.servers)),
        "protectedServers": str(sum(len(c.items) for c in one.containers.values())),
        "agentCount": str(sum(len(c.items) for c in one.containers.values())),
        "processServers": [process_server(service, one, server) for server in one.servers],
        "masterTargetServers": [],
        "runAsAccounts": [{"accountId": account.id, "accountName": account.name} for account in visible],
    }  # fmt: skip


def process_server(service: SiteRecovery, of: Fabric, one: Server) -> dict[str, Any]:
    """A ProcessServer of the SDK (classic)."""
    now = service.clock.now()
    errors = [health_error(code, now, entity=one.id) for code in one.errors]
    served = sum(item.process_server == one.id for at in of.containers.values() for item in at.items.values())
    return {
        "id": one.id, "hostId": one.id, "friendlyName": one.name, "ipAddress": one.ip, "osType": "WINDOWS",
        "agentVersion": one.version,
        "versionStatus": "UpToDate", "lastHeartbeat": _heard(service, one.heartbeat),
        "machineCount": str(served),
        "health": "Critical" if errors else "Normal", "healthErrors": errors, "psServiceStatus": "Healthy",
        "cpuLoadStatus": "Healthy",
        "memoryUsageStatus": "Healthy", "spaceUsageStatus": "Healthy", "systemLoadStatus": "Healthy",
        "throughputStatus": "Healthy",
        "marsCommunicationStatus": "Healthy", "marsRegistrationStatus": "Healthy", "totalMemoryInBytes": 16 << 30,
        "availableMemoryInBytes": 8 << 30, "totalSpaceInBytes": 600 << 30, "availableSpaceInBytes": 500 << 30,
        "sslCertExpiryRemainingDays": of.certificate_days,
    }  # fmt: skip


def rcm_server(service: SiteRecovery, one: Server) -> dict[str, Any]:
    """A ProcessServerDetails of the SDK (modernized)."""
    errors = [health_error(code, service.clock.now(), entity=one.id) for code in one.errors]
    return {
        "id": one.id, "name": one.name, "fqdn": one.name, "ipAddresses": [one.ip], "version": one.version,
        "lastHeartbeatUtc": _heard(service, one.heartbeat), "health": "Critical" if errors else "Normal",
        "healthErrors": errors,
        "freeSpacePercentage": 80.0, "throughputStatus": "Healthy", "systemLoadStatus": "Healthy",
        "diskUsageStatus": "Healthy",
        "memoryUsageStatus": "Healthy", "processorUsageStatus": "Healthy", "historicHealth": "Normal",
    }  # fmt: skip


def appliances(service: SiteRecovery, vault: Vault, fabrics: list[Fabric]) -> dict[str, Any]:
    """A ReplicationAppliance of the SDK."""
    found = [
        {
            "id": one.dra, "name": one.friendly, "fabricArmId": fabric_id(vault, one),
            "processServer": rcm_server(service, one.servers[0]) if one.servers else {},
            "dra": {"id": one.dra, "name": one.friendly, "health": "Normal", "lastHeartbeatUtc": _heard(service,
            one.heartbeat)},
        }
        for one in fabrics
    ]  # fmt: skip
    return {"properties": {"providerSpecificDetails": {"instanceType": "InMageRcm", "appliances": found}}}


def provider(service: SiteRecovery, vault: Vault, of: Fabric) -> dict[str, Any]:
    """[spec example ReplicationRecoveryServicesProviders_Get]; "Connected" there, "NotConnected" is [inf].
    `machineId` is
    the process server's id [RECORDED, of InMageRcm]."""
    kind = "replicationRecoveryServicesProviders"
    properties: dict[str, Any] = {
        "fabricType": of.kind, "friendlyName": of.friendly, "fabricFriendlyName": of.friendly,
        "providerVersion": "5.1.2250.0", "serverVersion": of.version, "providerVersionState": "Latest",
        "lastHeartBeat": _heard(service, of.heartbeat), "draIdentifier": of.dra, "allowedScenarios": ["Refresh"],
        "connectionStatus": "NotConnected" if _lost(service, of.heartbeat) else "Connected",
        "protectedItemCount": sum(len(one.items) for one in of.containers.values()),
    }  # fmt: skip
    if of.servers:
        properties |= {"machineId": of.servers[0].id, "machineName": of.servers[0].name}
    return {
        "id": f"{fabric_id(vault, of)}/{kind}/{of.dra}",
        "name": of.dra,
        "type": f"{TYPE}/{kind}",
        "properties": properties,
    }


def container_path(vault: Vault, of: Fabric, one: Container) -> str:
    return container_id(vault, of, one)


def container(vault: Vault, of: Fabric, one: Container) -> dict[str, Any]:
    """[spec examples ReplicationProtectionContainers_Get and _DiscoverProtectableItem]."""
    return {
        "id": container_id(vault, of, one), "name": one.name, "type": f"{TYPE}/replicationProtectionContainers",
        "properties": {
            "fabricFriendlyName": of.friendly, "fabricType": of.kind, "friendlyName": one.friendly,
            "pairingStatus": "Paired" if one.mappings else "NotPaired", "protectedItemCount": len(one.items),
            "role": "Primary" if one.mappings else "",
        },
    }  # fmt: skip


def protectable(vault: Vault, of: Fabric, at: Container, one: Protectable) -> dict[str, Any]:
    """[spec example ReplicationProtectableItems_Get; VMwareVirtualMachineDetails of the SDK]."""
    kind = "replicationProtectableItems"
    properties: dict[str, Any] = {
        "friendlyName": one.friendly, "protectionStatus": "Protected" if one.item_id else "Unprotected",
        "recoveryServicesProviderId": f"{fabric_id(vault, of)}/replicationRecoveryServicesProviders/{of.dra}",
        "protectionReadinessErrors": one.readiness, "supportedReplicationProviders": [of.provider],
        "customDetails": {"instanceType": "ReplicationGroupDetails"},
    }  # fmt: skip
    if of.provider != HYPERV:
        properties["customDetails"] = _machine_details(one)
    if one.item_id:
        properties["replicationProtectedItemId"] = one.item_id
    return {
        "id": f"{container_id(vault, of, at)}/{kind}/{one.name}", "name": one.name,
        "type": f"{TYPE}/replicationProtectionContainers/{kind}", "properties": properties,
    }  # fmt: skip


def _machine_details(one: Protectable) -> dict[str, Any]:
    """Disks are known when the Mobility service is installed [inf]."""
    machine = one.machine
    known = machine is not None and machine.agent_installed
    disks = machine.disks if machine is not None and known else []
    return {
        "instanceType": "VMwareVirtualMachine", "discoveryType": "physical", "ipAddress": one.ip, "osType": one.os_type,
        "agentInstalled": "true" if known else "false",
        "agentVersion": machine.agent_version if machine and known else "",
        "poweredOn": "true", "validationErrors": [],
        "diskDetails": [
            {
                "diskId": disk.id, "diskName": disk.id, "diskSizeInMB": str(disk.size >> 20), "diskType": "BASIC",
                "diskConfiguration": "", "volumeList": [],
            }
            for disk in disks
        ],
    }  # fmt: skip


def site_of(fabric_site: str) -> str:
    """The id of a ServerSite as Microsoft.OffAzure writes it [MIGRATE]."""
    return fabric_site.replace("/ServerSites/", "/serversites/")


def off_azure(fabric: Fabric, machine: SourceMachine) -> dict[str, Any]:
    """A server of Microsoft.OffAzure/ServerSites [spec 2023-06-06, example ServersController_ListByServerSiteResource;
    MIGRATE, "Discovered machine details"]."""
    site = site_of(fabric.site_id)
    account = f"{site}/runasaccounts/{fabric.accounts[0].id}" if fabric.accounts else None
    system = {"osType": f"{machine.os_type}Guest", "osName": machine.os_type, "osVersion": "", "osArchitecture": "x64"}
    adapter = {
        "nicId": "0",
        "macAddress": "",
        "ipAddressList": [machine.ip],
        "networkName": "",
        "ipAddressType": "Dynamic",
    }
    appliance = {"runAsAccountId": account, "applianceName": fabric.friendly, "status": "Registered"}
    return {
        "id": f"{site}/machines/{machine.guid}", "name": machine.guid,
        "type": "Microsoft.OffAzure/serversites/machines",
        "properties": {
            "displayName": machine.name, "fqdn": machine.name, "hydratedFqdn": machine.name, "isDeleted": False,
            "networkAdapters": [adapter], "ipAddresses": "", "firmware": machine.firmware,
            "operatingSystemDetails": system, "guestOSDetails": dict.fromkeys(system), "discoverySource": "Appliance",
            "numberOfProcessorCore": machine.cpus, "allocatedMemoryInMB": float(machine.memory_mb), "errors": [],
            "applianceNames": [fabric.friendly], "appliancePropertiesCollection": [appliance],
            "runAsAccountId": account,
            "provisioningState": "Succeeded",
            "disks": [
                {
                    "diskId": disk.id, "id": disk.id, "generatedId": disk.id, "maxSizeInBytes": disk.size,
                    "name": disk.id, "diskType": "Basic", "lun": lun, "path": disk.id, "usedSpaceInBytes": 0,
                }
                for lun, disk in enumerate(machine.disks)
            ],
        },
    }  # fmt: skip


def run_as(fabric: Fabric, number: int) -> dict[str, Any]:
    """A run-as account of the appliance's site [MIGRATE, "Run as account details"]."""
    account = fabric.accounts[number]
    return {
        "id": f"{site_of(fabric.site_id)}/runasaccounts/{account.id}", "name": account.id,
        "type": "Microsoft.OffAzure/serversites/runasaccounts",
        "properties": {"displayName": account.name, "credentialType": "LinuxServer", "applianceName": fabric.friendly},
    }  # fmt: skip
