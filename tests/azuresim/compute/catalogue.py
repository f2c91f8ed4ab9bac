"""Sizes, their restrictions, and usage against quota: what a check asks before anything is made."""

from __future__ import annotations

from typing import Any

from tests.azuresim.arm.call import Call, Reply
from tests.azuresim.compute.sizes import DISK_TYPES, Size
from tests.azuresim.compute.state import compute


def skus(call: Call) -> Reply:
    """Microsoft.Compute/skus: sizes and disk types. `$filter=location eq 'x'` is the only filter
    (ResourceSkus_List)."""
    state, region = compute(call.sim), call.sim.region
    wanted = call.query.get("$filter", "")
    if wanted and f"'{region}'" not in wanted.lower():
        return Reply({"value": []})
    found = [one.sku(region, _restrictions(call, one)) for one in state.sizes.values()]
    for kind in sorted(state.disk_types):
        found.append(
            {
                "resourceType": "disks", "name": kind, "tier": DISK_TYPES[kind], "locations": [region],
                "locationInfo": [{"location": region, "zones": ["1", "2", "3"], "zoneDetails": []}],
                "capabilities": [{"name": "MaxSizeGiB", "value": "32767"}], "restrictions": [],
            }
        )  # fmt: skip
    return Reply({"value": found})


def _restrictions(call: Call, size: Size) -> list[dict[str, Any]]:
    reason = compute(call.sim).restricted.get(size.name.lower())
    if reason is None:
        return []
    region = call.sim.region
    return [{"type": "Location", "values": [region], "restrictionInfo": {"locations": [region]}, "reasonCode": reason}]


def usages(call: Call) -> Reply:
    """Usage_List. The limits of families that no test set are `family_limit`."""
    state = compute(call.sim)
    used = state.usage()
    names = {
        "availabilitySets": "Availability Sets", "cores": "Total Regional vCPUs", "virtualMachines": "Virtual Machines",
    }  # fmt: skip
    for size in state.sizes.values():
        names.setdefault(size.family, f"{size.family} vCPUs")
    found = [
        {
            "unit": "Count", "currentValue": used.get(name, 0),
            "limit": 2500 if name == "availabilitySets" else state.limit(name),
            "name": {"value": name, "localizedValue": shown},
        }
        for name, shown in names.items()
    ]  # fmt: skip
    return Reply({"value": found})


def sizes(call: Call) -> Reply:
    state = compute(call.sim)
    return Reply({"value": [_size(one) for one in state.sizes.values()]})


def sizes_of_machine(call: Call) -> Reply:
    call.sim.store.need(call.path.rpartition("/")[0])
    return sizes(call)


def _size(size: Size) -> dict[str, Any]:
    return {
        "name": size.name, "numberOfCores": size.cores, "osDiskSizeInMB": 1047552,
        "resourceDiskSizeInMB": size.temporary_gib * 1024, "memoryInMB": int(size.memory_gib * 1024),
        "maxDataDiskCount": size.max_disks,
    }  # fmt: skip
