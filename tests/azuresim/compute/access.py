"""Shared access to a disk's bytes: granting ends in a URL of the data plane, revoking ends an upload.

Sources, unless a rule says otherwise: DiskRP.json and Azure docs "Upload a VHD to Azure or copy a managed disk".
"""

from __future__ import annotations

from typing import Any

from azure.mgmt.compute import models
from tests.azuresim.arm.call import Call, Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.refusals import conflict
from tests.azuresim.arm.store import Resource
from tests.azuresim.compute.operations import idle, later
from tests.azuresim.compute.state import UPLOADING, compute

LONGEST_ACCESS = 60 * 24 * 3600
"""Seconds. Source: Azure docs, "Securely import/export managed disks": a disk's SAS lives at most 60 days."""


def grant(call: Call) -> Later:
    disk = call.sim.store.need(call.resource_id)
    idle(call, disk)
    access, seconds = str(call.body["access"]).capitalize(), int(call.body["durationInSeconds"])
    if not 0 < seconds <= LONGEST_ACCESS:
        raise ArmError(
            400, "InvalidParameter", f"The value of parameter durationInSeconds is invalid: {seconds}.",
            target="durationInSeconds",
        )  # fmt: skip
    check_access(call, disk, access)

    def finish() -> dict[str, Any]:
        found = compute(call.sim).files
        path, query = found.grant(disk.id, access == "Write", seconds)
        disk.properties["diskState"] = "ActiveUpload" if access == "Write" else "ActiveSAS"
        return {"accessSAS": f"{call.sim.parts['blobs'].url}{path}?{query}"}

    return later(call, finish, disk, result_model=models.AccessUri)


def check_access(call: Call, disk: Resource, access: str) -> None:
    """Refuse what cannot be granted in the disk's state."""
    state, owner = disk.properties["diskState"], compute(call.sim).owner(disk)
    if disk.properties.get("networkAccessPolicy") == "DenyAll":
        # source of the rule: NetworkAccessPolicy, "DenyAll: the disk cannot be exported"; code and words [inf]
        raise conflict(f"Access to disk {disk.name} is denied by its network access policy DenyAll.")
    if owner is not None and compute(call.sim).power.get(owner.id.lower()) != "deallocated":
        # source of code and wording: microsoft/AzureStorageExplorer issue 6654
        raise conflict(f"Access not permitted because disk {disk.name} is currently attached to running VM {owner.id}.")
    if access == "Write" and state not in UPLOADING:
        # DiskState: "ReadyToUpload: a disk is ready to be created by upload by requesting a write token"; the wording
        # of
        # the refusal in any other state is [inf]
        raise ArmError(
            409, "OperationNotAllowed", f"Write access to disk {disk.name} is not permitted in state {state}: only a "
            f"disk "
            "created with createOption Upload that is in state ReadyToUpload or ActiveUpload can be written.",
        )  # fmt: skip
    if access != "Write" and state in UPLOADING:
        # [inf]: there is nothing to read before the upload has been ended by revoking access
        raise ArmError(
            409, "OperationNotAllowed", f"Read access to disk {disk.name} is not permitted in state {state}."
        )
    if access == "None":
        raise ArmError(400, "InvalidParameter", "The value of parameter access is invalid: None.", target="access")


def revoke(call: Call) -> Later:
    """Ends the upload: only now is the footer looked at (microsoft/AzureStorageExplorer issue 6654)."""
    disk = call.sim.store.need(call.resource_id)
    idle(call, disk)
    state = compute(call.sim)

    def finish() -> None:
        if disk.properties["diskState"] == "ActiveUpload":
            size = int(disk.hidden["asked"]["properties"]["creationData"]["uploadSizeBytes"])
            state.files.finish_upload(disk.id, size, disk.name)
            disk.properties["diskState"] = "Unattached"
        elif disk.properties["diskState"] == "ActiveSAS":
            disk.properties["diskState"] = "Reserved" if disk.body.get("managedBy") else "Unattached"
        state.files.revoke(disk.id)

    return later(call, finish, disk)


def outstanding(disk: Resource) -> ArmError:
    """Source of the sentence: Azure docs "Download a Windows VHD"; that deleting is refused with it too is [inf]."""
    return ArmError(
        409, "OperationNotAllowed", f"There is an active shared access signature outstanding for disk {disk.name}. "
        f"Call "
        "EndGetAccess before attaching or deleting the disk.",
    )  # fmt: skip
