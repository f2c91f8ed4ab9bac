"""Consistency groups: who is in one, whether it can be cut at all, and which process server its members share.

A group can be cut only by one process server, where its members meet. The first member by name that is assigned leads;
the others follow it to its server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from farshore_engine.contract.assignment import ConsistencyGroup, Desired
from farshore_operator.api import ProtectedVM
from farshore_operator.decide.naming import machine_id

MAX_MEMBERS = 16
RESTING = (Desired.STOP.value, Desired.UNINSTALL.value)


@dataclass(frozen=True)
class Peer:
    """A member of a group, as the others see it; `server` is the one it is assigned to, "" if none yet."""

    name: str
    site: str
    named_server: str = ""
    server: str = ""
    resting: bool = False


@dataclass(frozen=True)
class Conflict:
    """Why a group cannot be cut; its machines take their points alone meanwhile."""

    reason: str
    message: str


def peers(vms: Iterable[ProtectedVM], group: str | None) -> tuple[Peer, ...]:
    """Return the members of a group among the machines of a namespace, sorted by name; none without a group."""
    if not group:
        return ()
    mine = [vm for vm in vms if vm.spec.consistency_group == group and not vm.metadata.deletion_timestamp]
    return tuple(sorted((_peer(vm) for vm in mine), key=lambda peer: peer.name))


def _peer(vm: ProtectedVM) -> Peer:
    ref, assignment = vm.spec.process_server_ref, vm.status.assignment
    return Peer(
        name=vm.metadata.name,
        site=vm.spec.source.site_ref.name,
        named_server=ref.name if ref else "",
        server=assignment.process_server if assignment else "",
        resting=vm.status.desired in RESTING,
    )


def conflict(group: str, members: tuple[Peer, ...]) -> Conflict | None:
    """Return why the group cannot be cut, None if it can."""
    if len(members) > MAX_MEMBERS:
        text = f"consistency group {group} has {len(members)} members, {MAX_MEMBERS} is the most: split it"
        return Conflict("TooManyMembers", text)
    sites = {peer.site: peer.name for peer in members}
    if len(sites) > 1:
        text = ", ".join(f"{name} at {site}" for site, name in sorted(sites.items()))
        return Conflict(
            "SitesDiffer",
            f"the machines of consistency group {group} run at different sites ({text}): split it by site",
        )
    servers = {peer.named_server: peer.name for peer in members if peer.named_server}
    if len(servers) > 1:
        text = ", ".join(f"{name} names {server}" for server, name in sorted(servers.items()))
        return Conflict(
            "ProcessServersDiffer",
            f"the machines of consistency group {group} name different process servers in spec.processServerRef "
            f"({text}): name one for all, or none",
        )
    return None


def shared_server(members: tuple[Peer, ...], name: str) -> str:
    """Return the process server to which member `name` should follow the others; "" if it decides for itself."""
    named = next((peer.named_server for peer in members if peer.named_server), "")
    if named:
        return named
    leader = next((peer for peer in members if peer.server and not peer.resting), None)
    return leader.server if leader is not None and leader.name != name else ""


def resolved(vm: ProtectedVM, vms: Iterable[ProtectedVM]) -> ConsistencyGroup | None:
    """Return the machine's group as its process server needs it; None without a group, or with one in conflict.

    Members that do not replicate now (paused, stopped, leaving, not assigned yet) are left out: a group of machines
    of which one is failed over or at rest is still cut, without it.
    """
    name = vm.spec.consistency_group
    every = tuple(vms)
    if not name or conflict(name, peers(every, name)) is not None:
        return None
    active = [
        machine_id(other.metadata.namespace, other.metadata.name)
        for other in every
        if other.spec.consistency_group == name and not other.metadata.deletion_timestamp and _replicates(other)
    ]
    return ConsistencyGroup(name=name, members=tuple(sorted(active)))


def _replicates(vm: ProtectedVM) -> bool:
    return vm.status.assignment is not None and (vm.status.desired or Desired.REPLICATE) == Desired.REPLICATE
