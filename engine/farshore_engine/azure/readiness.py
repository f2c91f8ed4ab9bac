"""Whether a machine could be recovered to Azure now: from what its newest point says that it was."""

from __future__ import annotations

from collections.abc import Callable

from farshore_engine.azure.checks import check, check_path, check_ways
from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.machinechecks import Wish
from farshore_engine.azure.place import Place
from farshore_engine.azure.replicas import usable
from farshore_engine.azure.sizes import Needs
from farshore_engine.checklist import Checklist
from farshore_engine.contract.assignment import AzureBlobAccess, RecoveryTarget
from farshore_engine.contract.machine import BootMode, MachineDescription
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.site import CloudSite, CloudTarget

LEAST_MEMORY_MIB = 512


def check_machine(target: RecoveryTarget, described: MachineDescription, disks: int) -> tuple[Check, ...]:
    """Return the checklist of a machine with so many replicated disks; `target.site` is set."""
    return check(cloud_of(target.site), wish_of(target, described, disks))


def wish_of(target: RecoveryTarget, described: MachineDescription, disks: int) -> Wish:
    """Return what a machine with so many replicated disks would be in Azure; `target.site` is set."""
    assert target.site is not None, "the caller asks for machines that go to a cloud"
    wished = target.target or CloudTarget()
    place = place_of(target.site, wished, target.name, target.machine_id)
    return wished_for(place, described, disks, target.memory_mib)


def wished_for(place: Place, described: MachineDescription, disks: int, memory_mib: int | None) -> Wish:
    """Return what a machine would be at a place; `memory_mib` is None for as much as it had."""
    needs = Needs(
        cpus=max(1, described.cpus),
        memory_mib=memory_mib or max(LEAST_MEMORY_MIB, described.memory_bytes >> 20),
        generation="V2" if described.boot_mode is BootMode.UEFI else "V1",
        disks=max(0, disks - 1),
        premium=place.target.disk_type.startswith(("Premium", "Ultra")),
        zone=place.target.zone,
        nics=len(place.target.nics()),
    )
    return Wish(place, needs, any(disk.bootable and disk.replicated for disk in described.disks))


def check_site(
    site: CloudSite, target: CloudTarget, replicas: Callable[[], AzureBlobAccess] | None = None
) -> tuple[Check, ...]:
    """Return the checklist of a site for a small machine with the site's defaults, and how it and they are reached.

    Args:
        replicas: where the site keeps warm replicas, if it does; raises Fault where its Secret lacks something.
    """
    found, place = Checklist(), place_of(site, target)
    if not check_path(found, site):
        found.skip(("Subscription",), "Resource Manager cannot be reached")
        return tuple(found.lines)
    cloud = cloud_of(site)
    found.lines += check(cloud, Wish(place, Needs(cpus=1, memory_mib=1024, zone=target.zone)))
    if any(one.name == "Network" and one.result is CheckResult.PASSED for one in found.lines):
        check_ways(found, cloud, place)
    if replicas is not None:
        found.advise("WarmReplica", lambda: usable(cloud, replicas()))  # without them, disks are staged and uploaded
    return tuple(found.lines)


def place_of(site: CloudSite, target: CloudTarget, name: str = "", machine_id: str = "") -> Place:
    """Return the place of a machine that no run is about; without a name, of the site's machines in general."""
    return Place(site, target.resource_group or site.resource_group, name.lower(), "", machine_id, target=target)
