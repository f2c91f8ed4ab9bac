"""What a machine of a Hub is made of, kept before the machine is taken apart and good for making it again.

It is kept twice: in a file of the process server, and in tags of the machine's primary network interface, which
outlives the machine whatever its disks are. So neither a lost process server nor a lost file loses a machine.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farshore_engine.azurestack.machine import AttachedDisk, Machine, read_machine
from farshore_engine.contract.faults import StopFault

TAG = "farshore-machine"
"""Tag with the name of the machine that is taken apart; its definition is in `farshore-definition-N`."""
PART = "farshore-definition-"
PART_LENGTH = 256
"""Characters of a tag's value. Source: description of `tags` in compute 2020-06-01 and network 2018-11-01."""
MOST_TAGS = 15
"""Tags of a resource. Source: as above."""
TOP = ("location", "tags", "plan", "zones")
INNER = (
    "hardwareProfile",
    "availabilitySet",
    "proximityPlacementGroup",
    "diagnosticsProfile",
    "licenseType",
    "additionalCapabilities",
    "priority",
    "evictionPolicy",
)
"""Properties that a machine on existing disks takes as they are. Not `osProfile`: what it said is on the disk, and
Azure refuses it there. Not `imageReference`, for the same reason."""
DISK = ("name", "caching", "writeAcceleratorEnabled", "vhd")


@dataclass(frozen=True)
class Definition:
    """A machine that can be made again. `body` is what to PUT; `extensions` are lost with the machine, by name."""

    id: str
    body: Mapping[str, Any]
    extensions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the machine."""
        return self.id.rsplit("/", 1)[1]

    @property
    def disks(self) -> tuple[AttachedDisk, ...]:
        """Its disks, that of the system first, the others by LUN."""
        found = read_machine({"id": self.id, "name": self.name, **self.body}, {}).disks
        return tuple(sorted(found, key=lambda disk: disk.lun))

    @property
    def nics(self) -> tuple[str, ...]:
        """Ids of its network interfaces, the primary one first."""
        found = read_machine({"id": self.id, "name": self.name, **self.body}, {}).nics
        return tuple(nic.id for nic in sorted(found, key=lambda nic: not nic.primary))

    def dump(self) -> str:
        """Return it as JSON."""
        known = {"id": self.id, "body": self.body, "extensions": self.extensions}
        return json.dumps(known, separators=(",", ":"), sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Definition:
        """Read what `dump` wrote; raises ValueError or KeyError for anything else."""
        found = json.loads(text)
        return cls(found["id"], found["body"], tuple(found["extensions"]))


def definition_of(machine: Machine) -> Definition:
    """Return what is needed to make this machine again on its own disks and interfaces."""
    properties = machine.body.get("properties") or {}
    profile = properties.get("storageProfile") or {}
    system = profile.get("osDisk") or {}
    kept = {name: properties[name] for name in INNER if properties.get(name)}
    kept["storageProfile"] = {
        "osDisk": {"osType": system.get("osType") or "Linux", **_attached(system)},
        "dataDisks": [{"lun": one["lun"], **_attached(one)} for one in profile.get("dataDisks") or []],
    }
    kept["networkProfile"] = {
        "networkInterfaces": [{"id": nic.id, "properties": {"primary": nic.primary}} for nic in machine.nics]
    }
    body = {name: machine.body[name] for name in TOP if machine.body.get(name)}
    if (kind := (machine.body.get("identity") or {}).get("type")) == "SystemAssigned":
        body["identity"] = {"type": kind}
    extensions = [str(one.get("name") or "") for one in machine.body.get("resources") or []]
    return Definition(machine.id, {**body, "properties": kept}, tuple(one for one in extensions if one))


def to_tags(definition: Definition, others: int) -> dict[str, str]:
    """Return the tags that keep a definition, beside `others` tags that the interface has.

    A machine's own tags are left out where they would not fit: the file has them.

    Raises:
        StopFault: not even so is there room.
    """
    plain = {name: value for name, value in definition.body.items() if name != "tags"}
    for body in (definition.body, plain):
        text = Definition(definition.id, body, definition.extensions).dump()
        packed = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode()
        parts = [packed[at : at + PART_LENGTH] for at in range(0, len(packed), PART_LENGTH)]
        if len(parts) + 1 + others <= MOST_TAGS:
            return {TAG: definition.name, **{f"{PART}{number}": part for number, part in enumerate(parts)}}
    raise StopFault(
        f"the definition of {definition.name} does not fit into the tags of its network interface, which has {others}",
        "Remove tags from the primary network interface; the machine was not touched",
        reason="NoRoomForDefinition",
    )


def from_tags(tags: Mapping[str, str]) -> Definition | None:
    """Read the definition that tags keep, None where there is none or a part of it is missing."""
    parts = [tags[f"{PART}{number}"] for number in range(MOST_TAGS) if f"{PART}{number}" in tags]
    try:
        text = zlib.decompress(base64.urlsafe_b64decode("".join(parts))).decode()
        return Definition.load(text) if parts and TAG in tags else None
    except (ValueError, KeyError, zlib.error):
        return None


def without(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that are not ours."""
    return {name: value for name, value in tags.items() if name != TAG and not name.startswith(PART)}


def _attached(disk: Mapping[str, Any]) -> dict[str, Any]:
    """Return how an existing disk is attached again."""
    found = {name: disk[name] for name in DISK if disk.get(name)}
    if managed := (disk.get("managedDisk") or {}).get("id"):
        found["managedDisk"] = {"id": managed}
    return {"createOption": "Attach", **found}
