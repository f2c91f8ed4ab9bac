"""The lines of a plan's checklist: each site once, what its machines are in each other's way with, each machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from farshore_engine.azure.checks import check_path, check_subscription, check_ways, check_wish
from farshore_engine.azure.cloud import Cloud, cloud_of
from farshore_engine.azure.place import Place
from farshore_engine.azure.reach import RDP, SSH
from farshore_engine.azure.readiness import place_of
from farshore_engine.azure.sitechecks import accounts
from farshore_engine.azure.together import Member, quota_together, room_together
from farshore_engine.checklist import Checklist
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.site import CloudTarget
from farshore_operator.decide.cloudtarget import asked_addresses

if TYPE_CHECKING:
    from farshore_cli.doctoring.planmembers import PlannedMachine

GIB = 1 << 30


def check_conflicts(found: Checklist, machines: Sequence[PlannedMachine]) -> None:
    """Add whether two machines would have the same name, or the same private address, in the same place."""
    names: dict[tuple[str, ...], list[str]] = defaultdict(list)
    addresses: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for one in machines:
        spec = one.observed.vm.spec.target
        group = one.place.group.lower() if one.place is not None else ""
        network = (one.place.target.network if one.place is not None else one.network).lower()
        names[(spec.site_ref.name, group, one.name)].append(one.vm)
        for address in asked_addresses(spec):
            addresses[(spec.site_ref.name, network, address)].append(one.vm)
    for name, known, field in (("Names", names, "name"), ("PrivateAddresses", addresses, "privateIP")):
        found.ask(name, lambda known=known, field=field: _distinct(known, field))  # type: ignore[misc]


def _distinct(known: dict[tuple[str, ...], list[str]], field: str) -> str:
    twice = [f"{', '.join(vms)} would all be {key[-1]} at {key[0]}" for key, vms in known.items() if len(vms) > 1]
    if twice:
        raise StopFault("; ".join(twice), f"Give each its own spec.target.{field}", reason="Conflict")
    return "no two machines want the same"


def check_sites(found: Checklist, machines: Sequence[PlannedMachine], troubles: dict[str, Fault]) -> frozenset[str]:
    """Add each recovery site once, with what its machines need together; returns the sites that can be asked more."""
    asked = set()
    for name, fault in troubles.items():
        found.need(f"{name}/Login", lambda fault=fault: _raise(fault))  # type: ignore[misc]
    by_site: dict[str, list[PlannedMachine]] = defaultdict(list)
    for one in machines:
        if one.place is not None:
            by_site[one.observed.vm.spec.target.site_ref.name].append(one)
    for name, here in sorted(by_site.items()):
        own = Checklist()
        if _site(own, here):
            asked.add(name)
        found.lines += [one.model_copy(update={"name": f"{name}/{one.name}"}) for one in own.lines]
    return frozenset(asked)


def _site(own: Checklist, here: Sequence[PlannedMachine]) -> bool:
    """Check what the machines of a site share. Groups of machines with a resource group of their own come with them."""
    places = [one.place for one in here if one.place is not None]
    if not check_path(own, places[0].site):
        own.skip(("Subscription",), "Resource Manager cannot be reached")
        return False
    cloud, good = cloud_of(places[0].site), False
    for number, group in enumerate(sorted({place.group for place in places})):
        part = Checklist()
        good |= check_subscription(part, cloud, place_of(places[0].site, CloudTarget(resource_group=group)))
        own.lines += part.lines if number == 0 else [one for one in part.lines if one.name != "Subscription"]
    coming = [
        Member(one.vm, one.place, one.wish.needs if one.wish is not None else None)
        for one in here
        if one.place is not None and not one.moved
    ]
    if good:
        own.ask("StorageAccounts", lambda: accounts(cloud))
    if good and coming:
        own.ask("QuotaTogether", lambda: quota_together(cloud, coming))
        if own.ask("AddressesTogether", lambda: room_together(cloud, coming)):
            _ways(own, cloud, [one for one in here if not one.moved])
    return good


def _ways(own: Checklist, cloud: Cloud, coming: Sequence[PlannedMachine]) -> None:
    """Add once for each subnet and kind of login how people would reach the machines there."""
    from farshore_operator.api.protectedvm import OSType

    several: dict[tuple[str, ...], tuple[Place, int]] = {}
    for one in coming:
        if one.place is not None:
            port = RDP if one.observed.vm.spec.source.os_type is OSType.WINDOWS else SSH
            target = one.place.target
            several[(one.place.group, target.network, target.subnet, str(port))] = (one.place, port)
    parts = Checklist()
    for _, (place, port) in sorted(several.items()):
        check_ways(parts, cloud, place, port)
    own.lines += dict.fromkeys(parts.lines)


def check_room(found: Checklist, machines: Sequence[PlannedMachine]) -> None:
    """Add whether the process server of each recovery site has room for the disks of all its machines at once."""
    from farshore_operator.decide.readiness import recovery_server

    wanted: dict[str, int] = defaultdict(int)
    free: dict[str, int] = {}
    for one in machines:
        server = recovery_server(one.observed)
        report = one.observed.vm.status.replication
        if server is None or server.recovery is None or one.moved or report is None or report.last_point is None:
            continue
        wanted[server.name] += report.last_point.disk_bytes
        free[server.name] = server.recovery.disk_free_bytes
    for name, needed in sorted(wanted.items()):
        found.advise(f"{name}/Room", lambda name=name, needed=needed: _room(name, needed, free[name]))  # type: ignore[misc]


def _room(name: str, needed: int, free: int) -> str:
    text = f"the disks of all its machines may take {needed / GIB:.1f} GiB, and {name} has {free / GIB:.1f} GiB free"
    if needed > free:
        raise StopFault(
            text,
            "Make room where the process server keeps its state, or register another one",
            reason="NoRoom",
        )
    return text


def check_machine(found: Checklist, machine: PlannedMachine, sites: frozenset[str], now: datetime) -> None:
    """Add what is in the way of one machine: as the operator says, and as its cloud says now; one line if nothing is.

    Args:
        sites: the recovery sites that let us in.
        now: for the age of points and drills.
    """
    from farshore_operator.decide.readiness import blockers

    lines = []
    for one in blockers(machine.observed, now):
        result = CheckResult.ERROR if one.hard else CheckResult.WARNING
        more = f"`kubectl describe protectedvm {machine.vm}` and `farshore status` say more"
        lines.append(Check(name=one.reason, result=result, message=one.message, remedy=more))
    live = Checklist()
    site = machine.observed.vm.spec.target.site_ref.name
    if machine.fault is not None:
        fault = machine.fault
        live.advise("NewestPoint", lambda: _unread(fault))
    wish = machine.wish
    if wish is not None and site in sites and not machine.moved:
        check_wish(live, cloud_of(wish.place.site), wish)
    told = {one.name for one in lines}
    lines += [one for one in live.lines if one.result is not CheckResult.PASSED and one.name not in told]
    if not lines:
        seen = f"; {', '.join(one.message for one in live.lines if one.name in ('Size', 'PrivateAddress'))}"
        text = f"nothing is in the way of its failover to {site}{seen if wish is not None else ''}"
        lines.append(Check(name="FailoverReady", result=CheckResult.PASSED, message=text))
    found.lines += [one.model_copy(update={"name": f"{machine.vm}/{one.name}"}) for one in lines]


def _unread(fault: Fault) -> str:
    raise WaitFault(
        f"its newest point cannot be read from here, so its size is not checked: {fault.message}",
        f"{fault.remedy}; `farshore doctor vault` says more" if fault.remedy else "See `farshore doctor vault`",
        reason=fault.reason,
    )


def _raise(fault: Fault) -> str:
    raise fault
