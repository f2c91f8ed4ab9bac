"""Managed disks of a recovered machine: made to be uploaded to, found again, discarded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farshore_engine.azure.cloud import Cloud, Tell, quiet
from farshore_engine.azure.place import CONTENT, DISK, Place
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.machine import BootMode, MachineDescription
from farshore_engine.hydrate.vhd import FOOTER_SIZE, virtual_size
from farshore_engine.machines.bootable import boot_modes

DEFAULT_TYPE = "StandardSSD_LRS"
LEAST = 20 << 20  # bytes; no smaller disk can be uploaded (CreationData.uploadSizeBytes)
UPLOADING = ("ReadyToUpload", "ActiveUpload")
GIB = 1 << 30


@dataclass(frozen=True)
class CloudDisk:
    """A disk of the point and the managed disk that it becomes.

    Attributes:
        name: of the managed disk.
        vault_id: of the disk in the vault.
        image: the staged disk on this host.
        size: bytes of the managed disk, a whole number of MiB.
        boots: how it boots the machine, None for a disk of data.
        content: what its content is called, where that tells it from the machine's other disks.
    """

    name: str
    vault_id: str
    image: Path
    size: int
    boots: BootMode | None = None
    content: str = ""


def disk_size(size: int) -> int:
    """Return the bytes of the managed disk for a disk of `size` bytes; what is added is zeros."""
    return virtual_size(max(size, LEAST))


def boot_disk(images: tuple[Path, ...], described: MachineDescription) -> tuple[int, BootMode]:
    """Return which of the staged disks boots the machine, and how: as it did, if the disk can.

    Raises:
        StopFault: none boots; Azure runs no machine without a boot loader of its own.
    """
    able = [(number, boot_modes(image)) for number, image in enumerate(images)]
    bootable = [(number, modes) for number, modes in able if modes]
    if not bootable:
        raise StopFault(
            f"none of the disks of {described.hostname or 'the machine'} has a boot loader, so Azure cannot start it",
            "Protect the disk that it boots from, too; what has none of its own is recovered by provider local",
            reason="NotBootable",
        )
    wished = [(number, modes) for number, modes in bootable if described.boot_mode in modes]
    number, modes = (wished or bootable)[0]
    return number, described.boot_mode if described.boot_mode in modes else min(modes)


def find_disk(cloud: Cloud, place: Place, name: str) -> Any:
    """Return the managed disk of that name; None if there is none; raises StopFault if it is not ours."""
    found = cloud.find(f"look for disk {name}", lambda: cloud.compute.disks.get(place.group, name))
    if found is not None:
        place.check_own("disk", found)
    return found


def create_disk(cloud: Cloud, place: Place, disk: CloudDisk, tell: Tell = quiet) -> Any:
    """Make the disk, empty and ready to be uploaded to; it is there when this returns."""
    upload = {"createOption": "Upload", "uploadSizeBytes": disk.size + FOOTER_SIZE}
    return _make(cloud, place, disk, {"creationData": upload, "networkAccessPolicy": "AllowAll"}, tell)


def import_disk(cloud: Cloud, place: Place, disk: CloudDisk, source: str, account: str, tell: Tell = quiet) -> Any:
    """Make the disk of a page blob that is a fixed VHD; it is there, with all its bytes, when this returns.

    Args:
        source: address of the blob, without a signature.
        account: resource id of its storage account, of the same region.
    """
    creation = {"createOption": "Import", "sourceUri": source, "storageAccountId": account}
    return _make(cloud, place, disk, {"creationData": creation}, tell)


def _make(cloud: Cloud, place: Place, disk: CloudDisk, given: dict[str, Any], tell: Tell) -> Any:
    properties = dict(given)
    if disk.boots is not None:
        generation = "V2" if disk.boots is BootMode.UEFI else "V1"
        properties |= {"osType": "Linux", "hyperVGeneration": generation}
    body: dict[str, Any] = {
        "location": place.site.region,
        "tags": {**place.tags, DISK: disk.vault_id, **({CONTENT: disk.content} if disk.content else {})},
        "sku": {"name": place.target.disk_type or DEFAULT_TYPE},
        "properties": properties,
    }
    if place.target.zone:
        body["zones"] = [place.target.zone]
    return cloud.finish(
        f"make disk {disk.name}",
        lambda: cloud.compute.disks.begin_create_or_update(place.group, disk.name, body),
        tell,
    )


def grant_write(cloud: Cloud, group: str, name: str, seconds: int, tell: Tell = quiet) -> str:
    """Return a URL with which the disk can be written for so long. It is a secret."""
    asked = {"access": "Write", "durationInSeconds": seconds}
    answer = cloud.finish(
        f"get access to disk {name}", lambda: cloud.compute.disks.begin_grant_access(group, name, asked), tell
    )
    url = str(answer.access_sas or "") if answer is not None else ""
    if not url:
        raise WaitFault(f"no access was given to disk {name}", "It is tried again", reason="NoAccess")
    return url


def revoke(cloud: Cloud, group: str, name: str, tell: Tell = quiet) -> None:
    """Take all access back, which ends an upload."""
    cloud.finish(f"end the access to disk {name}", lambda: cloud.compute.disks.begin_revoke_access(group, name), tell)


def discard_disk(cloud: Cloud, group: str, name: str, state: str, tell: Tell = quiet) -> None:
    """Delete a disk, whatever access to it was given."""
    if state == "ActiveSAS":
        revoke(cloud, group, name, tell)

    def delete() -> None:
        cloud.gone(f"delete disk {name}", lambda: cloud.compute.disks.begin_delete(group, name), tell)

    try:
        delete()
    except Fault:
        if state != "ActiveUpload":
            raise
        revoke(cloud, group, name, tell)
        delete()
