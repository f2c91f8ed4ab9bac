"""Whether a machine could be recovered to Azure now: from what its newest point says that it was."""

from __future__ import annotations

from farshore_engine.azure.checks import check
from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.machinechecks import Wish
from farshore_engine.azure.place import Place
from farshore_engine.azure.sizes import Needs
from farshore_engine.contract.assignment import RecoveryTarget
from farshore_engine.contract.machine import BootMode, MachineDescription
from farshore_engine.contract.replication import Check
from farshore_engine.contract.site import CloudSite, CloudTarget

LEAST_MEMORY_MIB = 512


def check_machine(target: RecoveryTarget, described: MachineDescription, disks: int) -> tuple[Check, ...]:
    """Return the checklist of a machine with so many replicated disks; `target.site` is set."""
    assert target.site is not None, "the caller asks for machines that go to a cloud"
    wished = target.target or CloudTarget()
    needs = Needs(
        cpus=max(1, described.cpus),
        memory_mib=target.memory_mib or max(LEAST_MEMORY_MIB, described.memory_bytes >> 20),
        generation="V2" if described.boot_mode is BootMode.UEFI else "V1",
        disks=max(0, disks - 1),
        premium=wished.disk_type.startswith(("Premium", "Ultra")),
        zone=wished.zone,
    )
    bootable = any(disk.bootable and disk.replicated for disk in described.disks)
    place = _place(target.site, wished, target.name.lower(), target.machine_id)
    return check(cloud_of(target.site), Wish(place, needs, bootable))


def check_site(site: CloudSite, target: CloudTarget) -> tuple[Check, ...]:
    """Return the checklist of a site for a small machine with the site's defaults."""
    return check(cloud_of(site), Wish(_place(site, target), Needs(cpus=1, memory_mib=1024, zone=target.zone)))


def _place(site: CloudSite, target: CloudTarget, name: str = "", machine_id: str = "") -> Place:
    return Place(site, target.resource_group or site.resource_group, name, "", machine_id, target=target)
