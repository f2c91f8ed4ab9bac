"""Managed disks: create empty, for upload, by import of a page blob, by copy; update; delete.

Sources, unless a rule says otherwise: the specification DiskRP.json (Microsoft.Compute), Azure docs
"Upload a VHD to Azure or copy a managed disk" (disks-upload-vhd-to-managed-disk-cli).
"""

from __future__ import annotations

import copy
import re
import uuid
from typing import Any

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.operations import now
from tests.azuresim.arm.refusals import conflict, fixed, location_conflict, missing
from tests.azuresim.arm.store import Resource
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.compute.access import outstanding
from tests.azuresim.compute.diskfiles import FOOTER, GIB, MIB
from tests.azuresim.compute.operations import idle, later
from tests.azuresim.compute.sizes import DISK_TYPES
from tests.azuresim.compute.state import DISKS, UPLOADING, Compute, compute

NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")
"""Source: "Naming rules and restrictions for Azure resources", Microsoft.Compute disks: 1-80, letters, digits,
underscores, periods and hyphens, beginning with a letter or digit, ending with one or an underscore."""
UPLOAD_BYTES = (20972032, 35183298347520)
"""Source: description of CreationData.uploadSizeBytes: 20 MiB + 512 to 32 TiB + 512 bytes, footer included."""
FIXED = ("createOption", "sourceUri", "sourceResourceId", "storageAccountId", "uploadSizeBytes")


def put(call: Call) -> Reply | Later:
    if not NAME.fullmatch(call.args["disk"]):
        # the code of this refusal is [inf]
        raise ArmError(
            400,
            "InvalidParameter",
            f"The value of parameter disk.name is invalid: '{call.args['disk']}'.",
            target="disk.name",
        )
    check_tags(call.body.get("tags"))
    if call.sim.store.get(call.path) is not None:
        return _change(call, call.body)
    return create(call, call.path, call.body)


def create(call: Call, disk_id: str, body: dict[str, Any]) -> Later:
    """Make a disk; also what a machine's own new data disks go through. Raises ArmError."""
    state = compute(call.sim)
    given = {name: value for name, value in body.items() if value is not None}
    properties = {name: value for name, value in (given.get("properties") or {}).items() if value is not None}
    kind = (given.get("sku") or {}).get("name") or "Standard_LRS"
    given["location"] = call.sim.check_location(given["location"], DISKS)
    _check_kind(state, kind, given.get("zones"))
    creation = dict(properties.get("creationData") or {})
    size, fill = _content(call, state, disk_id, creation, properties)
    disk = Resource(disk_id, DISKS, _body(call, disk_id, given, properties, kind, size))
    disk.properties["diskState"] = "ReadyToUpload" if creation["createOption"] == "Upload" else "Unattached"
    disk.hidden["asked"] = {"properties": dict(properties), "sku": kind}
    call.sim.store.put(disk)
    fill()
    disk.properties["provisioningState"] = "Creating"

    def finish() -> dict[str, Any]:
        disk.properties["provisioningState"] = "Succeeded"
        return disk.body

    def failed(error: ArmError) -> None:
        disk.properties["provisioningState"] = "Failed"

    return later(call, finish, disk, failed=failed, body=disk.body)


def _check_kind(state: Compute, kind: str, zones: Any) -> None:
    """Source: common VM errors, InvalidAccountType; that a disk has one zone: Disk.zones in the specification [inf]."""
    if kind not in DISK_TYPES or kind not in state.disk_types:
        raise ArmError(400, "InvalidAccountType", f"The AccountType {kind} is invalid.", target="sku.name")
    if zones and len(zones) > 1:
        raise ArmError(400, "InvalidParameter", "Only one zone can be specified for a disk.", target="zones")


