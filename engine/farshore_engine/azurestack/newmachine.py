"""A machine in the same place as one that is gone: new disks, the old interface or one like it, the same name.

What it makes has names and tags that follow from machine and run, so that a repeated step finds what it made.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farshore_engine.azurestack.definition import Definition
from farshore_engine.azurestack.machine import GIB, SYSTEM_LUN, AttachedDisk, read_nic
from farshore_engine.azurestack.machines import NICS, Machines
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.site import CloudTarget
from farshore_engine.vault.records import PointDisk

DISKS = "Microsoft.Compute/disks"
NETWORKS = "Microsoft.Network/virtualNetworks"
DISK_TYPES = ("Standard_LRS", "Premium_LRS")
"""Source: "Azure Stack Hub managed disks: differences and considerations"."""
MIB = 1 << 20


@dataclass(frozen=True)
class Order:
    """What is to be made.

    Attributes:
        name: of the machine.
        run, machine_id: on record with everything that is made.
        disks: of the point, in its order.
        address: private address that the machine had, empty if that is not known.
    """

    name: str
    run: str
    machine_id: str
    disks: Sequence[PointDisk]
    description: MachineDescription
    target: CloudTarget
    address: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """Tags of everything that is made."""
        return {**self.target.tags, "farshore-run": self.run, "farshore-owner": self.machine_id}

    def label(self, what: str) -> str:
        """Return a name that is the same each time that this run asks for it."""
        short = hashlib.sha256(f"{self.run}/{self.machine_id}/{what}".encode()).hexdigest()[:8]
        return f"{self.name[:50]}-{what}-{short}"


class NewMachine:
    """Makes what a machine needs that is gone. Nothing runs before `Definition` is put.

    Methods raise WaitFault and StopFault as `ResourceManager` does.
    """

    def __init__(self, machines: Machines, order: Order) -> None:
        """Nothing is made yet."""
        self._machines = machines
        self._manager = machines.manager
        self._order = order
        self._site = machines.site
        group = order.target.resource_group or self._site.resource_group
        self._group = f"/subscriptions/{self._site.subscription}/resourceGroups/{group}"

    def define(self) -> Definition:
        """Make disks and interface, and return the definition of the machine that has them."""
        order = self._order
        size = order.target.size or self._smallest()
        nic = self._nic()
        disks = [self._disk(number, disk, lun) for number, (disk, lun) in enumerate(self._placed())]
        system = next(disk for disk in disks if disk.system)
        properties: dict[str, Any] = {
            "hardwareProfile": {"vmSize": size},
            "storageProfile": {
                "osDisk": {"osType": "Linux", "createOption": "Attach", "managedDisk": {"id": system.id}},
                "dataDisks": [
                    {"lun": disk.lun, "createOption": "Attach", "managedDisk": {"id": disk.id}}
                    for disk in disks
                    if not disk.system
                ],
            },
            "networkProfile": {"networkInterfaces": [{"id": nic, "properties": {"primary": True}}]},
        }
        if wanted := order.target.availability_set:
            named = f"{self._group}/providers/Microsoft.Compute/availabilitySets/{wanted}"
            properties["availabilitySet"] = {"id": wanted if wanted.startswith("/") else named}
        machine = f"{self._group}/providers/Microsoft.Compute/virtualMachines/{order.name}"
        return Definition(machine, {"location": self._site.region, "tags": order.tags, "properties": properties})

    def _placed(self) -> list[tuple[PointDisk, int]]:
        """Return the disks with their places: the first that boots is the system's, the others get LUNs in order."""
        order = self._order
        bootable = {disk.id for disk in order.description.disks if disk.bootable}
        first = next((disk for disk in order.disks if disk.id in bootable), order.disks[0])
        others = [disk for disk in order.disks if disk.id != first.id]
        luns = {first.id: SYSTEM_LUN} | {disk.id: lun for lun, disk in enumerate(others)}
        return [(disk, luns[disk.id]) for disk in order.disks]

    def _disk(self, number: int, disk: PointDisk, lun: int) -> AttachedDisk:
        name = self._order.label(f"disk{number}")
        path = f"{self._group}/providers/{DISKS}/{name}"
        if self._manager.find(path) is None:
            kind = self._order.target.disk_type
            properties: dict[str, Any] = {
                "creationData": {"createOption": "Empty"},
                "diskSizeGB": max(1, -(-disk.size_bytes // GIB)),
            }
            if lun == SYSTEM_LUN:
                properties["osType"] = "Linux"
            sku = {"name": kind if kind in DISK_TYPES else DISK_TYPES[0]}
            body = {"location": self._site.region, "tags": self._order.tags, "sku": sku, "properties": properties}
            self._manager.put(path, body)
        return AttachedDisk(name, lun, path)

    def _nic(self) -> str:
        """Return the interface: one that is free and has the address, else a new one."""
        address = self._order.target.private_ip or self._order.address
        for body in self._manager.all(f"/subscriptions/{self._site.subscription}/providers/{NICS}"):
            used = (body.get("properties") or {}).get("virtualMachine")
            if address and address in read_nic(body).addresses and not used:
                return str(body["id"])
        path = f"{self._group}/providers/{NICS}/{self._order.label('nic')}"
        if self._manager.find(path) is None:
            subnet, prefix = self._subnet()
            inside = bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(prefix, strict=False)
            how = {"privateIPAllocationMethod": "Static", "privateIPAddress": address} if inside else {}
            properties = {"subnet": {"id": subnet}, **how}
            configuration = {"name": "ipconfig1", "properties": properties}
            body = {"location": self._site.region, "tags": self._order.tags}
            self._manager.put(path, {**body, "properties": {"ipConfigurations": [configuration]}})
        return path

    def _subnet(self) -> tuple[str, str]:
        """Return id and address range of the subnet that the target names, else of the first of the only network."""
        target = self._order.target
        networks = list(self._manager.all(f"/subscriptions/{self._site.subscription}/providers/{NETWORKS}"))
        named = [one for one in networks if target.network.lower() in (str(one["id"]).lower(), one["name"].lower())]
        chosen = named if target.network else networks
        if len(chosen) != 1:
            known = ", ".join(sorted(str(one["name"]) for one in networks)) or "none"
            raise StopFault(
                f"there is no single virtual network {target.network or 'in the subscription'}; it has {known}",
                "Set spec.defaults.network and spec.defaults.subnet of the Site",
                reason="NoNetwork",
            )
        subnets = chosen[0]["properties"].get("subnets") or []
        fitting = [one for one in subnets if not target.subnet or one["name"].lower() == target.subnet.lower()]
        if not fitting:
            raise StopFault(
                f"virtual network {chosen[0]['name']} has no subnet {target.subnet}",
                "Correct spec.defaults.subnet of the Site",
                reason="NoNetwork",
            )
        return str(fitting[0]["id"]), str(fitting[0]["properties"]["addressPrefix"])

    def _smallest(self) -> str:
        """Return the smallest size of the region that has what the machine had and takes its disks."""
        had, data = self._order.description, len(self._order.disks) - 1
        path = f"/subscriptions/{self._site.subscription}/providers/Microsoft.Compute/locations/{self._site.region}"
        fitting = [
            (one["numberOfCores"], one["memoryInMB"], one["name"])
            for one in self._manager.all(f"{path}/vmSizes")
            if one["numberOfCores"] >= had.cpus
            and one["memoryInMB"] * MIB >= had.memory_bytes
            and one["maxDataDiskCount"] >= data
        ]
        if not fitting:
            raise StopFault(
                f"no size of the Hub has {had.cpus} cores, {had.memory_bytes // MIB} MiB, and takes {data} data disks",
                "Set spec.target.size of the machine, or spec.defaults.size of the Site",
                reason="NoSize",
            )
        return str(min(fitting)[2])
