"""What Azure looks at before it accepts a machine or a change of one.

Sources as in `machines`. "common VM errors" is azure-docs includes/virtual-machines-common-error-messages.md.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from tests.azuresim.arm.call import Call
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.store import Resource
from tests.azuresim.compute.disks import UPLOADING, location_conflict, outstanding
from tests.azuresim.compute.sizes import NEEDS_ZONE, Size
from tests.azuresim.compute.state import DISKS, SETS, compute

BAD_NAME = re.compile(r"[\x00-\x1f ~!@#$%^&*()=+_\[\]{}\\|;:'\",<>/?]")
"""Source: "Naming rules and restrictions for Azure resources", Microsoft.Compute virtualMachines; that a breach is
`InvalidParameter` is [inf]."""


def check_machine(call: Call, body: dict[str, Any]) -> Size:
    """Everything that refuses a new machine, in Azure's words. Raises ArmError."""
    properties = body["properties"]
    profile = properties.get("storageProfile") or {}
    os_disk = profile.get("osDisk")
    if not os_disk:
        raise missing("osDisk")
    _check_name(call.args["machine"], str(os_disk.get("osType") or ""))
    size = check_size(call, body)
    _check_os_disk(properties, os_disk)
    found = check_disks(call, profile, size, body, machine_id=call.path)
    check_boot(call, found, os_disk, size, properties)
    check_nics(call, properties, size, body["location"], call.path)
    check_set(call, body, size)
    check_quota(call, size)
    return size


def _check_name(name: str, os_type: str) -> None:
    longest = 15 if os_type.lower() == "windows" else 64
    if BAD_NAME.search(name) or len(name) > longest or name[-1] in ".-" or (longest == 15 and "." in name):
        raise ArmError(
            400, "InvalidParameter", f"Virtual machine name '{name}' cannot exceed {longest} characters in length, end "
            "with a period or hyphen, or contain the following characters: ~ ! @ # $ % ^ & * ( ) = + _ [ ] { } \\ | ; "
            ": ' \" , < > / ?.", target="name",
        )  # fmt: skip


def check_size(call: Call, body: dict[str, Any]) -> Size:
    state = compute(call.sim)
    name = str((body["properties"].get("hardwareProfile") or {}).get("vmSize") or "")
    if not name:
        raise missing("hardwareProfile.vmSize")
    size = state.sizes.get(name.lower())
    if size is None:
        # source: common VM errors, InvalidParameter
        known = ", ".join(sorted(one.name for one in state.sizes.values()))
        raise ArmError(
            400, "InvalidParameter", f"The requested VM size {name} is not available in the current region. The sizes "
            f"available in the current region are: {known}. Find out more on the available VM sizes in each region at "
            "https://aka.ms/azure-regions.", target="vmSize",
        )  # fmt: skip
    zones = body.get("zones") or []
    if size.name.lower() in state.restricted or any(zone not in size.zones for zone in zones):
        # source: Azure docs, resource-manager/troubleshooting/error-sku-not-available
        raise ArmError(
            409, "SkuNotAvailable", f"The requested VM size for resource '{call.path}' is currently not available in "
            f"location '{call.sim.region}' zones '{','.join(zones)}' for subscription '{call.sim.subscription}'. "
            f"Please "
            "try another size or deploy to a different location or zones. See https://aka.ms/azureskunotavailable for "
            "details.",
        )  # fmt: skip
    return size


def _check_os_disk(properties: dict[str, Any], os_disk: dict[str, Any]) -> None:
    image = properties["storageProfile"].get("imageReference")
    if os_disk["createOption"] == "Attach":
        if image:
            # source: common VM errors, InvalidParameter
            raise ArmError(
                400, "InvalidParameter", "Cannot attach an existing OS disk if the VM is created from a platform or "
                "user "
                "image.", target="osDisk",
            )  # fmt: skip
        if not (os_disk.get("managedDisk") or {}).get("id") and not os_disk.get("vhd"):
            raise missing("osDisk.managedDisk.id")
        if not os_disk.get("osType"):
            raise missing("osDisk.osType")
        if properties.get("osProfile"):
            # source of the sentence: MicrosoftDocs/azure-docs issue 21850 (a machine on a specialised disk has no OS
            # profile)
            raise ArmError(400, "InvalidParameter", "Parameter 'osProfile' is not allowed.", target="osProfile")
    elif not image and not os_disk.get("image"):
        raise missing("imageReference")


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


