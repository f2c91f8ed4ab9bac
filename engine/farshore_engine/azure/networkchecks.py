"""What a network must have before a machine joins it: region, rights, room, and the private addresses free."""

from __future__ import annotations

from collections import Counter
from typing import Any

from farshore_engine.azure.cloud import Cloud
from farshore_engine.azure.network import free_addresses, group_of, is_inside, subnet_of, vnet_of
from farshore_engine.azure.permissions import JOIN, lacking
from farshore_engine.azure.place import Place
from farshore_engine.contract.faults import StopFault


def network_fits(cloud: Cloud, place: Place) -> str:
    """Say how much room the subnets have that the machine's interfaces join; raises StopFault."""
    vnet = vnet_of(cloud, place)
    if str(vnet.location).lower() != place.site.region.lower():
        raise StopFault(
            f"virtual network {vnet.name} is in {vnet.location}, and the site's region is {place.site.region}",
            "Name a network of the region in target.network",
            reason="NetworkElsewhere",
        )
    subnets = [subnet_of(vnet, one.subnet) for one in place.target.nics()]
    group = group_of(str(vnet.id))
    given = cloud.all(
        f"ask for the rights on {vnet.name}",
        lambda: cloud.authorization.permissions.list_for_resource(
            group, "Microsoft.Network", "", "virtualNetworks", str(vnet.name)
        ),
    )
    missing = lacking(given, JOIN)
    if missing:
        raise StopFault(
            f"the principal may not, on virtual network {vnet.name}: {', '.join(missing)}",
            "Give it a role with these actions there, such as Network Contributor",
            reason="AccessRefused",
        )
    wanted = Counter(str(one.name) for one in subnets)
    room = {str(one.name): free_addresses(one) for one in subnets}
    full = [f"{vnet.name}/{one} has {max(0, room[one])} for {wanted[one]}" for one in room if room[one] < wanted[one]]
    if full:
        raise StopFault(
            f"subnets have fewer free addresses than interfaces that join them: {'; '.join(full)}",
            "Enlarge them, or name others in target.subnet or target.interfaces",
            reason="SubnetFull",
        )
    told = " and ".join(f"{vnet.name}/{name} has {free} free addresses" for name, free in room.items())
    return f"{told}; the process server reaches machines there by them"


def addresses_free(cloud: Cloud, place: Place) -> str:
    """Say that every private address that is asked for is free, and one of its subnet; raises StopFault with all."""
    vnet = vnet_of(cloud, place)
    asked = [one for one in place.target.nics() if one.private_ip]
    counted = Counter(one.private_ip for one in asked)
    wrong = [f"{count} interfaces ask for address {address}" for address, count in counted.items() if count > 1]
    taken = False
    for one in asked:
        subnet = subnet_of(vnet, one.subnet)
        if not is_inside(subnet, one.private_ip):
            wrong.append(f"address {one.private_ip} is none of subnet {vnet.name}/{subnet.name}")
        elif said := _taken(cloud, vnet, one.private_ip):
            taken = True
            wrong.append(said)
    if wrong:
        raise StopFault(
            "; ".join(wrong),
            "Free it, set another target.privateIP (or privateIP of the interface), or leave it out",
            reason="AddressTaken" if taken else "BadAddress",
        )
    return f"{', '.join(counted)} {'is' if len(counted) == 1 else 'are'} free"


def _taken(cloud: Cloud, vnet: Any, address: str) -> str:
    """Return that an address is taken, in words; nothing where it is free."""
    answer = cloud.ask(
        f"ask for address {address}",
        lambda: cloud.network.virtual_networks.check_ip_address_availability(
            group_of(str(vnet.id)), str(vnet.name), ip_address=address
        ),
    )
    if answer.available:
        return ""
    free = ", ".join(answer.available_ip_addresses or ()) or "none"
    return f"address {address} is taken in {vnet.name} (free near it: {free})"
