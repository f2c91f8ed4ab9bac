"""Whether machines that would be recovered at the same time fit together: each one may fit, and all of them not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from farshore_engine.azure.cloud import Cloud
from farshore_engine.azure.faults import GROW
from farshore_engine.azure.machinechecks import cores_left, sizes_of
from farshore_engine.azure.network import free_addresses, subnet_of, vnet_of
from farshore_engine.azure.place import Place
from farshore_engine.azure.sizes import Needs, Size, choose
from farshore_engine.contract.faults import StopFault

CORES = "cores"
"""Name of the quota of all cores of a region."""


@dataclass(frozen=True)
class Member:
    """A machine among others. `needs` is None where it is not known what it was: then its asked size alone counts."""

    name: str
    place: Place
    needs: Needs | None = None


def quota_together(cloud: Cloud, members: Sequence[Member]) -> str:
    """Say that the quotas of family and region are enough for all; each takes the first size that still fits.

    Raises:
        StopFault: they are not; says who goes short and of which quota.
    """
    return share(sizes_of(cloud), cores_left(cloud, cloud.site.region), members)


def share(sizes: tuple[Size, ...], left: Mapping[str, int], members: Sequence[Member]) -> str:
    """Hand out cores in the order of the members, as the machines would take them; as `quota_together`."""
    rest, taken, short = dict(left), Counter[str](), []
    for member in members:
        choice = _sizes_for(sizes, member)
        if not choice:
            continue  # its own check says why it gets no size
        fits = next((one for one in choice if not _lacking(rest, one)), None)
        if fits is None:
            lacking = ", ".join(f"{rest[name]} left of {name}" for name in _lacking(rest, choice[0]))
            short.append(f"{member.name} ({choice[0].name}, {choice[0].cpus} cores: {lacking})")
            continue
        for name in (CORES, fits.family.lower()):
            if name in rest:
                rest[name] -= fits.cpus
        taken[fits.name] += fits.cpus
    told = ", ".join(f"{cores} cores of {name}" for name, cores in sorted(taken.items()))
    if short:
        raise StopFault(
            f"the quotas do not last for all at once: after {told or 'nothing'}, nothing is left for "
            f"{'; '.join(short)}",
            GROW,
            reason="QuotaExceeded",
        )
    return f"the quotas last for all at once: {told}" if told else "no member's size is known"


def room_together(cloud: Cloud, members: Sequence[Member]) -> str:
    """Say that every subnet has as many free addresses as machines would join it.

    Raises:
        StopFault: one has not.
    """
    places: Counter[tuple[str, str]] = Counter()
    free: dict[tuple[str, str], int] = {}
    for member in members:
        vnet = vnet_of(cloud, member.place)
        for wanted in member.place.target.nics():
            subnet = subnet_of(vnet, wanted.subnet)
            key = (str(vnet.name), str(subnet.name))
            free[key] = free_addresses(subnet)
            places[key] += 1
    full = [f"{key[0]}/{key[1]} has {free[key]} for {count}" for key, count in places.items() if free[key] < count]
    if full:
        raise StopFault(
            f"subnets have fewer free addresses than interfaces that join them: {'; '.join(full)}",
            "Enlarge them, or spread the machines over others: target.subnet",
            reason="SubnetFull",
        )
    return "; ".join(f"{key[0]}/{key[1]} has {free[key]} free addresses for {count}" for key, count in places.items())


def _sizes_for(sizes: tuple[Size, ...], member: Member) -> tuple[Size, ...]:
    asked = member.place.target.size
    if member.needs is None:
        return tuple(one for one in sizes if asked and one.name.lower() == asked.lower())
    try:
        return choose(sizes, member.needs, asked)
    except StopFault:
        return ()


def _lacking(rest: Mapping[str, int], size: Size) -> list[str]:
    return [name for name in (CORES, size.family.lower()) if rest.get(name, size.cpus) < size.cpus]