def check_set(call: Call, body: dict[str, Any], size: Size) -> None:
    named = (body["properties"].get("availabilitySet") or {}).get("id")
    if not named:
        return
    if body.get("zones"):
        # source of the rule: Azure docs "Availability options for Azure Virtual Machines"; code and words [inf]
        raise ArmError(400, "BadRequest", "A VM cannot be both in an availability set and in an availability zone.")
    found = call.sim.store.get(named)
    if found is None or found.kind.lower() != SETS.lower():
        raise ArmError(404, "NotFound", f"The Availability Set {named} cannot be found.")  # source: common VM errors
    if found.group.lower() != call.args["group"].lower() or found.body["location"] != body["location"]:
        # source: description of availabilitySet: "should be in the same resource group"
        raise ArmError(
            400, "InvalidParameter", "The availability set must be in the resource group and location of the VM.",
            target="availabilitySet",
        )  # fmt: skip
    if (found.body.get("sku") or {}).get("name") != "Aligned":
        # source: common VM errors, BadRequest
        raise ArmError(
            400, "BadRequest", "Addition of a VM with managed disks to non-managed Availability Set or addition of a "
            "VM "
            "with blob based disks to managed Availability Set is not supported. Please create an Availability Set "
            "with "
            "'managed' property set in order to add a VM with managed disks to it.",
        )  # fmt: skip
    families = {one.family for one in _sizes_in(call, found, call.path)}
    if families and size.family not in families:
        # source: common VM errors, InvalidParameter; that another family is always outside the cluster is [inf]
        fitting = sorted(one.name for one in compute(call.sim).sizes.values() if one.family in families)
        raise ArmError(
            400, "InvalidParameter", f"Unable to create the VM because the requested size {size.name} is not "
            f"available in "
            f"the cluster where the availability set is currently allocated. The available sizes are: "
            f"{','.join(fitting)}. Read more on VM resizing strategy at "
            f"https://aka.ms/azure-resizevm.", target="vmSize",
        )  # fmt: skip


def _sizes_in(call: Call, found: Resource, but: str) -> list[Size]:
    state, sizes = compute(call.sim), []
    for machine in call.sim.store.of("Microsoft.Compute/virtualMachines"):
        named = (machine.properties.get("availabilitySet") or {}).get("id", "")
        if named.lower() == found.id.lower() and machine.id.lower() != but.lower():
            size = state.size_of(machine)
            if size and state.power.get(machine.id.lower()) != "deallocated":
                sizes.append(size)
    return sizes


def check_quota(call: Call, size: Size, released: Size | None = None) -> None:
    """Source: Azure docs, resource-manager/troubleshooting/error-resource-quota (code, status and sentence)."""
    state = compute(call.sim)
    used = state.usage()
    for name, shown in (("cores", "Total Regional Cores"), (size.family, f"{size.family} Cores")):
        before = used.get(name, 0) - (released.cores if released and name in ("cores", released.family) else 0)
        if before + size.cores > state.limit(name):
            raise ArmError(
                409, "OperationNotAllowed", f"Operation could not be completed as it results in exceeding approved "
                f"{shown} "
                f"quota. Additional details - Deployment Model: Resource Manager, Location: {call.sim.region}, Current "
                f"Limit: {state.limit(name)}, Current Usage: {before}, Additional Required: {size.cores}, (Minimum) "
                f"New "
                f"Limit Required: {before + size.cores}. Submit a request for Quota increase.",
            )  # fmt: skip


