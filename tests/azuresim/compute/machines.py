"""Virtual machines on managed disks: create, read, update (data disks, OS disk swap), delete.

Sources, unless a rule says otherwise: the specification ComputeRP.json, "Understand common error messages when you
manage
virtual machines in Azure" (azure-docs includes/virtual-machines-common-error-messages.md; "common VM errors" below),
and
"Change the OS disk used by an Azure VM" (os-disk-swap).
"""

from __future__ import annotations

import copy
import uuid
from typing import Any

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.operations import now
from tests.azuresim.arm.store import Resource
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.compute import disks
from tests.azuresim.compute.checks import check_machine, check_update, owned
from tests.azuresim.compute.state import DISKS, MACHINES, compute

FIXED_IMAGE_GIB = 30
"""[inf] Size of the system disk that an image gives a machine here; images themselves are not simulated."""


def put(call: Call) -> Later:
    known = call.sim.store.get(call.path)
    check_tags(call.body.get("tags"))
    return _create(call) if known is None else _update(call, known, call.body)


def _create(call: Call) -> Later:
    state, body = compute(call.sim), {name: value for name, value in call.body.items() if value is not None}
    body["location"] = call.sim.check_location(body["location"], MACHINES)
    body["properties"] = copy.deepcopy(body.get("properties") or {})
    check_machine(call, body)
    machine = Resource(call.path, MACHINES, _shown(call, body))
    call.sim.store.put(machine)
    _make_disks(call, machine)
    _own(call, machine, "Attached")
    state.power[machine.id.lower()] = "creating"

    def finish() -> dict[str, Any]:
        allocate(call, machine)
        machine.properties["provisioningState"] = "Succeeded"
        state.started(machine)
        return machine.body

    def failed(error: ArmError) -> None:
        # what is left of a machine whose creation failed: it exists, owns its disks and NICs, and does not run
        # (source: Azure docs "Allocation failure": the machine is in a failed provisioning state)
        machine.properties["provisioningState"] = "Failed"
        machine.hidden.update(failure=error, unborn=True)
        state.power[machine.id.lower()] = "deallocated"
        state.mark_disks(machine, "Reserved")
        for reference in machine.properties["networkProfile"]["networkInterfaces"]:
            call.sim.reserved_nics[reference["id"].lower()] = call.sim.nic_reservation

    return Later(finish, machine.id, body=machine.body, status=201, failed=failed, result_path="")


def allocate(call: Call, machine: Resource) -> None:
    """Source: common VM errors, AllocationFailed; Azure docs "Allocation failure" for the zonal code."""
    state, size = compute(call.sim), compute(call.sim).size_of(machine)
    if size is not None and size.name.lower() in state.no_capacity:
        zonal = bool(machine.body.get("zones"))
        raise ArmError(
            409, "ZonalAllocationFailed" if zonal else "AllocationFailed",
            "Allocation failed. We do not have sufficient capacity for the requested VM size in this "
            f"{'zone' if zonal else 'region'}. Read more about improving likelihood of allocation success at "
            "http://aka.ms/allocation-guidance",
        )  # fmt: skip


