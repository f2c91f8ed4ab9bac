"""A recovered machine in Azure: made from its disks, found again, started, stopped, looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from farshore_engine.azure.cloud import LOOK, POLL_SECONDS, Cloud, Tell, plain, quiet
from farshore_engine.azure.faults import CAPACITY_CODES, NO_CAPACITY, QUOTA
from farshore_engine.azure.network import address_of, group_of
from farshore_engine.azure.place import Place
from farshore_engine.azure.sizes import Size
from farshore_engine.contract.faults import Fault, StopFault, WaitFault

SHORT = (NO_CAPACITY, QUOTA)
"""Reasons for which another size may do."""
CHANGING = ("Creating", "Updating", "Deleting", "Migrating")
SETTLE_SECONDS = 900.0  # for another's operation to end


@dataclass(frozen=True)
class Parts:
    """What a machine is made of: resource ids."""

    os_disk: str
    data_disks: tuple[str, ...]
    nics: tuple[str, ...]
    """In their order; `primary` is the number of the primary one."""
    primary: int = 0


@dataclass(frozen=True)
class Made:
    """A machine that was made or found, and what was said on the way about other sizes."""

    machine: Any
    size: str
    notes: tuple[str, ...] = ()


def find_machine(cloud: Cloud, group: str, name: str) -> Any:
    """Return the machine of that name, None if there is none."""
    return cloud.find(f"look for machine {name}", lambda: cloud.compute.virtual_machines.get(group, name))


def power_state(cloud: Cloud, group: str, name: str) -> tuple[str, str]:
    """Return how a machine's power is (running, stopped, deallocated, ...) and why provisioning failed, if it did."""
    view = cloud.ask(f"look at machine {name}", lambda: cloud.compute.virtual_machines.instance_view(group, name))
    power = failure = ""
    for one in view.statuses or ():
        code = str(one.code or "")
        if code.startswith("PowerState/"):
            power = code.partition("/")[2]
        if code.startswith("ProvisioningState/failed"):
            failure = code.rpartition("/")[2] if code.count("/") > 1 else str(one.message or "failed")
    return power, failure


def make_machine(cloud: Cloud, place: Place, parts: Parts, sizes: Sequence[Size], tell: Tell = quiet) -> Made:
    """Make the machine, or finish what an earlier try began; never a second one. It runs when this returns.

    A size of which Azure has none now, or for which there is no quota, gives way to the next.

    Raises:
        StopFault: no size is to be had, or Azure refuses for another reason.
    """
    notes: list[str] = []
    known = settled(cloud, place, tell)
    if known is not None:
        place.check_own("machine", known)
        failure = power_state(cloud, place.group, place.name)[1] if plain(known.provisioning_state) == "Failed" else ""
        tried = plain(known.hardware_profile.vm_size)
        if failure in CAPACITY_CODES:
            notes.append(f"{tried}: {failure}")
            remove_machine(cloud, place.group, place.name, tell)
            sizes = [one for one in sizes if one.name != tried]
        else:
            return Made(start_machine(cloud, place, tell), tried)
    last: Fault | None = None
    for size in sizes:
        try:
            made = _create(cloud, place, parts, size.name, tell)
        except StopFault as fault:
            if fault.reason not in SHORT:
                raise
            last = fault
            notes.append(f"{size.name}: {fault.message}")
            _take_back(cloud, place, tell)
            continue
        return Made(made, size.name, tuple(notes))
    raise StopFault(
        f"no size is to be had for {place.name}: {'; '.join(notes) or 'there are no sizes'}",
        last.remedy if last is not None else "Set target.size to another one",
        reason=last.reason if last is not None else NO_CAPACITY,
    )


def start_machine(cloud: Cloud, place: Place, tell: Tell = quiet) -> Any:
    """Start the machine if it does not run; it runs when this returns.

    Raises:
        WaitFault: it does not come up.
    """
    power, _ = power_state(cloud, place.group, place.name)
    if power != "running":
        cloud.finish(
            f"start machine {place.name}",
            lambda: cloud.compute.virtual_machines.begin_start(place.group, place.name),
            tell,
        )
        power, failure = power_state(cloud, place.group, place.name)
        if power != "running":
            raise WaitFault(
                f"machine {place.name} does not run: {power or 'unknown'} {failure}".strip(),
                "Look at its boot diagnostics; it is tried again",
                reason="NotRunning",
            )
    return find_machine(cloud, place.group, place.name)


