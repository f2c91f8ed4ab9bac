"""What a machine needs at a site in Azure before it can be recovered there: everything that is missing, at once.

Nothing is changed. What cannot be asked is told as that, with what Azure said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from farshore_engine.azure.cloud import PUBLIC, Cloud
from farshore_engine.azure.disks import DEFAULT_TYPE
from farshore_engine.azure.faults import GROW
from farshore_engine.azure.machines import availability_set_id
from farshore_engine.azure.network import free_addresses, group_of, subnet_of, vnet_of
from farshore_engine.azure.permissions import DRILLS, JOIN, NEEDED, lacking
from farshore_engine.azure.place import Place
from farshore_engine.azure.sizes import Needs, Size, choose, list_sizes
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.replication import Check, CheckResult

PROVIDERS = ("Microsoft.Compute", "Microsoft.Network", "Microsoft.Storage")
LEGAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
"""Names that Azure takes for a machine with Linux: 64 characters, no underscore, no hyphen or period last."""
FRESH = 600.0  # seconds for which a region's sizes and quotas are believed


@dataclass(frozen=True)
class Wish:
    """A machine that would be recovered. `machine_id` is empty for a look at the site alone."""

    place: Place
    needs: Needs
    bootable: bool = True


@dataclass
class _Checklist:
    """Collects what was found, one line for each check."""

    lines: list[Check] = field(default_factory=list)

    def ask(self, name: str, look: Callable[[], str]) -> bool:
        """Add what a look says; a fault is its failure. Returns whether it passed."""
        try:
            said = look()
        except Fault as fault:
            stops = isinstance(fault, StopFault)
            result = CheckResult.ERROR if stops else CheckResult.WARNING
            self.lines.append(Check(name=name, result=result, message=fault.message, remedy=fault.remedy))
            return False
        self.lines.append(Check(name=name, result=CheckResult.PASSED, message=said))
        return True

    def skip(self, names: Sequence[str], because: str) -> None:
        """Add checks that an earlier failure makes pointless."""
        text = f"not checked: {because}"
        self.lines += [Check(name=name, result=CheckResult.SKIPPED, message=text) for name in names]


def check(cloud: Cloud, wish: Wish) -> tuple[Check, ...]:
    """Return the whole checklist; only errors are in the way of a recovery."""
    found, place = _Checklist(), wish.place
    rest = ("ResourceGroup", "ResourceProviders", "Permissions", "Network", "Size", "DiskType", "Name")
    providers: dict[str, str] = {}

    def subscription() -> str:
        providers.update(_providers(cloud))
        return f"subscription {place.site.subscription} answers at {place.site.endpoint or PUBLIC}{_proxy()}"

    if not found.ask("Subscription", subscription):
        found.skip(rest, "Resource Manager does not let us in")
        return tuple(found.lines)
    if not found.ask("ResourceGroup", lambda: _group(cloud, place)):
        found.skip([name for name in rest if name != "ResourceGroup"], "there is no resource group")
        return tuple(found.lines)
    found.ask("ResourceProviders", lambda: _registered(providers))
    found.ask("Permissions", lambda: _permitted(cloud, place))
    if not place.target.isolated:
        found.ask("Network", lambda: _network(cloud, place))
        if place.target.private_ip:
            found.ask("PrivateAddress", lambda: _address(cloud, place))
    if found.ask("Size", lambda: _size(cloud, wish)):
        found.ask("Quota", lambda: _quota(cloud, wish))
    found.ask("DiskType", lambda: _disk_type(cloud, place))
    if place.target.availability_set or place.target.zone:
        found.ask("Availability", lambda: _availability(cloud, place))
    if wish.place.machine_id:
        found.ask("BootLoader", lambda: _boots(wish))
        found.ask("Name", lambda: _name(cloud, place))
    found.ask("StorageAccounts", lambda: _accounts(cloud))
    return tuple(found.lines)


def _providers(cloud: Cloud) -> dict[str, str]:
    found = cloud.all("list resource providers", cloud.resources.providers.list)
    return {str(one.namespace).lower(): str(one.registration_state) for one in found}


def _proxy() -> str:
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    return " through the HTTPS proxy of this host" if proxy else ""


def _registered(states: dict[str, str]) -> str:
    missing = [name for name in PROVIDERS if states.get(name.lower()) not in ("Registered", "Registering")]
    if missing:
        raise StopFault(
            f"the subscription has not registered {', '.join(missing)}",
            f"Register them: {'; '.join(f'az provider register --namespace {name}' for name in missing)}",
            reason="ProviderNotRegistered",
        )
    return f"{', '.join(PROVIDERS)} are registered"


def _group(cloud: Cloud, place: Place) -> str:
    found = cloud.find(
        f"look for resource group {place.group}", lambda: cloud.resources.resource_groups.get(place.group)
    )
    if found is None:
        raise StopFault(
            f"there is no resource group {place.group} in the subscription",
            "Create it, or correct resourceGroup of the site or of the target",
            reason="ResourceGroupNotFound",
        )
    return f"{place.group} is there, in {found.location}"


def _permitted(cloud: Cloud, place: Place) -> str:
    given = cloud.all(
        f"ask for the rights in {place.group}",
        lambda: cloud.authorization.permissions.list_for_resource_group(place.group),
    )
    needed = (*NEEDED, *DRILLS) if place.target.isolated else NEEDED
    missing = lacking(given, needed)
    if missing:
        raise StopFault(
            f"the principal may not, in resource group {place.group}: {', '.join(missing)}",
            "Give it a role with these actions there, such as Contributor, or a custom role",
            reason="AccessRefused",
        )
    return f"the principal may do everything that is needed in {place.group}"


def _network(cloud: Cloud, place: Place) -> str:
    vnet = vnet_of(cloud, place)
    if str(vnet.location).lower() != place.site.region.lower():
        raise StopFault(
            f"virtual network {vnet.name} is in {vnet.location}, and the site's region is {place.site.region}",
            "Name a network of the region in target.network",
            reason="NetworkElsewhere",
        )
    subnet = subnet_of(vnet, place.target.subnet)
    group = group_of(str(vnet.id))
    given = cloud.all(
        f"ask for the rights on {vnet.name}",
        lambda: cloud.authorization.permissions.list_for_resource(
            group, "Microsoft.Network", "", "virtualNetworks", str(vnet.name)
        ),
    )
    missing = lacking(given, JOIN)
    if missing:
        raise StopFault(
            f"the principal may not, on virtual network {vnet.name}: {', '.join(missing)}",
            "Give it a role with these actions there, such as Network Contributor",
            reason="AccessRefused",
        )
    free = free_addresses(subnet)
    if free < 1:
        raise StopFault(
            f"subnet {vnet.name}/{subnet.name} has no free address",
            "Enlarge it, or name another one in target.subnet",
            reason="SubnetFull",
        )
    return (
        f"{vnet.name}/{subnet.name} has {free} free addresses; people and the process server reach machines there by "
        "their private address (peering, ExpressRoute, VPN or Bastion)"
    )


def _address(cloud: Cloud, place: Place) -> str:
    wanted, vnet = place.target.private_ip, vnet_of(cloud, place)
    answer = cloud.ask(
        f"ask for address {wanted}",
        lambda: cloud.network.virtual_networks.check_ip_address_availability(
            group_of(str(vnet.id)), str(vnet.name), ip_address=wanted
        ),
    )
    if not answer.available:
        free = ", ".join(answer.available_ip_addresses or ()) or "none"
        raise StopFault(
            f"address {wanted} is taken in {vnet.name} (free near it: {free})",
            "Free it, set another target.privateIP, or leave it out",
            reason="AddressTaken",
        )
    return f"{wanted} is free"


def _sizes(cloud: Cloud) -> tuple[Size, ...]:
    found: tuple[Size, ...] = cloud.kept("sizes", FRESH, lambda: list_sizes(cloud))
    return found


def _size(cloud: Cloud, wish: Wish) -> str:
    chosen = choose(_sizes(cloud), wish.needs, wish.place.target.size)
    if not chosen:
        raise StopFault(
            f"size {wish.place.target.size} is not available, and there is no other one like it",
            "Set another target.size",
            reason="NoFittingSize",
        )
    behind = f"; if it is not to be had: {', '.join(one.name for one in chosen[1:])}" if chosen[1:] else ""
    return f"{chosen[0].name}{behind}"


def _quota(cloud: Cloud, wish: Wish) -> str:
    region = wish.place.site.region
    chosen = choose(_sizes(cloud), wish.needs, wish.place.target.size)
    usages = cloud.all("ask for quotas", lambda: cloud.compute.usage.list(region))
    left = {str(one.name.value).lower(): int(one.limit) - int(one.current_value) for one in usages}
    short = []
    for size in chosen:
        lacks = [
            f"{left[name]} of {size.cpus} cores are left of the quota {name}"
            for name in ("cores", size.family.lower())
            if left.get(name, size.cpus) < size.cpus
        ]
        if not lacks:
            return f"there is quota for {size.name} ({size.cpus} cores)"
        short += [f"{size.name}: {', '.join(lacks)}"]
    raise StopFault(f"there is no quota for the machine: {'; '.join(short)}", GROW, reason="QuotaExceeded")


def _disk_type(cloud: Cloud, place: Place) -> str:
    wanted, zone = place.target.disk_type or DEFAULT_TYPE, place.target.zone
    where = f"location eq '{place.site.region}'"

    def offered() -> set[str]:
        skus = cloud.all("list disk types", lambda: cloud.compute.resource_skus.list(filter=where))
        return {str(one.name) for one in skus if one.resource_type == "disks"}

    known: set[str] = cloud.kept("disk types", FRESH, offered)
    if wanted not in known:
        raise StopFault(
            f"disk type {wanted} is not offered in {place.site.region} ({', '.join(sorted(known))} are)",
            "Set another target.diskType",
            reason="NoSuchDiskType",
        )
    if wanted in ("UltraSSD_LRS", "PremiumV2_LRS"):
        raise StopFault(
            f"a machine cannot boot from a disk of type {wanted}{'' if zone else ', which needs a zone besides'}",
            "Set target.diskType to Premium_LRS or StandardSSD_LRS",
            reason="BadDiskType",
        )
    return f"{wanted} is offered"


def _availability(cloud: Cloud, place: Place) -> str:
    wanted, zone = place.target.availability_set, place.target.zone
    if wanted and zone:
        raise StopFault(
            "a machine cannot be both in an availability set and in a zone",
            "Remove target.availabilitySet or target.zone",
            reason="SetAndZone",
        )
    if zone:
        return f"zone {zone}"
    group, name = group_of(availability_set_id(place)), availability_set_id(place).rpartition("/")[2]
    found = cloud.find(f"look for availability set {name}", lambda: cloud.compute.availability_sets.get(group, name))
    _check_set(found, place, group, name)
    return f"availability set {name}"


def _check_set(found: Any, place: Place, group: str, name: str) -> None:
    wrong = ""
    if found is None:
        wrong = f"there is no availability set {name} in resource group {group}"
    elif group.lower() != place.group.lower():
        wrong = f"availability set {name} is in {group}, and the machine would be in {place.group}"
    elif str(found.location).lower() != place.site.region.lower():
        wrong = f"availability set {name} is in {found.location}, and the site's region is {place.site.region}"
    elif found.sku is None or found.sku.name != "Aligned":
        wrong = f"availability set {name} takes no managed disks (its SKU is not Aligned)"
    if wrong:
        raise StopFault(wrong, "Correct target.availabilitySet, or create it as Aligned", reason="BadAvailabilitySet")


def _boots(wish: Wish) -> str:
    if not wish.bootable:
        raise StopFault(
            "no replicated disk of the machine has a boot loader, so Azure could not start it",
            "Protect the disk that it boots from too",
            reason="NotBootable",
        )
    return "it boots by UEFI: generation 2" if wish.needs.generation == "V2" else "it boots by BIOS: generation 1"


def _name(cloud: Cloud, place: Place) -> str:
    if not LEGAL.fullmatch(place.name):
        raise StopFault(
            f"{place.name!r} cannot be the name of a machine in Azure: letters, digits and hyphens, 64 at most",
            "Set spec.target.name",
            reason="BadName",
        )
    found = cloud.find(
        f"look for machine {place.name}", lambda: cloud.compute.virtual_machines.get(place.group, place.name)
    )
    if found is not None and not place.is_machines(found):
        raise StopFault(
            f"there is a machine {place.name} in resource group {place.group} that was not recovered from this one",
            "Rename or remove it, or set spec.target.name",
            reason="NameTaken",
        )
    return f"{place.name} is legal and free"


def _accounts(cloud: Cloud) -> str:
    found = cloud.all("list storage accounts", cloud.storage.storage_accounts.list)
    here = [str(one.name) for one in found if str(one.location).lower() == cloud.site.region.lower()]
    return f"of the region: {', '.join(sorted(here)[:10])}" if here else "none in the region; disks need none"
