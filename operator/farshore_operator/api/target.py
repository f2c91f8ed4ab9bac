"""What a machine becomes on the other side, said once for a whole site or machine by machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule
from farshore_operator.api.resource import Model, Reference
from farshore_operator.api.values import Quantity, Word

Tags = Annotated[
    dict[Annotated[str, Field(max_length=512)], Annotated[str, Field(max_length=256)]], Field(max_length=50)
]


class DiskType(StrEnum):
    """The kinds of managed disk."""

    STANDARD_HDD = "Standard_LRS"
    STANDARD_SSD = "StandardSSD_LRS"
    PREMIUM_SSD = "Premium_LRS"
    PREMIUM_SSD_V2 = "PremiumV2_LRS"
    ULTRA = "UltraSSD_LRS"


class TargetDefaults(Model):
    """What recovered machines become, unless the machine itself says otherwise."""

    resource_group: Word | None = None
    """Resource group of the recovered machines. Default: the site's. Not used by provider `local`."""
    size: Word | None = None
    """Size of the recovered machines, such as Standard_D2s_v5. Default: the smallest that fits the source machine. Not
    used by provider `local`."""
    cpus: Annotated[int, Field(ge=1, le=256)] | None = None
    """Number of CPUs. Default: as many as the source machine has. Used by provider `local` only."""
    memory: Quantity | None = None
    """Memory, such as 2Gi. Default: as much as the source machine has. Used by provider `local` only."""
    network: Word | None = None
    """Network that recovered machines join in a failover: a virtual network's name or resource ID, or, for provider
    `local`, a network of the process server's host. Default: the provider's own."""
    subnet: Word | None = None
    """Subnet of the network. Default: its first one. Not used by provider `local`."""
    availability_set: Word | None = None
    """Availability set that recovered machines join. Default: none. Not used by provider `local`."""
    zone: Word | None = None
    """Availability zone of recovered machines, such as 1; not together with an availability set. Default: none. Used by
    provider `azure` only."""
    disk_type: DiskType | None = None
    """Kind of managed disk. Default: StandardSSD_LRS. Not used by provider `local`."""
    warm_replica: bool | None = None
    """Whether a copy of the disks is kept near the newest recovery point at the recovery site, in the storage account
    of Site spec.azure.replicas, so that a failover moves little. It costs the storage of the disks. Default: false.
    Used by provider `azure` only."""
    tags: Tags | None = None
    """Tags of everything that is made for a recovered machine. Default: none."""


class Interface(Model):
    """One network interface of a recovered machine."""

    rules = (
        Rule(
            "!has(self.privateIP) || isIP(self.privateIP)",
            "privateIP of an interface must be an IP address, such as 10.1.0.4; leave it out to get a free one of the "
            "subnet",
            path=".privateIP",
        ),
    )

    subnet: Word | None = None
    """Subnet of the network. Default: target.subnet."""
    private_ip: Annotated[str, Field(max_length=45)] | None = None
    """Private IP address after a failover (a drill always gets a free one). Default: a free address of the subnet."""
    primary: bool | None = None
    """Whether the machine answers at this interface, and its default route leads there. Default: true for the first
    one if no other is primary."""


class Target(TargetDefaults):
    """What one machine becomes; fields that are absent come from its site's `defaults`."""

    rules = (
        Rule(
            "!has(self.privateIP) || isIP(self.privateIP)",
            "target.privateIP must be an IP address, such as 10.1.0.4; leave it out to get a free one of the subnet",
            "'target.privateIP \"' + self.privateIP + '\" is not an IP address; write one such as 10.1.0.4, "
            "or leave it out to get a free one of the subnet'",
            ".privateIP",
        ),
        Rule(
            "!has(self.interfaces) || size(self.interfaces) == 0 || !has(self.privateIP)",
            "target.privateIP is the short form for one interface: with target.interfaces write it there",
            path=".privateIP",
        ),
        Rule(
            "!has(self.interfaces) || self.interfaces.filter(i, has(i.primary) && i.primary).size() <= 1",
            "only one of target.interfaces can be primary",
            path=".interfaces",
        ),
        Rule(
            "!has(self.interfaces) || self.interfaces.all(i, !has(i.privateIP) || "
            "self.interfaces.filter(j, has(j.privateIP) && j.privateIP == i.privateIP).size() == 1)",
            "two of target.interfaces have the same privateIP: give each its own, or leave it out",
            path=".interfaces",
        ),
    )

    site_ref: Reference
    """Site where the machine runs after a failover."""
    name: Annotated[str, Field(max_length=64)] | None = None
    """Name of the recovered machine. Default: the name of the ProtectedVM."""
    private_ip: Annotated[str, Field(max_length=45)] | None = None
    """Private IP address of the recovered machine after a failover (a drill always gets a free one). Default: a free
    address of the subnet."""
    interfaces: Annotated[tuple[Interface, ...], Field(max_length=8)] = ()
    """Network interfaces of the recovered machine in their order, all in one virtual network. Default: one, as subnet
    and privateIP say. Used by provider `azure` with engine `native` only."""
