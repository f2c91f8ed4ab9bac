"""Enable protection (tutorial Step 5): refused when a part is missing; then the Mobility service is pushed and the
initial replication begins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import Route
from tests.azuresim.siterecovery import show_items as show
from tests.azuresim.siterecovery.monitoring import VERSIONS
from tests.azuresim.siterecovery.refusals import bad, check_alive, not_found
from tests.azuresim.siterecovery.state import (
    CLASSIC,
    HYPERV,
    MODERN,
    Container,
    Fabric,
    Item,
    Phase,
    Protectable,
    Target,
    Task,
    last,
)  # fmt: skip
from tests.azuresim.siterecovery.world import SourceMachine

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

VM_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""1-63 letters, digits, hyphens; begins and ends with a letter or digit [doc: support matrix of VMware VMs and
physical servers]."""
TAGS = ("targetVmTags", "seedManagedDiskTags", "targetManagedDiskTags", "targetNicTags")
MAX_DATA_DISKS = 64
MAX_OS_BYTES = {"BIOS": 2048 << 30, "UEFI": 4095 << 30}
"""[doc: support matrix of VMware VMs and physical servers]: OS disk 2,048 GB Gen1, 4,095 GB Gen2."""


class Enable:
    """The call that begins protection."""

    def __init__(self, service: SiteRecovery) -> None:
        self.service = service

    def routes(self, item: str) -> list[Route]:
        return [
            Route("PUT", item, self.create, VERSIONS, models.EnableProtectionInput, models.ReplicationProtectedItem)
        ]

    def create(self, call: Call) -> Later:
        vault, fabric, container = self.service.find_container(call)
        check_alive(vault, fabric.provider)
        given = call.body.get("properties") or {}
        details = given.get("providerSpecificDetails")
        if not details:
            raise bad("The provider's settings are missing.", "properties.providerSpecificDetails")
        if details.get("instanceType") != fabric.provider:
            raise bad(
                f"The fabric is of provider {fabric.provider}.", "properties.providerSpecificDetails.instanceType"
            )
        if call.args["item"].lower() in container.items:
            raise ArmError(409, "ProtectedItemAlreadyExists", f"'{call.args['item']}' is protected already.")  # [inf]
        policy = vault.policies.get(last(given.get("policyId") or "").lower())
        if policy is None:
            raise not_found("replication policy", given.get("policyId") or "")
        if not any(last(one.policy_id).lower() == policy.name.lower() for one in container.mappings.values()):
            raise bad(f"The policy '{policy.name}' is not associated with the container.", "properties.policyId")
        protectable: Protectable | None
        machine: SourceMachine | None
        if fabric.provider == MODERN:
            protectable, machine = None, self._discovered(fabric, details)
        else:
            found = self._protectable(container, given.get("protectableItemId") or "")
            protectable, machine = found, found.machine or self.service.world.at(found.ip)
        item = Item(
            call.args["item"], protectable.friendly if protectable else machine.name if machine else "",
            fabric.provider,
            given["policyId"], given.get("protectableItemId") or "", machine, Target(), vault, fabric, container,
        )  # fmt: skip
        self._settings(call, item, details)
        return self._begin(item, protectable)

    def _protectable(self, container: Container, wanted: str) -> Protectable:
        found = container.protectables.get(last(wanted))
        if found is None:
            raise not_found("protectable item", wanted)
        if found.item_id:
            raise ArmError(409, "ProtectedItemAlreadyExists", f"'{found.friendly}' is protected already.")  # [inf]
        return found

    def _discovered(self, fabric: Fabric, details: dict[str, Any]) -> SourceMachine:
        """[SDK: fabricDiscoveryMachineId is the ARM id of the machine in the appliance's site]."""
        site, _, name = details["fabricDiscoveryMachineId"].rpartition("/machines/")
        found = self.service.offazure.get(site.lower(), {}).get(name)
        if found is None or site.lower() != fabric.site_id.lower():
            raise not_found("machine", details["fabricDiscoveryMachineId"])
        protected = [item for container in fabric.containers.values() for item in container.items.values()]
        if any(one.machine is found for one in protected):
            raise ArmError(409, "ProtectedItemAlreadyExists", f"'{found.name}' is protected already.")  # [inf]
        return found

    # settings

    def _settings(self, call: Call, item: Item, details: dict[str, Any]) -> None:
        if item.provider == HYPERV:
            return  # only so far as the examples of the specification go
        servers = [one.id for one in item.fabric.servers]
        if details.get("processServerId") not in servers:
            raise bad(f"There is no process server '{details.get('processServerId')}'.", "processServerId")
        item.process_server = details["processServerId"]
        item.account = details.get("runAsAccountId") or ""
        item.group_name = details.get("multiVmGroupName") or ""
        if item.provider == CLASSIC:
            self._classic(item, details)
        else:
            self._modern(item, details)
        self._target(call, item)

    def _classic(self, item: Item, details: dict[str, Any]) -> None:
        now = self.service.clock.now()
        known = [one.id for one in item.fabric.accounts if one.visible_from is None or one.visible_from <= now]
        if item.account not in known and not (item.machine and item.machine.agent_installed):
            raise bad(f"There is no run-as account '{item.account}'.", "runAsAccountId")
        item.master_target = details.get("masterTargetId") or item.process_server
        target = item.target
        target.group_id = details.get("targetAzureV2ResourceGroupId") or ""
        target.network = details.get("targetAzureNetworkId") or ""
        target.subnet = details.get("targetAzureSubnetId") or ""
        target.vm_name = details.get("targetAzureVmName") or item.friendly
        target.rdp = details.get("enableRdpOnTargetOption") or "Never"
        target.tags = dict(details.get("targetVmTags") or {})
        target.storage_account = details.get("storageAccountId") or ""
        target.managed = not target.storage_account
        if (
            target.managed
            and not (details.get("diskType") and details.get("logStorageAccountId"))
            and not details.get("disksToInclude")
        ):
            raise bad(
                "Give diskType and logStorageAccountId, or disksToInclude; or storageAccountId for unmanaged disks.",
                "diskType",
            )
        self._common(item, details)
        self._disks(item, details.get("disksToInclude"), details)

    def _modern(self, item: Item, details: dict[str, Any]) -> None:
        if bool(details.get("disksToInclude")) == bool(details.get("disksDefault")):
            raise bad("Give either disksToInclude or disksDefault.", "disksToInclude")  # [SDK: one or the other]
        accounts = [f"{item.fabric.site_id}/runasaccounts/{one.id}".lower() for one in item.fabric.accounts]
        if item.account and item.account.lower() not in accounts:
            raise bad(f"There is no run-as account '{item.account}'.", "runAsAccountId")
        target = item.target
        target.group_id = details["targetResourceGroupId"]
        target.network, target.subnet = details.get("targetNetworkId") or "", details.get("targetSubnetName") or ""
        target.test_network, target.test_subnet = (
            details.get("testNetworkId") or "",
            details.get("testSubnetName") or "",
        )
        target.vm_name = details.get("targetVmName") or item.friendly
        target.boot_diagnostics = details.get("targetBootDiagnosticsStorageAccountId") or ""
        target.tags = {one["tagName"]: one["tagValue"] for one in details.get("targetVmTags") or []}
        self._common(item, details)
        chosen = details.get("disksToInclude")
        if chosen and item.machine and {one["diskId"] for one in chosen} != {one.id for one in item.machine.disks}:
            # doc: support matrix of VMware VMs and physical servers: disk exclusion is not supported for physical
            # machines of the modernized experience
            raise bad("All disks of a physical server must be included.", "disksToInclude")
        self._disks(item, chosen, details.get("disksDefault") or {})

    def _common(self, item: Item, details: dict[str, Any]) -> None:
        target = item.target
        target.vm_size = details.get("targetVmSize") or ""
        target.availability_set = details.get("targetAvailabilitySetId") or ""
        target.zone = details.get("targetAvailabilityZone") or ""
        target.license_type = details.get("licenseType") or ""
        if target.zone and target.availability_set:
            raise bad("Give an availability set or a zone, not both.", "targetAvailabilityZone")
        if not VM_NAME.fullmatch(target.vm_name):
            raise bad(f"'{target.vm_name}' is no legal name of a virtual machine.", "targetVmName")

    def _disks(self, item: Item, chosen: list[dict[str, Any]] | None, default: dict[str, Any]) -> None:
        machine = item.machine
        wanted = {one["diskId"]: one for one in chosen or []}
        known = {one.id for one in machine.disks} if machine else set()
        if chosen and not set(wanted) <= known:
            raise bad(f"The machine has no disk '{sorted(set(wanted) - known)[0]}'.", "disksToInclude")
        for disk in machine.disks if machine else []:
            if chosen and disk.id not in wanted:
                continue
            of = wanted.get(disk.id, default)
            item.disk_ids.append(disk.id)
            item.target.disk_types[disk.id] = of.get("diskType") or default.get("diskType") or "Standard_LRS"
            item.target.log_storage[disk.id] = of.get("logStorageAccountId") or default.get("logStorageAccountId") or ""
        os_disk = next((one.id for one in machine.disks if one.is_os), "") if machine else ""
        if chosen and os_disk not in wanted:
            raise bad("The operating system's disk must be included.", "disksToInclude")  # [inf]

    def _target(self, call: Call, item: Item) -> None:
        """What the target names must exist, and the caller must be allowed to use it [doc: "Manage access with RBAC":
        VM write, subnet join, storage listKeys]."""
        target, store = item.target, call.sim.store
        wanted = [("resource group", target.group_id), ("virtual network", target.network)]
        wanted += [("storage account", one) for one in {*target.log_storage.values(), target.storage_account} if one]
        wanted += [("availability set", target.availability_set), ("virtual network", target.test_network)]
        for what, resource in wanted:
            if resource and store.get(resource) is None:
                raise bad(f"The {what} '{resource}' does not exist.")
        for account in {*target.log_storage.values(), target.storage_account}:
            place = str(item.vault.body.get("location") or "").lower()
            if account and store.need(account).body["location"].lower() != place:
                # [doc: "Set up disaster recovery of VMware VMs to Azure with PowerShell"]: same region as the vault
                raise bad(f"The storage account '{account}' is not in the region of the vault.")
        if not target.group_id:
            raise bad("The target resource group is missing.", "targetResourceGroupId")
        if target.network and target.subnet:
            network = store.need(target.network)
            subnets = [one["name"].lower() for one in network.properties.get("subnets") or []]
            if target.subnet.lower() not in subnets and store.get(f"{target.network}/subnets/{target.subnet}") is None:
                raise bad(f"The network has no subnet '{target.subnet}'.")
            call.require(
                "Microsoft.Network/virtualNetworks/subnets/join/action", f"{target.network}/subnets/{target.subnet}"
            )
        call.require("Microsoft.Compute/virtualMachines/write", target.group_id)
        for account in {*target.log_storage.values(), target.storage_account}:
            if account:
                call.require("Microsoft.Storage/storageAccounts/listKeys/action", account)

    # the job

    def _begin(self, item: Item, protectable: Protectable | None) -> Later:
        item.container.items[item.name.lower()] = item
        if protectable is not None:
            protectable.item_id = item.id
        tasks = [
            Task("EnableProtectionPrerequisites", "Prerequisites check for enabling protection"),
            Task("InstallMobilityService", "Installing Mobility Service and preparing target"),
            Task("EnableProtection", "Enable replication"),
            Task("StartInitialReplication", "Starting initial replication"),
        ]
        # Task and scenario names are [inf]; the job's name is the tutorial's "Enable Protection".
        job = self.service.job(
            item.vault, "EnableDr", "Enable protection", tasks, "ProtectionEntity", item.name, item.friendly
        )
        job.affected, item.job, item.busy = show.affected(item), job, True

        def again() -> None:
            self._push(item)
            self._replicate(item)

        job.again = again

        def finish() -> dict[str, Any]:
            again()
            return show.item(self.service, item)

        def failed(_: ArmError) -> None:
            item.phase, item.busy = Phase.ENABLE_FAILED, False

        return self.service.run(item.vault, job, item.id, finish, failed)

    def _push(self, item: Item) -> None:
        """Install the Mobility service; fails with the codes of `catalog`."""
        machine = item.machine
        if item.provider == HYPERV:
            return
        if item.fabric.heartbeat is not None:
            raise ArmError(400, "78186", "The process server cannot be reached.")
        if machine is None or not machine.powered_on:
            windows = (machine.os_type if machine else "").lower() == "windows"
            raise ArmError(400, "95117" if windows else "97118", "The source machine cannot be reached.")
        if machine.push_error and not machine.agent_installed:
            raise ArmError(400, machine.push_error, "Push installation of the Mobility service failed.")
        machine.agent_installed = True
        data = [one for one in machine.disks if not one.is_os and one.id in item.disk_ids]
        size = next(one.size for one in machine.disks if one.is_os)
        if len(data) > MAX_DATA_DISKS or size > MAX_OS_BYTES[machine.firmware]:
            raise ArmError(400, "DiskLimitExceeded", "The machine's disks are beyond what Azure takes.")  # [inf]

    def _replicate(self, item: Item) -> None:
        item.busy, item.last_data = False, self.service.clock.now()
        item.phase = Phase.SYNCING
        self.service.begin_sync(item)
        if item.provider == HYPERV:
            self.service.synced(item)
