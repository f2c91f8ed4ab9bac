"""What Azure looks at in the disks and interfaces that a machine names.

Sources as in `checks`.
"""

from __future__ import annotations

from typing import Any

from tests.azuresim.arm.call import Call
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.refusals import conflict, missing, reference_missing
from tests.azuresim.arm.store import Resource
from tests.azuresim.compute.access import outstanding
from tests.azuresim.compute.sizes import NEEDS_ZONE, Size
from tests.azuresim.compute.state import DISKS, UPLOADING


def check_disks(
    call: Call, profile: dict[str, Any], size: Size, body: dict[str, Any], machine_id: str
) -> list[Resource]:
    """The managed disks that are named, after every rule on them."""
    data, found = profile.get("dataDisks") or [], []
    luns = [one["lun"] for one in data]
    for lun in luns:
        if luns.count(lun) > 1 or not 0 <= lun <= 63:
            # source: common VM errors, InvalidParameter; the range is DataDisk.lun's
            raise ArmError(400, "InvalidParameter", f"A disk at LUN {lun} already exists.", target="dataDisk.lun")
    if len(data) > size.max_disks:
        # source: common VM errors, OperationNotAllowed
        raise ArmError(
            409, "OperationNotAllowed",
            f"The maximum number of data disks allowed to be attached to a VM of this size is {size.max_disks}.",
        )  # fmt: skip
    for one in [profile["osDisk"], *data]:
        disk_id = (one.get("managedDisk") or {}).get("id")
        if disk_id:
            found.append(_check_disk(call, disk_id, size, body, machine_id))
        elif one["createOption"] == "Attach" and not one.get("vhd"):
            raise missing("dataDisk.managedDisk.id")
        if bool(one.get("vhd")) != bool(profile["osDisk"].get("vhd")):
            # source: common VM errors, OperationNotAllowed
            added, other = ("blob based", "managed") if one.get("vhd") else ("managed", "blob based")
            raise ArmError(
                409, "OperationNotAllowed", f"Addition of a {added} disk to VM with {other} disks is not supported."
            )
    if len({one.id.lower() for one in found}) < len(found):
        raise ArmError(
            400, "InvalidParameter", "A managed disk is named twice in the request.", target="dataDisk.managedDisk"
        )
    return found


def _check_disk(call: Call, disk_id: str, size: Size, body: dict[str, Any], machine_id: str) -> Resource:
    disk = call.sim.store.get(disk_id)
    if disk is None or disk.kind.lower() != DISKS.lower():
        # [inf] the status and code; the wording is that of ARM for a missing resource
        raise ArmError(404, "NotFound", f"Disk {disk_id.rpartition('/')[2]} is not found.", target="managedDisk.id")
    call.require("Microsoft.Compute/disks/read", disk.id)
    owner = disk.body.get("managedBy")
    if owner and owner.lower() != machine_id.lower():
        # source: common VM errors, ConflictingUserInput
        raise ArmError(
            409, "ConflictingUserInput",
            f"Disk '{disk.name}' cannot be attached as the disk is already owned by VM '{owner}'.", target="dataDisk",
        )  # fmt: skip
    state = disk.properties["diskState"]
    if state == "ActiveSAS":
        raise outstanding(disk)
    if state in UPLOADING:
        # Azure docs, "Upload a VHD": revoking access "is required in order to attach the disk to a VM"; wording [inf]
        raise ArmError(
            409, "OperationNotAllowed", f"Disk '{disk.name}' cannot be attached because it is in state {state}. End "
            f"the "
            "upload by revoking access to it.",
        )  # fmt: skip
    if disk.properties["provisioningState"] not in ("Succeeded", "Updating") or not state:
        raise conflict(f"Disk {disk.name} is in provisioning state {disk.properties['provisioningState']}.")
    if disk.body["location"] != call.sim.check_location(body["location"], DISKS):
        raise ArmError(
            400, "BadRequest", f"Disk {disk.name} is in location {disk.body['location']}, the VM in {body['location']}."
        )  # [inf]
    _check_kind(disk, size, body)
    return disk


