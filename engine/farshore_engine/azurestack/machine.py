"""A Hub's machines as frozen values, read from what its Resource Manager answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

GIB = 1 << 30
SYSTEM_LUN = -1
"""Stands for the place of the operating system's disk, which has no LUN."""


class PowerState(StrEnum):
    """`PowerState/...` of an instance view. Source: "States and billing of Azure Virtual Machines"."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DEALLOCATING = "deallocating"
    DEALLOCATED = "deallocated"
    UNKNOWN = "unknown"

    @property
    def off(self) -> bool:
        """Whether nothing writes to the disks, and nothing will by itself."""
        return self in (PowerState.STOPPED, PowerState.DEALLOCATED)


@dataclass(frozen=True)
class AttachedDisk:
    """A disk of a machine. Managed: `id`; unmanaged: `uri`, that of the VHD's blob. Size in bytes, 0 while unknown."""

    name: str
    lun: int
    id: str = ""
    uri: str = ""
    size_bytes: int = 0
    caching: str = "None"

    @property
    def system(self) -> bool:
        """Whether it is the disk of the operating system."""
        return self.lun == SYSTEM_LUN


@dataclass(frozen=True)
class Nic:
    """A network interface with its private addresses, the primary one first."""

    id: str
    addresses: tuple[str, ...] = ()
    primary: bool = True
    subnet: str = ""


@dataclass(frozen=True)
class Machine:
    """A virtual machine. `os_name` and `os_version` are what its agent told, empty without one.

    `body` is the resource as it was read; it is what a definition is made of.
    """

    id: str
    name: str
    resource_group: str
    location: str
    size: str
    os_type: str
    disks: tuple[AttachedDisk, ...]
    nics: tuple[Nic, ...]
    power: PowerState = PowerState.UNKNOWN
    provisioning: str = ""
    os_name: str = ""
    os_version: str = ""
    generation: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All private addresses, those of the primary interface first."""
        ordered = sorted(self.nics, key=lambda nic: not nic.primary)
        return tuple(address for nic in ordered for address in nic.addresses)

    @property
    def managed(self) -> bool:
        """Whether its disks are managed disks."""
        return not any(disk.uri for disk in self.disks)


def read_machine(body: Mapping[str, Any], nics: Mapping[str, Nic]) -> Machine:
    """Read a virtual machine, with its instance view where the answer has one. `nics` by their ids in lower case."""
    properties = _of(body, "properties")
    profile, view = _of(properties, "storageProfile"), _of(properties, "instanceView")
    system = _of(profile, "osDisk")
    return Machine(
        id=str(body["id"]),
        name=str(body["name"]),
        resource_group=group_of(str(body["id"])),
        location=str(body.get("location") or ""),
        size=str(_of(properties, "hardwareProfile").get("vmSize") or ""),
        os_type=str(system.get("osType") or "").lower(),
        disks=(_disk(system, SYSTEM_LUN), *(_disk(one, int(one["lun"])) for one in profile.get("dataDisks") or [])),
        nics=_nics(properties, nics),
        power=power_of(view),
        provisioning=str(properties.get("provisioningState") or ""),
        os_name=str(view.get("osName") or ""),
        os_version=str(view.get("osVersion") or ""),
        generation=str(view.get("hyperVGeneration") or ""),
        tags=dict(body.get("tags") or {}),
        body=body,
    )


def read_nic(body: Mapping[str, Any]) -> Nic:
    """Read a network interface."""
    configurations = [_of(one, "properties") for one in _of(body, "properties").get("ipConfigurations") or []]
    configurations.sort(key=lambda one: one.get("primary") is False)
    subnets = [str(_of(one, "subnet").get("id") or "") for one in configurations]
    return Nic(
        id=str(body["id"]),
        addresses=tuple(str(one["privateIPAddress"]) for one in configurations if one.get("privateIPAddress")),
        subnet=subnets[0] if subnets else "",
    )


def power_of(view: Mapping[str, Any]) -> PowerState:
    """Read the power state of an instance view. A state of which nothing is known is `UNKNOWN`."""
    for status in view.get("statuses") or []:
        kind, _, word = str(status.get("code") or "").partition("/")
        if kind == "PowerState" and word in set(PowerState):
            return PowerState(word)
    return PowerState.UNKNOWN


def group_of(resource_id: str) -> str:
    """Return the resource group that an id names, empty for none."""
    segments = resource_id.strip("/").split("/")
    lowered = [one.lower() for one in segments]
    at = lowered.index("resourcegroups") if "resourcegroups" in lowered else len(segments)
    return segments[at + 1] if at + 1 < len(segments) else ""


def _disk(body: Mapping[str, Any], lun: int) -> AttachedDisk:
    return AttachedDisk(
        name=str(body.get("name") or ""),
        lun=lun,
        id=str(_of(body, "managedDisk").get("id") or ""),
        uri=str(_of(body, "vhd").get("uri") or ""),
        size_bytes=int(body.get("diskSizeGB") or 0) * GIB,
        caching=str(body.get("caching") or "None"),
    )


def _nics(properties: Mapping[str, Any], nics: Mapping[str, Nic]) -> tuple[Nic, ...]:
    found = []
    references = _of(properties, "networkProfile").get("networkInterfaces") or []
    for one in references:
        known = nics.get(str(one["id"]).lower()) or Nic(str(one["id"]))
        primary = len(references) == 1 or bool(_of(one, "properties").get("primary"))
        found.append(Nic(known.id, known.addresses, primary, known.subnet))
    return tuple(found)


def _of(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = body.get(name)
    return found if isinstance(found, Mapping) else {}