def _content(
    call: Call, state: Compute, disk_id: str, creation: dict[str, Any], properties: dict[str, Any]
) -> tuple[int, Any]:
    """Size in bytes and what fills the disk, by creationData.createOption.

    Source of what each needs: descriptions of CreationData and of diskSizeGB ("If creationData.createOption is Empty,
    this field is mandatory").
    """
    option = creation.get("createOption")
    asked = int(properties.get("diskSizeGB") or 0) * GIB
    if option == "Empty":
        if not asked:
            raise missing("disk.properties.diskSizeGB")
        return asked, lambda: state.files.create(disk_id, asked)
    if option == "Upload":
        size = _upload_size(creation)
        return size - FOOTER, lambda: state.files.create(disk_id, size)
    if option == "Copy":
        source = call.sim.store.get(creation.get("sourceResourceId") or "")
        if source is None or source.kind.lower() != DISKS.lower():
            raise ArmError(
                404, "ResourceNotFound", f"The source resource '{creation.get('sourceResourceId')}' was not found."
            )
        call.require("Microsoft.Compute/disks/beginGetAccess/action", source.id)
        if source.properties["diskState"] in UPLOADING:
            raise conflict(
                f"Disk {source.name} cannot be copied while it is in state {source.properties['diskState']}."
            )
        size = max(asked, int(source.properties["diskSizeBytes"]))
        return size, lambda: state.files.copy(source.id, disk_id, size)
    if option == "Import":
        return _import(call, state, disk_id, creation, asked)
    raise ArmError(
        400, "InvalidParameter", f"The createOption '{option}' is not one that this simulator knows.",
        target="disk.properties.creationData.createOption",
    )  # fmt: skip


def _upload_size(creation: dict[str, Any]) -> int:
    size = int(creation.get("uploadSizeBytes") or 0)
    if not size:
        raise missing("disk.properties.creationData.uploadSizeBytes")
    least, most = UPLOAD_BYTES
    if not least <= size <= most or (size - FOOTER) % MIB:
        # that what precedes the footer is a whole number of MiB is [inf] for uploads; it is documented for VHDs
        # ("Prepare a Windows VHD to upload to Azure": the virtual size must be a multiple of 1 MiB)
        raise ArmError(
            400, "InvalidParameter", f"The value of parameter uploadSizeBytes is invalid: {size}. It must be a "
            f"multiple of "
            f"1 MiB and the {FOOTER} bytes of the VHD footer, between {least} and {most}.",
            target="disk.properties.creationData.uploadSizeBytes",
        )  # fmt: skip
    return size


def _import(call: Call, state: Compute, disk_id: str, creation: dict[str, Any], asked: int) -> tuple[int, Any]:
    """The account is named when it is in another subscription (source: the specification's examples
    Disk_Create_ByImportingBlob...; the description of storageAccountId says "required" without that difference)."""
    if not creation.get("sourceUri"):
        raise missing("disk.properties.creationData.sourceUri")
    reader = call.sim.parts["storage"].blob(creation.get("storageAccountId"), creation["sourceUri"])
    size = max(asked, reader.size - FOOTER)

    def fill() -> None:
        path = state.files.create(disk_id, reader.size)
        reader.into(path)
        try:
            state.files.finish_upload(disk_id, reader.size, creation["sourceUri"])
        except ArmError:
            state.files.remove(disk_id)
            call.sim.store.remove(disk_id)
            raise
        state.files.resize(disk_id, size)

    return size, fill


def _body(
    call: Call, disk_id: str, given: dict[str, Any], properties: dict[str, Any], kind: str, size: int
) -> dict[str, Any]:
    extra = {name: given[name] for name in ("tags", "zones", "extendedLocation") if given.get(name)}
    return {
        "id": disk_id, "name": disk_id.rpartition("/")[2], "type": DISKS, "location": given["location"], **extra,
        "sku": {"name": kind, "tier": DISK_TYPES[kind]},
        "properties": {
            **properties, "diskSizeGB": -(-size // GIB), "diskSizeBytes": size, "timeCreated": now(),
            "uniqueId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{disk_id.lower()} {now()}")),
            "encryption": properties.get("encryption") or {"type": "EncryptionAtRestWithPlatformKey"},
            "networkAccessPolicy": properties.get("networkAccessPolicy") or "AllowAll",
            "publicNetworkAccess": properties.get("publicNetworkAccess") or "Enabled", "provisioningState": "Updating",
        },
    }  # fmt: skip