def check_update(call: Call, machine: Resource, body: dict[str, Any], wanted: dict[str, Any]) -> None:
    """What may not change on a machine that exists, and the rules on its new disks."""
    owned(call, machine)
    state, known = compute(call.sim), machine.properties
    if body.get("location") and call.sim.check_location(body["location"], machine.kind) != machine.body["location"]:
        raise location_conflict(machine, body["location"])
    if "zones" in body and (body["zones"] or []) != (machine.body.get("zones") or []):
        raise fixed("zones")
    for path in ("availabilitySet.id", "osProfile.computerName"):
        first, second = path.split(".")
        asked = (wanted.get(first) or {}).get(second)
        if asked is not None and asked.lower() != str((known.get(first) or {}).get(second) or "").lower():
            raise fixed(path if first == "availabilitySet" else "osProfile")
    os_disk = (wanted.get("storageProfile") or {}).get("osDisk")
    if "storageProfile" in wanted and not os_disk:
        # an OS disk can be swapped, never detached (Azure docs "Detach a data disk": data disks only)
        raise missing("osDisk")
    wanted.setdefault("storageProfile", copy.deepcopy(known["storageProfile"]))
    profile, mine = wanted["storageProfile"], known["storageProfile"]["osDisk"]
    if profile["osDisk"]["createOption"] != mine["createOption"]:
        # source: Azure/azure-sdk-for-net issue 37285
        raise fixed("osDisk.createOption")
    size = _resize(call, machine, wanted)
    merged = {**machine.body, **{key: value for key, value in body.items() if value is not None}}
    merged["location"] = machine.body["location"]
    check_disks(call, profile, size, {**merged, "zones": machine.body.get("zones")}, machine.id)
    _check_swap(call, machine, profile["osDisk"], mine, state.power.get(machine.id.lower(), ""))


def _resize(call: Call, machine: Resource, wanted: dict[str, Any]) -> Size:
    state = compute(call.sim)
    before = state.size_of(machine)
    name = (wanted.get("hardwareProfile") or {}).get("vmSize")
    if not name or (before and name.lower() == before.name.lower()):
        assert before is not None
        return before
    size = check_size(call, {**machine.body, "properties": {"hardwareProfile": {"vmSize": name}}})
    check_quota(call, size, before)
    return size


def _check_swap(call: Call, machine: Resource, wanted: dict[str, Any], known: dict[str, Any], power: str) -> None:
    """Source: "Change the OS disk used by an Azure VM": the machine is stopped or deallocated, both disks have the same
    size and the same operating system."""
    asked = (wanted.get("managedDisk") or {}).get("id")
    if not asked and wanted.get("vhd") and known.get("vhd"):
        return  # an unmanaged disk keeps its blob
    if not asked or not known.get("managedDisk"):
        raise missing("osDisk.managedDisk.id")
    if asked.lower() == known["managedDisk"]["id"].lower():
        if wanted.get("name") and wanted["name"] != known["name"]:
            raise fixed("osDisk.name")  # source: MicrosoftDocs/azure-docs issue 11611
        return
    if power == "running":
        raise ArmError(
            409, "OperationNotAllowed", f"Operation 'osDiskSwap' is not allowed on VM '{machine.name}' since the VM "
            f"is running. "
            "Please power off explicitly in case you shut down the VM from inside the guest operating system.",
        )  # fmt: skip
    new, old = call.sim.store.need(asked), call.sim.store.need(known["managedDisk"]["id"])
    if new.properties["diskSizeBytes"] != old.properties["diskSizeBytes"]:
        raise ArmError(
            400, "BadRequest", f"OS disk {new.name} of {new.properties['diskSizeBytes']} bytes cannot replace "
            f"{old.name} of "
            f"{old.properties['diskSizeBytes']} bytes: both disks must be the same size.",
        )  # fmt: skip
    if not wanted.get("name") or wanted["name"].lower() == known["name"].lower():
        wanted["name"] = new.name
    size = compute(call.sim).size_of(machine)
    if size is not None:
        check_boot(call, [new], {**wanted, "osType": known.get("osType")}, size, machine.properties)


def owned(call: Call, machine: Resource) -> None:
    """Refuse while another operation on the machine is under way. Source: common VM errors, OperationNotAllowed."""
    if call.sim.operations.pending(machine.id):
        raise ArmError(
            409, "OperationNotAllowed", f"Operation '{call.route.action.rpartition('/')[2]}' is not allowed on VM "
            f"'{machine.name}' since another operation is in progress.",
        )  # fmt: skip


def conflict(message: str) -> ArmError:
    return ArmError(409, "Conflict", message)


def fixed(name: str) -> ArmError:
    return ArmError(409, "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.", target=name)


def missing(name: str) -> ArmError:
    return ArmError(400, "InvalidParameter", f"Required parameter '{name}' is missing (null).", target=name)


def reference_missing(resource_id: str, by: str) -> ArmError:
    """Source: Azure docs, resource-manager/troubleshooting: InvalidResourceReference."""
    return ArmError(
        400, "InvalidResourceReference", f"Resource {resource_id} referenced by resource {by} was not found. Please "
        f"make sure "
        "that the referenced resource exists, and that both resources are in the same region.",
    )  # fmt: skip
