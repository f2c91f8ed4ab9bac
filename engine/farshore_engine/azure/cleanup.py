"""Removes what was made for a recovered machine, found by its tags, and nothing else; then looks whether it is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from farshore_engine.azure.cloud import Cloud, Tell, plain, quiet
from farshore_engine.azure.disks import discard_disk
from farshore_engine.azure.faults import NOT_FOUND
from farshore_engine.azure.machines import remove_machine
from farshore_engine.azure.network import group_of
from farshore_engine.azure.place import MACHINE, OWNER, RUN, US, Place
from farshore_engine.contract.faults import Fault, StopFault, WaitFault

Wanted = Callable[[Any], bool]


@dataclass(frozen=True)
class Found:
    """What carries a machine's tags in one resource group; SDK objects."""

    group: str
    machines: tuple[Any, ...] = ()
    nics: tuple[Any, ...] = ()
    disks: tuple[Any, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return what there is, in words."""
        kinds = (("machine", self.machines), ("network interface", self.nics), ("disk", self.disks))
        return tuple(f"{kind} {self.group}/{one.name}" for kind, found in kinds for one in found)


def remove(cloud: Cloud, place: Place, groups: Iterable[str], *, run: str = "", tell: Tell = quiet) -> tuple[str, ...]:
    """Remove a machine with all its parts; returns what was removed, in words.

    Args:
        groups: resource groups where it may be.
        run: only what this run made; empty for whichever did.

    Raises:
        WaitFault: something is left, or in use for the moment; call again.
    """
    wanted: Wanted = lambda one: place.is_machines(one) and (not run or (one.tags or {}).get(RUN) == run)  # noqa: E731
    removed: list[str] = []
    for group in dict.fromkeys(groups):
        found = look(cloud, group, wanted)
        for machine in found.machines:
            tell()
            remove_machine(cloud, group, str(machine.name), tell)
        for nic in found.nics:
            _remove_nic(cloud, group, str(nic.name), tell)
        for disk in found.disks:
            discard_disk(cloud, group, str(disk.name), plain(disk.disk_state), tell)
        removed += found.names()
        left = look(cloud, group, wanted).names()
        if left:
            raise WaitFault(
                f"still there after clean-up: {', '.join(left)}",
                "It is tried again; look for locks and for what holds it if this repeats",
                reason="NotClean",
            )
        if place.target.isolated:
            removed += _remove_isolated(cloud, place, group, tell)
    return tuple(removed)


def looked_for(place: Place, groups: Iterable[str]) -> tuple[str, ...]:
    """Return what `remove` looked for, in words."""
    tags = f"tagged {place.machine_id}, {place.name}"
    return tuple(
        f"machines, network interfaces and disks {tags} in resource group {group}" for group in dict.fromkeys(groups)
    )


def groups_with(cloud: Cloud, place: Place) -> tuple[str, ...]:
    """Return the resource groups of the subscription in which something carries the machine's tags.

    Where the principal may not list the subscription, none are known.

    Raises:
        WaitFault: Azure is in trouble.
    """
    tagged = f"tagName eq '{MACHINE}' and tagValue eq '{place.machine_id}'"
    try:
        found = cloud.all("list what the machine has", lambda: cloud.resources.resources.list(filter=tagged))
    except StopFault:
        return ()
    return tuple(dict.fromkeys(group_of(str(one.id)) for one in found if place.is_machines(one)))


def look(cloud: Cloud, group: str, wanted: Wanted) -> Found:
    """Return what is wanted of a resource group; nothing of one that does not exist."""
    try:
        compute, network = cloud.compute, cloud.network
        machines = cloud.all("list machines", lambda: compute.virtual_machines.list(group))
        nics = cloud.all("list network interfaces", lambda: network.network_interfaces.list(group))
        disks = cloud.all("list disks", lambda: compute.disks.list_by_resource_group(group))
    except Fault as fault:
        if fault.reason in (NOT_FOUND, "ResourceGroupNotFound"):
            return Found(group)
        raise
    return Found(group, tuple(_of(machines, wanted)), tuple(_of(nics, wanted)), tuple(_of(disks, wanted)))


def _of(found: list[Any], wanted: Wanted) -> Iterator[Any]:
    return (one for one in found if wanted(one))


def _remove_nic(cloud: Cloud, group: str, name: str, tell: Tell) -> None:
    cloud.gone(
        f"delete network interface {name}", lambda: cloud.network.network_interfaces.begin_delete(group, name), tell
    )


def _remove_isolated(cloud: Cloud, place: Place, group: str, tell: Tell) -> tuple[str, ...]:
    """Remove the drill's own network, if no other machine of the drill is in it any more."""
    name, network, removed = place.target.network, cloud.network, []
    found = cloud.find(f"look for virtual network {name}", lambda: network.virtual_networks.get(group, name))
    if found is not None and _ours(found, place):
        if any(subnet.ip_configurations for subnet in found.subnets or ()):
            return ()
        cloud.gone(f"delete virtual network {name}", lambda: network.virtual_networks.begin_delete(group, name), tell)
        removed.append(f"virtual network {group}/{name}")
    guard = cloud.find(f"look for security group {name}", lambda: network.network_security_groups.get(group, name))
    if guard is not None and _ours(guard, place):
        cloud.gone(
            f"delete security group {name}", lambda: network.network_security_groups.begin_delete(group, name), tell
        )
        removed.append(f"network security group {group}/{name}")
    return tuple(removed)


def _ours(found: Any, place: Place) -> bool:
    tags = found.tags or {}
    return tags.get(OWNER) == US and tags.get(RUN) == place.run
