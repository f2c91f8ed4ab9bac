"""Which sizes a machine could get: the one that was asked for, else the smallest that fits, then alternatives."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from farshore_engine.azure.cloud import Cloud, plain
from farshore_engine.contract.faults import StopFault

GENERAL = re.compile(r"^Standard_(B|D|E|F)(\d+)([a-z]*)(?:_v(\d+))?$")
"""Series that machines are put on unasked. Confidential (DC, EC), GPU, storage and HPC series are not among them."""
MOST = 6  # sizes that are tried


@dataclass(frozen=True)
class Needs:
    """What a size must have. `generation` is V1 or V2; memory in MiB, 0 for any; `disks` are those of data."""

    cpus: int
    memory_mib: int
    generation: str = "V1"
    disks: int = 0
    premium: bool = False
    zone: str = ""
    nics: int = 1


@dataclass(frozen=True)
class Size:
    """A size of the region."""

    name: str
    family: str
    cpus: int
    memory_mib: int
    disks: int
    generations: frozenset[str]
    premium: bool
    zones: frozenset[str]
    architecture: str
    restricted: str = ""
    closed_zones: frozenset[str] = frozenset()
    nics: int = 1

    def lacks(self, needs: Needs) -> tuple[str, ...]:
        """Return why a machine cannot have this size; nothing if it can."""
        found = []
        if self.restricted:
            found.append(f"it is not available to the subscription in the region ({self.restricted})")
        if needs.zone and (needs.zone not in self.zones or needs.zone in self.closed_zones):
            found.append(f"it is not offered in zone {needs.zone}")
        if needs.generation not in self.generations:
            how = "UEFI (generation 2)" if needs.generation == "V2" else "BIOS (generation 1)"
            found.append(f"it does not boot by {how}")
        if needs.disks > self.disks:
            found.append(f"it takes {self.disks} data disks, and the machine has {needs.disks}")
        if needs.nics > self.nics:
            found.append(f"it takes {self.nics} network interfaces, and the machine has {needs.nics}")
        if needs.premium and not self.premium:
            found.append("it takes no premium disks")
        if self.architecture != "x64":
            found.append(f"its processor is {self.architecture}")
        return tuple(found)


def list_sizes(cloud: Cloud) -> tuple[Size, ...]:
    """Return the sizes that the region has."""
    where = f"location eq '{cloud.site.region}'"
    skus = cloud.all("list the sizes of the region", lambda: cloud.compute.resource_skus.list(filter=where))
    return tuple(_size(sku, cloud.site.region) for sku in skus if sku.resource_type == "virtualMachines")


def choose(sizes: tuple[Size, ...], needs: Needs, asked: str = "") -> tuple[Size, ...]:
    """Return the sizes to try, best first.

    Args:
        asked: the wished size; what follows it has at least as much.

    Raises:
        StopFault: there is none, or the asked one does not fit.
    """
    if asked:
        wished = next((one for one in sizes if one.name.lower() == asked.lower()), None)
        if wished is None:
            raise StopFault(
                f"there is no size {asked} in the region", "Correct target.size, or leave it out", reason="NoSuchSize"
            )
        lacks = [why for why in wished.lacks(needs) if not why.startswith("it is not a")]
        if lacks:
            raise StopFault(
                f"size {asked} does not fit: {'; '.join(lacks)}",
                "Set another target.size, or leave it out",
                reason="BadSize",
            )
        least = replace(needs, cpus=wished.cpus, memory_mib=wished.memory_mib)
        others = [one for one in _fitting(sizes, least) if one != wished]
        return ((wished,) if not wished.lacks(needs) else ()) + tuple(others[: MOST - 1])
    found = _fitting(sizes, needs)
    if not found:
        raise StopFault(
            f"no size of the region has {needs.cpus} CPUs, {needs.memory_mib} MiB, room for {needs.disks} data disks "
            f"and {needs.nics} network interfaces, and boots generation {needs.generation}"
            f"{f' in zone {needs.zone}' if needs.zone else ''}",
            "Set target.size, another zone, fewer CPUs and less memory, or fewer target.interfaces",
            reason="NoFittingSize",
        )
    return tuple(found[:MOST])


def _fitting(sizes: tuple[Size, ...], needs: Needs) -> list[Size]:
    fits = [
        one
        for one in sizes
        if GENERAL.match(one.name)
        and one.cpus >= needs.cpus
        and one.memory_mib >= needs.memory_mib
        and not one.lacks(needs)
    ]
    return sorted(fits, key=_preference)


def _preference(size: Size) -> tuple[object, ...]:
    """Smallest first; of equal ones no burstable one, then the newest generation of the series."""
    found = GENERAL.match(size.name)
    series, version = (found[1], int(found[4] or 1)) if found else ("Z", 0)
    return size.cpus, size.memory_mib, series == "B", -version, len(size.name), size.name


def _size(sku: Any, region: str) -> Size:
    known = {one.name: one.value for one in sku.capabilities or ()}
    zones: set[str] = set()
    for place in sku.location_info or ():
        if str(place.location).lower() == region.lower():
            zones |= set(place.zones or ())
    restricted, closed = "", set()
    for one in sku.restrictions or ():
        if plain(one.type) == "Zone":
            closed |= set((one.restriction_info.zones if one.restriction_info else None) or ())
        else:
            restricted = plain(one.reason_code) or "restricted"
    return Size(
        name=str(sku.name),
        family=str(sku.family),
        cpus=int(known.get("vCPUs", "0")),
        memory_mib=int(float(known.get("MemoryGB", "0")) * 1024),
        disks=int(known.get("MaxDataDiskCount", "0")),
        generations=frozenset(known.get("HyperVGenerations", "V1").split(",")),
        premium=known.get("PremiumIO", "False") == "True",
        zones=frozenset(zones),
        architecture=known.get("CpuArchitectureType", "x64"),
        restricted=restricted,
        closed_zones=frozenset(closed),
        nics=int(known.get("MaxNetworkInterfaces", "1")),
    )
