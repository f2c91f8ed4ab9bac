"""What Microsoft.Compute remembers besides its resources, and what a test may set: sizes, quotas, shortages,
machines' hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.azuresim.arm.store import Resource
from tests.azuresim.compute.diskfiles import DiskFiles
from tests.azuresim.compute.sizes import DISK_TYPES, SIZES, Size
from tests.azuresim.sim import AzureSim

DISKS = "Microsoft.Compute/disks"
MACHINES = "Microsoft.Compute/virtualMachines"
SETS = "Microsoft.Compute/availabilitySets"
UPLOADING = ("ReadyToUpload", "ActiveUpload")


@dataclass(frozen=True)
class Machine:
    """What a test's hook is given when a machine starts: the files behind its disks may be read and written.

    `disks` are (LUN, path), the operating system's disk first with LUN -1. Bytes beyond a file's end do not exist.
    """

    name: str
    id: str
    size: str
    os_disk: Path
    disks: tuple[tuple[int, Path], ...]
    addresses: tuple[str, ...]
    tags: dict[str, str]


@dataclass
class Compute:
    """State of the provider in one simulator: `compute(sim)`."""

    sim: AzureSim
    files: DiskFiles
    sizes: dict[str, Size] = field(default_factory=lambda: {one.name.lower(): one for one in SIZES})
    limits: dict[str, int] = field(default_factory=lambda: {"cores": 100, "virtualMachines": 25000})
    """Quota by name as usages list it; a family that is not here has `family_limit`."""
    family_limit: int = 100
    restricted: dict[str, str] = field(default_factory=dict)
    """Sizes (lower case) that this subscription may not use in the region, with the reason code: QuotaId or
    NotAvailableForSubscription."""
    no_capacity: set[str] = field(default_factory=set)
    """Sizes (lower case) that the region has no room for just now: allocation fails at the end of the operation."""
    disk_types: set[str] = field(default_factory=lambda: set(DISK_TYPES))
    """Disk types that the region offers."""
    on_start: list[Callable[[Machine], None]] = field(default_factory=list)
    """Called with the machine when it has started (not when it was already running)."""
    on_disks: list[Callable[[Machine], None]] = field(default_factory=list)
    """Called when the disks of a machine have changed (attached, detached, swapped), with the machine as it is now: a
    test can show them to the process that plays the machine."""
    power: dict[str, str] = field(default_factory=dict)
    """Power state by lower-case id: running, stopped, deallocated, starting..."""

    # for tests

    def disk_path(self, name: str, group: str = "") -> Path:
        """The file with a disk's bytes (without a VHD footer); sparse."""
        return self.files.path(self.disk(name, group).id)

    def disk_bytes(self, name: str, group: str = "") -> bytes:
        """All bytes of a disk, as long as the disk is."""
        disk = self.disk(name, group)
        with self.files.path(disk.id).open("rb") as file:
            return file.read(int(disk.properties["diskSizeBytes"]))

    def read(self, name: str, offset: int = 0, length: int = 512, group: str = "") -> bytes:
        """Bytes of a disk from `offset`."""
        with self.disk_path(name, group).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def disk(self, name: str, group: str = "") -> Resource:
        """The disk of that name, in whichever group it is unless one is named. Raises KeyError."""
        for one in self.sim.store.of(DISKS):
            if one.name.lower() == name.lower() and group.lower() in ("", one.group.lower()):
                return one
        raise KeyError(f"no disk {name} in {group or 'any group'}")

    def machine(self, name: str, group: str = "") -> Resource:
        for one in self.sim.store.of(MACHINES):
            if one.name.lower() == name.lower() and group.lower() in ("", one.group.lower()):
                return one
        raise KeyError(f"no machine {name} in {group or 'any group'}")

    def power_of(self, name: str) -> str:
        return self.power.get(self.machine(name).id.lower(), "unknown")

    def guest_shuts_down(self, name: str) -> None:
        """The guest powers itself off: Azure then shows it as stopped, still allocated and paid for."""
        self.power[self.machine(name).id.lower()] = "stopped"

    # for handlers

    def size_of(self, machine: Resource) -> Size | None:
        name = (machine.properties.get("hardwareProfile") or {}).get("vmSize", "")
        return self.sizes.get(str(name).lower())

    def attached(self, machine: Resource) -> list[tuple[int, str]]:
        """(LUN, id of the managed disk), the operating system's first with LUN -1."""
        profile = machine.properties.get("storageProfile") or {}
        found = [(-1, profile.get("osDisk") or {}), *((one["lun"], one) for one in profile.get("dataDisks") or [])]
        return [(lun, one["managedDisk"]["id"]) for lun, one in found if (one.get("managedDisk") or {}).get("id")]

    def owner(self, disk: Resource) -> Resource | None:
        owner = disk.body.get("managedBy")
        return self.sim.store.get(owner) if owner else None

    def usage(self) -> dict[str, int]:
        """Cores by family and in all, machines. Deallocated machines count too (source: Azure docs,
        virtual-machines/quotas: "both allocated and deallocated")."""
        found = {"cores": 0, "virtualMachines": 0, "availabilitySets": len(list(self.sim.store.of(SETS)))}
        for machine in self.sim.store.of(MACHINES):
            found["virtualMachines"] += 1
            if size := self.size_of(machine):
                found["cores"] += size.cores
                found[size.family] = found.get(size.family, 0) + size.cores
        return found

    def limit(self, name: str) -> int:
        return self.limits.get(name, self.family_limit)

    def as_machine(self, machine: Resource) -> Machine:
        disks = tuple((lun, self.files.path(disk)) for lun, disk in self.attached(machine))
        profile = machine.properties.get("networkProfile") or {}
        addresses: list[str] = []
        for reference in profile.get("networkInterfaces") or []:
            nic = self.sim.store.get(reference["id"])
            for one in nic.properties.get("ipConfigurations", []) if nic else []:
                addresses.append(one["properties"].get("privateIPAddress", ""))
        size = self.size_of(machine)
        return Machine(
            machine.name, machine.id, size.name if size else "", disks[0][1] if disks else Path(), disks,
            tuple(addresses), dict(machine.tags),
        )  # fmt: skip

    def started(self, machine: Resource) -> None:
        """Let the machine run: the hooks of the test decide what it does."""
        self.power[machine.id.lower()] = "running"
        self.mark_disks(machine, "Attached")
        given = self.as_machine(machine)
        for hook in self.on_start:
            hook(given)

    def mark_disks(self, machine: Resource, state: str) -> None:
        for _, disk_id in self.attached(machine):
            if disk := self.sim.store.get(disk_id):
                disk.body["managedBy"] = machine.id
                if disk.properties["diskState"] != "ActiveSAS":
                    disk.properties["diskState"] = state


def compute(sim: AzureSim) -> Compute:
    found: Any = sim.parts["compute"]
    assert isinstance(found, Compute)
    return found