def stop_machine(cloud: Cloud, place: Place, tell: Tell = quiet) -> None:
    """Shut the machine down in order and give back its hardware; its disks and address stay."""
    if power_state(cloud, place.group, place.name)[0] == "deallocated":
        return
    cloud.finish(
        f"stop machine {place.name}",
        lambda: cloud.compute.virtual_machines.begin_deallocate(place.group, place.name),
        tell,
    )
    power = power_state(cloud, place.group, place.name)[0]
    if power not in ("deallocated", "stopped"):
        raise WaitFault(f"machine {place.name} is still {power or 'there'}", "It is tried again", reason="StillRuns")


def remove_machine(cloud: Cloud, group: str, name: str, tell: Tell = quiet) -> None:
    """Delete a machine; its disks and interfaces stay."""
    cloud.gone(f"delete machine {name}", lambda: cloud.compute.virtual_machines.begin_delete(group, name), tell)


def settled(cloud: Cloud, place: Place, tell: Tell = quiet) -> Any:
    """Return the machine when no operation on it is under way any more; None if there is none.

    Raises:
        WaitFault: it takes too long.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = find_machine(cloud, place.group, place.name)
        if found is None or plain(found.provisioning_state) not in CHANGING:
            return found
        tell()
        if time.monotonic() > deadline:
            raise WaitFault(
                f"machine {place.name} is {found.provisioning_state} for a long time",
                "Look at its activity log",
                reason="AzureBusy",
            )
        time.sleep(min(POLL_SECONDS, LOOK))


def machine_address(cloud: Cloud, machine: Any) -> str:
    """Return the private address of a machine's primary interface."""
    found = sorted(machine.network_profile.network_interfaces or (), key=lambda one: not one.primary)
    if not found:
        raise StopFault(f"machine {machine.name} has no network interface", "Attach one", reason="NoInterface")
    group, name = group_of(str(found[0].id)), str(found[0].id).rpartition("/")[2]
    nic = cloud.ask(f"look at network interface {name}", lambda: cloud.network.network_interfaces.get(group, name))
    return address_of(nic)


def _create(cloud: Cloud, place: Place, parts: Parts, size: str, tell: Tell) -> Any:
    begin: Callable[[], Any] = lambda: cloud.compute.virtual_machines.begin_create_or_update(  # noqa: E731
        place.group, place.name, machine_body(place, parts, size)
    )
    cloud.finish(f"make machine {place.name} of size {size}", begin, tell)
    return start_machine(cloud, place, tell)


def _take_back(cloud: Cloud, place: Place, tell: Tell) -> None:
    """Remove a machine that was made and for which there was no hardware; the parts are for the next try."""
    known = settled(cloud, place, tell)
    if known is not None:
        place.check_own("machine", known)
        remove_machine(cloud, place.group, place.name, tell)


def machine_body(place: Place, parts: Parts, size: str) -> dict[str, Any]:
    """Return what Azure is asked to make. Parts outlive the machine: clean-up removes them itself, and says so."""
    keep = {"deleteOption": "Detach"}
    properties: dict[str, Any] = {
        "hardwareProfile": {"vmSize": size},
        "storageProfile": {
            "osDisk": {"osType": "Linux", "createOption": "Attach", "managedDisk": {"id": parts.os_disk}, **keep},
            "dataDisks": [
                {"lun": lun, "createOption": "Attach", "managedDisk": {"id": one}, **keep}
                for lun, one in enumerate(parts.data_disks)
            ],
        },
        "networkProfile": {
            "networkInterfaces": [
                {"id": one, "properties": {"primary": number == parts.primary, **keep}}
                for number, one in enumerate(parts.nics)
            ]
        },
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }
    wanted = place.target.availability_set
    if wanted:
        properties["availabilitySet"] = {"id": availability_set_id(place)}
    body: dict[str, Any] = {"location": place.site.region, "tags": place.tags, "properties": properties}
    if place.target.zone:
        body["zones"] = [place.target.zone]
    return body


def availability_set_id(place: Place) -> str:
    """Return the resource id of the availability set that the target names."""
    wanted = place.target.availability_set
    group = f"/subscriptions/{place.site.subscription}/resourceGroups/{place.group}"
    return wanted if wanted.startswith("/") else f"{group}/providers/Microsoft.Compute/availabilitySets/{wanted}"