def _change(call: Call, body: dict[str, Any]) -> Later:
    """A PUT on a disk that exists. Source of code and wording: PropertyChangeNotAllowed as in Azure/azure-sdk-for-net
    issue 37285."""
    disk = call.sim.store.need(call.path)
    idle(call, disk, same=body.get("properties"))
    wanted, known = body.get("properties") or {}, disk.hidden["asked"]["properties"]
    for name in FIXED:
        given = (wanted.get("creationData") or {}).get(name)
        if given is not None and given != (known.get("creationData") or {}).get(name):
            raise fixed(f"creationData.{name}")
    for name in ("osType", "hyperVGeneration"):
        if wanted.get(name) is not None and known.get(name) is not None and wanted[name] != known[name]:
            raise fixed(name)
    if call.sim.check_location(body["location"], DISKS) != disk.body["location"]:
        raise location_conflict(disk, body["location"])
    if (body.get("zones") or []) != (disk.body.get("zones") or []):
        raise fixed("zones")
    return _update(call, disk, wanted, (body.get("sku") or {}).get("name"), {"tags": body.get("tags")})


def patch(call: Call) -> Later:
    disk = call.sim.store.need(call.path)
    idle(call, disk)
    tags = {"tags": call.body["tags"]} if call.body.get("tags") is not None else {}
    check_tags(tags.get("tags"))
    return _update(call, disk, call.body.get("properties") or {}, (call.body.get("sku") or {}).get("name"), tags)


def _update(call: Call, disk: Resource, wanted: dict[str, Any], kind: str | None, tags: dict[str, Any]) -> Later:
    state, owner = compute(call.sim), compute(call.sim).owner(disk)
    running = owner is not None and state.power.get(owner.id.lower()) != "deallocated"
    size = int(wanted.get("diskSizeGB") or 0) * GIB
    now_size = int(disk.properties["diskSizeBytes"])
    if size and size < now_size and wanted["diskSizeGB"] != disk.properties["diskSizeGB"]:
        # source: Azure docs "Expand virtual hard disks": shrinking a disk is not supported
        raise ArmError(
            400, "InvalidParameter", "Reducing disk size is not supported.", target="disk.properties.diskSizeGB"
        )
    if size > now_size:
        if disk.properties["diskState"] == "ActiveSAS":
            # source: Azure docs troubleshooting "disk resize blocked by an active SAS URI"
            raise ArmError(
                409, "ChangeDiskSizeWhileActiveSasNotAllowed",
                f"The disk {disk.name} has an active SAS URI. Retry after the SAS URI expires or revoke it.",
            )  # fmt: skip
        if running and disk.properties.get("osType"):
            # source: common VM errors, Conflict
            raise conflict("Disk resizing is allowed only when creating a VM or when the VM is deallocated.")
    if kind and kind != disk.body["sku"]["name"]:
        _check_kind(state, kind, disk.body.get("zones"))
        if running:
            # source: Azure docs "Convert managed disks": the machine must be deallocated
            raise conflict(f"Cannot change the type of disk {disk.name} while it is attached to a running VM.")

    def finish() -> dict[str, Any]:
        if size > now_size:
            state.files.resize(disk.id, size)
            disk.properties.update(diskSizeBytes=size, diskSizeGB=size // GIB)
        if kind:
            disk.body["sku"] = {"name": kind, "tier": DISK_TYPES[kind]}
        for name, value in tags.items():
            disk.body[name] = value or {}
        settled = {"creationData", "diskSizeGB", "osType", "hyperVGeneration"}
        disk.properties.update({name: one for name, one in wanted.items() if one is not None and name not in settled})
        disk.properties["provisioningState"] = "Succeeded"
        return disk.body

    def failed(error: ArmError) -> None:
        disk.properties["provisioningState"] = "Failed"

    if disk.properties["provisioningState"] != "Creating":
        disk.properties["provisioningState"] = "Updating"
    return later(call, finish, disk, failed=failed, body=copy.deepcopy(disk.body))


def get(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)


def list_in_group(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(DISKS, call.group_id)]})


def list_all(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(DISKS)]})


def delete(call: Call) -> Reply | Later:
    disk = call.sim.store.get(call.path)
    if disk is None:
        return Reply(status=204)
    idle(call, disk)
    if disk.body.get("managedBy"):
        # source of code and wording: ansible/ansible pull request 54644 (the answer to deleting an attached disk)
        raise ArmError(409, "OperationNotAllowed", f"Disk {disk.name} is attached to VM {disk.body['managedBy']}.")
    if disk.properties["diskState"] == "ActiveSAS":
        raise outstanding(disk)
    disk.properties["provisioningState"] = "Deleting"

    def finish() -> None:
        compute(call.sim).files.remove(disk.id)
        call.sim.store.remove(disk.id)

    return later(call, finish, disk, failed=lambda error: disk.properties.update(provisioningState="Failed"))