def _check_kind(disk: Resource, size: Size, body: dict[str, Any]) -> None:
    kind, zones = disk.body["sku"]["name"], body.get("zones") or []
    if kind.startswith(("Premium", "Ultra")) and not size.premium:
        # source of the rule: Azure docs "Azure managed disk types" (premium disks need a size with PremiumIO); code,
        # status and sentence: as Kubernetes' cloud provider logs them ("Status=400 Code=InvalidParameter")
        raise ArmError(
            400, "InvalidParameter", f"Requested operation cannot be performed because the VM size {size.name} does "
            f"not "
            f"support the storage account type {kind} of disk '{disk.name}'. Consider updating the VM to a size that "
            "supports Premium storage.", target="osDisk.managedDisk.storageAccountType",
        )  # fmt: skip
    mine = disk.body.get("zones") or []
    if (mine and mine != zones) or (kind in NEEDS_ZONE and not zones):
        # source: Azure docs "Availability zones": a zonal disk attaches to a machine of the same zone only; wording
        # [inf]
        raise ArmError(
            400, "BadRequest", f"Disk '{disk.name}' in zones '{','.join(mine)}' cannot be attached to a VM in zones "
            f"'{','.join(zones)}'.",
        )  # fmt: skip


def check_boot(
    call: Call, found: list[Resource], os_disk: dict[str, Any], size: Size, properties: dict[str, Any]
) -> None:
    disk = call.sim.store.get((os_disk.get("managedDisk") or {}).get("id") or "")
    if disk is None:
        return
    generation = disk.properties.get("hyperVGeneration") or "V1"
    if generation not in size.generations.split(","):
        # source of the rule: Azure docs "Support for generation 2 VMs"; of code and sentence: issue 7454 of
        # hashicorp/terraform-provider-azurerm
        raise ArmError(
            400, "BadRequest", f"The selected VM size '{size.name}' cannot boot Hypervisor Generation "
            f"'{generation[1:]}'. If "
            "this was a Create operation please check that the Hypervisor Generation of the Image matches the "
            "Hypervisor "
            "Generation of the selected VM Size.",
        )  # fmt: skip
    known = disk.properties.get("osType")
    if known and os_disk.get("osType") and known != os_disk["osType"]:
        raise ArmError(
            409, "PropertyChangeNotAllowed", "Changing property 'osDisk.osType' is not allowed.", target="osDisk.osType"
        )
    secure = (properties.get("securityProfile") or {}).get("securityType")
    had = (disk.properties.get("securityProfile") or {}).get("securityType")
    if (secure or "Standard") != (had or "Standard"):
        # source of the sentence: Azure/azure-powershell issue 24253
        raise ArmError(
            400, "BadRequest", "Security type of VM is not compatible with the security type of attached OS Disk."
        )


def check_nics(call: Call, properties: dict[str, Any], size: Size, location: str, machine_id: str) -> None:
    references = (properties.get("networkProfile") or {}).get("networkInterfaces") or []
    if not references:
        raise missing("networkProfile")
    primaries = [one for one in references if (one.get("properties") or {}).get("primary")]
    if len(references) > 1 and len(primaries) != 1:
        # source of the rule: Azure docs "Create a VM with multiple NICs": exactly one is primary; code and words [inf]
        raise ArmError(
            400, "VirtualMachineMustHaveOneNetworkInterfaceAsPrimary",
            f"Virtual machine {machine_id} must have one network interface set as the primary.",
        )  # fmt: skip
    if len(references) > size.max_nics:
        # source: MaxNetworkInterfaces of ResourceSkus; wording [inf]
        raise ArmError(
            400, "NetworkInterfaceCountExceeded",
            f"The number of network interfaces for virtual machine {call.args['machine']} exceeds the maximum "
            f"allowed for "
            f"the virtual machine size {size.name}. The number of network interfaces is {len(references)} and the "
            f"maximum allowed is {size.max_nics}.",
        )  # fmt: skip
    networks = set()
    for one in references:
        nic = call.sim.store.get(one["id"])
        if nic is None:
            raise reference_missing(one["id"], machine_id)
        call.require("Microsoft.Network/networkInterfaces/join/action", nic.id)
        user = (nic.properties.get("virtualMachine") or {}).get("id")
        if user and user.lower() != machine_id.lower():
            # [inf]: the code is that of deleting a used interface (terraform-provider-azurerm issue 8105)
            raise ArmError(
                400, "NicInUse", f"Network Interface {nic.id} is used by existing resource {user}. It cannot be used "
                f"by "
                f"{machine_id}.",
            )  # fmt: skip
        if nic.body["location"] != location:
            raise reference_missing(nic.id, machine_id)
        for configuration in nic.properties["ipConfigurations"]:
            networks.add(configuration["properties"]["subnet"]["id"].rpartition("/subnets/")[0].lower())
    if len(networks) > 1:
        # source of the rule: Azure docs "Multiple network interfaces": all in one virtual network; code and words [inf]
        raise ArmError(
            400, "NetworkInterfacesInDifferentVirtualNetworks",
            f"All network interfaces of virtual machine {machine_id} must be in the same virtual network.",
        )  # fmt: skip
