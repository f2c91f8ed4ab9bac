"""What Azure looks at before it accepts a machine or a change of one.

Sources as in `machines`. "common VM errors" is azure-docs includes/virtual-machines-common-error-messages.md.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from tests.azuresim.arm.call import Call
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.refusals import fixed, location_conflict, missing
from tests.azuresim.arm.store import Resource
from tests.azuresim.compute.attachments import check_boot, check_disks, check_nics
from tests.azuresim.compute.sizes import Size
from tests.azuresim.compute.state import SETS, compute

BAD_NAME = re.compile(r"[\x00-\x1f ~!@#$%^&*()=+_\[\]{}\\|;:'\",<>/?]")
"""Source: "Naming rules and restrictions for Azure resources", Microsoft.Compute virtualMachines. The page's
table is of host names (15 characters on Windows); its note gives a machine's own name 64. That the table's characters
hold for the name too, and that a breach is `InvalidParameter`, is [inf]."""
LONGEST_NAME = 64


def check_machine(call: Call, body: dict[str, Any]) -> Size:
    """Everything that refuses a new machine, in Azure's words. Raises ArmError.

    Source of what is required: Azure docs "Create a VM from a specialized disk"; the sentence as in `arm.strict`.
    """
    properties = body["properties"]
    profile = properties.get("storageProfile") or {}
    os_disk = profile.get("osDisk")
    if not os_disk:
        raise missing("osDisk")
    _check_name(call.args["machine"])
    size = check_size(call, body)
    _check_os_disk(properties, os_disk)
    found = check_disks(call, profile, size, body, machine_id=call.path)
    check_boot(call, found, os_disk, size, properties)
    check_nics(call, properties, size, body["location"], call.path)
    check_set(call, body, size)
    check_quota(call, size)
    return size


def _check_name(name: str) -> None:
    if BAD_NAME.search(name) or len(name) > LONGEST_NAME or name[-1] in ".-":
        raise ArmError(
            400, "InvalidParameter", f"Virtual machine name '{name}' cannot exceed {LONGEST_NAME} characters in "
            f"length, end "
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