def _shown(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    extra = {name: value for name, value in body.items() if name not in ("id", "name", "type", "properties") and value}
    properties = body["properties"]
    vm_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{call.path.lower()} {now()}")
    properties.update(provisioningState="Creating", vmId=str(vm_id), timeCreated=now())
    profile = properties["storageProfile"]
    profile.setdefault("dataDisks", [])
    profile["osDisk"]["osType"] = profile["osDisk"].get("osType") or "Linux"
    for disk in [profile["osDisk"], *profile["dataDisks"]]:
        _fill_in(call, disk)
    return {
        "id": call.path, "name": call.args["machine"], "type": MACHINES, "location": body["location"], **extra,
        "properties": properties,
    }  # fmt: skip


def _fill_in(call: Call, disk: dict[str, Any]) -> None:
    """What the answer says of a disk that the request left open. Default of deleteOption: Detach for an attached disk
    (description of OSDisk.deleteOption and DataDisk.deleteOption)."""
    found = call.sim.store.get((disk.get("managedDisk") or {}).get("id") or "")
    if found is not None:
        disk["name"] = disk.get("name") or found.name
        given = {name: value for name, value in disk["managedDisk"].items() if value is not None}
        disk["managedDisk"] = {**given, "id": found.id, "storageAccountType": found.body["sku"]["name"]}
        disk["diskSizeGB"] = found.properties["diskSizeGB"]
    disk["deleteOption"] = disk.get("deleteOption") or "Detach"
    disk["caching"] = disk.get("caching") or "None"


def _make_disks(call: Call, machine: Resource) -> None:
    """Disks that come into being with the machine: data disks with createOption Empty, an image's system disk."""
    profile = machine.properties["storageProfile"]
    for disk in [profile["osDisk"], *profile["dataDisks"]]:
        lun = disk.get("lun", "os")
        if disk.get("vhd"):
            disk["name"] = disk.get("name") or f"{machine.name}-{lun}"
        if (disk.get("managedDisk") or {}).get("id") or disk.get("vhd"):
            continue
        name = disk.get("name") or f"{machine.name}_{'OsDisk_1' if lun == 'os' else f'DataDisk_{lun}'}"
        kind = (disk.get("managedDisk") or {}).get("storageAccountType") or "Standard_LRS"
        disk_id = f"{call.group_id}/providers/{DISKS}/{name}"
        body = {
            "location": machine.body["location"], "sku": {"name": kind}, "zones": machine.body.get("zones"),
            "properties": {
                "creationData": {"createOption": "Empty"}, "diskSizeGB": disk.get("diskSizeGB") or FIXED_IMAGE_GIB,
                **({"osType": disk.get("osType") or "Linux"} if lun == "os" else {}),
            },
        }  # fmt: skip
        disks.create(call, disk_id, body).finish()
        disk.update(name=name, managedDisk={**(disk.get("managedDisk") or {}), "id": disk_id})
        _fill_in(call, disk)


def _own(call: Call, machine: Resource, disk_state: str) -> None:
    compute(call.sim).mark_disks(machine, disk_state)
    for reference in machine.properties.get("networkProfile", {}).get("networkInterfaces") or []:
        if nic := call.sim.store.get(reference["id"]):
            nic.properties["virtualMachine"] = {"id": machine.id}


def _update(call: Call, machine: Resource, body: dict[str, Any]) -> Later:
    """A PUT on a machine that exists: its lists replace the old ones, so a data disk that is not named is detached."""
    wanted = copy.deepcopy(body.get("properties") or {})
    check_update(call, machine, body, wanted)
    merged = {**machine.properties, **{name: value for name, value in wanted.items() if value is not None}}
    return change(call, machine, merged, body.get("tags"))


def patch(call: Call) -> Later:
    machine = call.sim.store.need(call.path)
    check_tags(call.body.get("tags"))
    merged = _merged(machine.properties, call.body.get("properties") or {})
    check_update(call, machine, call.body, merged)
    return change(call, machine, merged, call.body.get("tags"))


def _merged(known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """ARM's PATCH: objects are merged, lists and values replaced (source: ARM RPC, resource-api-reference.md, RFC
    7396)."""
    found = copy.deepcopy(known)
    for name, value in given.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _merged(found[name], value) if both else copy.deepcopy(value)
    return found


def change(call: Call, machine: Resource, properties: dict[str, Any], tags: dict[str, str] | None) -> Later:
    """Bring the machine to `properties`: attach and detach what differs when the operation ends."""
    state = compute(call.sim)
    before = {disk.lower() for _, disk in state.attached(machine)}
    earlier, had_tags = copy.deepcopy(machine.properties), dict(machine.tags)
    profile = properties["storageProfile"]
    profile["dataDisks"] = [one for one in profile.get("dataDisks") or [] if not one.get("toBeDetached")]
    for disk in [profile["osDisk"], *profile["dataDisks"]]:
        _fill_in(call, disk)
    machine.properties.update(properties)
    machine.properties["provisioningState"] = "Updating"
    _make_disks(call, machine)
    if tags is not None:
        machine.body["tags"] = tags
    after = {disk.lower() for _, disk in state.attached(machine)}
    _own(call, machine, "Reserved" if state.power.get(machine.id.lower()) == "deallocated" else "Attached")

    def finish() -> dict[str, Any]:
        for disk_id in before - after:
            release(call, disk_id)
        if machine.hidden.get("unborn"):
            # [inf]: an update of a machine whose creation failed tries to bring it up again
            allocate(call, machine)
            state.started(machine)
            machine.hidden.pop("unborn")
            machine.hidden.pop("failure", None)
        machine.properties["provisioningState"] = "Succeeded"
        if before != after:
            for hook in state.on_disks:
                hook(state.as_machine(machine))
        return machine.body

    def failed(error: ArmError) -> None:
        for disk_id in after - before:
            release(call, disk_id)
        machine.properties.clear()
        machine.properties.update(earlier, provisioningState="Failed")
        machine.body["tags"] = had_tags

    return Later(finish, machine.id, body=machine.body, status=200, failed=failed, result_path="")


def release(call: Call, disk_id: str) -> None:
    if disk := call.sim.store.get(disk_id):
        disk.body.pop("managedBy", None)
        if disk.properties["diskState"] in ("Attached", "Reserved"):
            disk.properties["diskState"] = "Unattached"


def attach_detach(call: Call) -> Later:
    """VirtualMachines_AttachDetachDataDisks of the specification."""
    machine = call.sim.store.need(call.resource_id)
    merged = copy.deepcopy(machine.properties)
    profile = merged["storageProfile"]
    leaving = {one["diskId"].lower() for one in call.body.get("dataDisksToDetach") or []}
    known = {one["managedDisk"]["id"].lower() for one in profile["dataDisks"] if one.get("managedDisk")}
    if leaving - known:
        raise ArmError(
            400, "InvalidParameter", f"Disk {sorted(leaving - known)[0]} is not attached to VM '{machine.name}' as a "
            f"data disk.",
            target="dataDisksToDetach",
        )  # fmt: skip
    profile["dataDisks"] = [
        one for one in profile["dataDisks"] if (one.get("managedDisk") or {}).get("id", "").lower() not in leaving
    ]
    for one in call.body.get("dataDisksToAttach") or []:
        used = {disk["lun"] for disk in profile["dataDisks"]}
        lun = one.get("lun")
        profile["dataDisks"].append(
            {
                "lun": min(set(range(64)) - used) if lun is None else lun, "createOption": "Attach",
                "caching": one.get("caching") or "None", "managedDisk": {"id": one["diskId"]},
                "deleteOption": one.get("deleteOption") or "Detach",
            }
        )  # fmt: skip
    check_update(call, machine, {}, merged)
    made = change(call, machine, merged, None)
    return Later(
        lambda: made.finish()["properties"]["storageProfile"], machine.id, failed=made.failed,
        result_model=call.route.reply,
    )  # fmt: skip


def delete(call: Call) -> Reply | Later:
    """Disks and NICs stay unless their deleteOption says Delete (source: Azure docs "Delete a VM and attached
    resources")."""
    machine = call.sim.store.get(call.path)
    if machine is None:
        return Reply(status=204)
    owned(call, machine)
    machine.properties["provisioningState"] = "Deleting"

    def finish() -> None:
        profile = machine.properties["storageProfile"]
        for disk in [profile["osDisk"], *profile["dataDisks"]]:
            if not disk.get("managedDisk"):
                continue
            release(call, disk["managedDisk"]["id"])
            if disk.get("deleteOption") == "Delete":
                compute(call.sim).files.remove(disk["managedDisk"]["id"])
                call.sim.store.remove(disk["managedDisk"]["id"])
        for reference in machine.properties.get("networkProfile", {}).get("networkInterfaces") or []:
            if nic := call.sim.store.get(reference["id"]):
                nic.properties.pop("virtualMachine", None)
                if (reference.get("properties") or {}).get("deleteOption") == "Delete":
                    call.sim.store.remove(nic.id)
        compute(call.sim).power.pop(machine.id.lower(), None)
        call.sim.store.remove(machine.id)

    return Later(finish, machine.id, failed=lambda error: machine.properties.update(provisioningState="Failed"))
