"""A machine in the same place as one that is gone: new disks, the old interfaces or ones like them, the same name.

What it makes has names and tags that follow from machine and run, so that a repeated step finds what it made.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farshore_engine.azurestack.definition import Definition
from farshore_engine.azurestack.machine import GIB, SYSTEM_LUN, AttachedDisk, Nic, read_nic
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
        addresses: private addresses that the machine had, one for each interface, the primary one's first; those that
            the Hub's networks do not have are the machine's own affair (bridges of containers).
    """

    name: str
    run: str
    machine_id: str
    disks: Sequence[PointDisk]
    description: MachineDescription
    target: CloudTarget
    addresses: tuple[str, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """Tags of everything that is made."""
        return {**self.target.tags, "farshore-run": self.run, "farshore-owner": self.machine_id}

    def label(self, what: str) -> str:
        """Return a name that is the same each time that this run asks for it."""
        short = hashlib.sha256(f"{self.run}/{self.machine_id}/{what}".encode()).hexdigest()[:8]
        return f"{self.name[:50]}-{what}-{short}"


@dataclass(frozen=True)
class Subnet:
    """A subnet of the Hub with its address range."""

    id: str
    name: str
    prefix: str

    def has(self, address: str) -> bool:
        """Tell whether an address is one of it; no address is none."""
        return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(self.prefix, strict=False)


def _subnets_of(network: Mapping[str, Any]) -> list[Subnet]:
    found = (network.get("properties") or {}).get("subnets") or []
    return [Subnet(str(one["id"]), str(one["name"]), str(one["properties"]["addressPrefix"])) for one in found]


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
        """Make disks and interfaces, and return the definition of the machine that has them."""
        order = self._order
        size = order.target.size or self._smallest()
        nics = self._nics()
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
            "networkProfile": {
                "networkInterfaces": [
                    {"id": nic, "properties": {"primary": number == 0}} for number, nic in enumerate(nics)
                ]
            },
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

    def _nics(self) -> tuple[str, ...]:
        """Return the interfaces, the primary one first: those that are free and have the addresses, else new ones.

        All of a machine's interfaces are in one virtual network, that of the primary one.
        """
        wanted = self._order.addresses or ("",)
        first = self._order.target.private_ip or wanted[0]
        free = {address: nic for nic in self._free() for address in nic.addresses}
        nics: list[str] = []
        subnets: list[Subnet] | None = None
        if first in free:
            nics.append(free[first].id)
            network = free[first].subnet.rpartition("/subnets/")[0]
        else:
            subnets = self._subnets()
            nics.append(self._made(0, *self._home(subnets, first)))
            network = subnets[0].id.rpartition("/subnets/")[0]
        for number, address in enumerate(wanted[1:], 1):
            if address in free and free[address].subnet.lower().startswith(f"{network.lower()}/"):
                nics.append(free[address].id)
                continue
            subnets = self._of_network(network) if subnets is None else subnets
            if (home := next((one for one in subnets if one.has(address)), None)) is not None:
                nics.append(self._made(number, home.id, address))
        return tuple(dict.fromkeys(nics))

    def _free(self) -> list[Nic]:
        """Return the interfaces of the subscription that no machine has."""
        bodies = self._manager.all(f"/subscriptions/{self._site.subscription}/providers/{NICS}")
        return [read_nic(body) for body in bodies if not (body.get("properties") or {}).get("virtualMachine")]

    def _made(self, number: int, subnet: str, address: str) -> str:
        """Make an interface in a subnet, at the address if one is given, or find it."""
        path = f"{self._group}/providers/{NICS}/{self._order.label(f'nic{number or str()}')}"
        if self._manager.find(path) is None:
            properties: dict[str, Any] = {"subnet": {"id": subnet}}
            if address:
                properties |= {"privateIPAllocationMethod": "Static", "privateIPAddress": address}
            configuration = {"name": "ipconfig1", "properties": properties}
            body = {"location": self._site.region, "tags": self._order.tags}
            self._manager.put(path, {**body, "properties": {"ipConfigurations": [configuration]}})
        return path

    def _home(self, subnets: Sequence[Subnet], address: str) -> tuple[str, str]:
        """Return the subnet of the primary interface, and its address there, empty for a free one."""
        named = self._order.target.subnet.lower()
        chosen = next((one for one in subnets if one.name.lower() == named), None)
        chosen = chosen or next((one for one in subnets if one.has(address)), subnets[0])
        return chosen.id, address if chosen.has(address) else ""

    def _of_network(self, network: str) -> list[Subnet]:
        return _subnets_of(self._manager.find(network) or {})

    def _subnets(self) -> list[Subnet]:
        """Return the subnets of the network that the target names, else of the only one."""
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
        subnets = _subnets_of(chosen[0])
        if not subnets or (target.subnet and target.subnet.lower() not in [one.name.lower() for one in subnets]):
            raise StopFault(
                f"virtual network {chosen[0]['name']} has no subnet {target.subnet}",
                "Correct spec.defaults.subnet of the Site",
                reason="NoNetwork",
            )
        return subnets

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
