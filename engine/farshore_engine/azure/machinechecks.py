"""What a region must have for one machine: a size with quota, its kind of disk, a place, its name; that it boots."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from farshore_engine.azure.cloud import Cloud
from farshore_engine.azure.disks import DEFAULT_TYPE
from farshore_engine.azure.faults import GROW
from farshore_engine.azure.machines import availability_set_id
from farshore_engine.azure.network import group_of
from farshore_engine.azure.place import Place
from farshore_engine.azure.sizes import Needs, Size, choose, list_sizes
from farshore_engine.contract.faults import StopFault

LEGAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
"""Names that Azure takes for a machine with Linux: 64 characters, no underscore, no hyphen or period last."""
FRESH = 600.0  # seconds for which a region's sizes and quotas are believed


@dataclass(frozen=True)
class Wish:
    """A machine that would be recovered. `machine_id` is empty for a look at the site alone."""

    place: Place
    needs: Needs
    bootable: bool = True


def sizes_of(cloud: Cloud) -> tuple[Size, ...]:
    """Return the sizes of the region, as they were seen at most ten minutes ago."""
    found: tuple[Size, ...] = cloud.kept("sizes", FRESH, lambda: list_sizes(cloud))
    return found


def size_there(cloud: Cloud, wish: Wish) -> str:
    """Say which size the machine would get; raises StopFault."""
    chosen = choose(sizes_of(cloud), wish.needs, wish.place.target.size)
    if not chosen:
        raise StopFault(
            f"size {wish.place.target.size} is not available, and there is no other one like it",
            "Set another target.size",
            reason="NoFittingSize",
        )
    behind = f"; if it is not to be had: {', '.join(one.name for one in chosen[1:])}" if chosen[1:] else ""
    return f"{chosen[0].name}{behind}"


def quota_left(cloud: Cloud, wish: Wish) -> str:
    """Say that cores are left for a size that fits; raises StopFault."""
    region = wish.place.site.region
    chosen = choose(sizes_of(cloud), wish.needs, wish.place.target.size)
    left = cores_left(cloud, region)
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


def cores_left(cloud: Cloud, region: str) -> dict[str, int]:
    """Return what is left of each quota of a region, by its name in lower case."""
    usages = cloud.all("ask for quotas", lambda: cloud.compute.usage.list(region))
    return {str(one.name.value).lower(): int(one.limit) - int(one.current_value) for one in usages}


def disk_type_offered(cloud: Cloud, place: Place) -> str:
    """Say that the kind of disk is to be had and boots; raises StopFault."""
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


def availability_fits(cloud: Cloud, place: Place) -> str:
    """Say where the machine would be placed; raises StopFault."""
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


def boots(wish: Wish) -> str:
    """Say which generation the machine is; raises StopFault where it has nothing to boot from."""
    if not wish.bootable:
        raise StopFault(
            "no replicated disk of the machine has a boot loader, so Azure could not start it",
            "Protect the disk that it boots from too",
            reason="NotBootable",
        )
    return "it boots by UEFI: generation 2" if wish.needs.generation == "V2" else "it boots by BIOS: generation 1"


def name_free(cloud: Cloud, place: Place) -> str:
    """Say that the machine's name is legal and free; raises StopFault."""
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
