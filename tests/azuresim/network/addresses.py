"""Which private addresses of a subnet are taken, free, or Azure's own."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from tests.azuresim.arm.store import Resource, Store

NICS = "Microsoft.Network/networkInterfaces"
RESERVED = 5
"""The first four addresses and the last one of each subnet. Source: Azure virtual network FAQ, "Are there any
restrictions on using IP addresses within these subnets?"."""

Network = ipaddress.IPv4Network


def prefixes(properties: dict[str, Any]) -> list[Network]:
    """IPv4 prefixes of a subnet's or an address space's properties."""
    given = properties.get("addressPrefixes") or [properties.get("addressPrefix")]
    return [ipaddress.IPv4Network(one) for one in given if one and ":" not in one]


def is_reserved(network: Network, address: ipaddress.IPv4Address) -> bool:
    return int(address) - int(network.network_address) < 4 or address == network.broadcast_address


def taken(store: Store, subnet_id: str) -> dict[str, str]:
    """Id of the IP configuration by address, for all interfaces in a subnet."""
    found = {}
    for nic in store.of(NICS):
        for one in nic.properties.get("ipConfigurations", []):
            properties = one["properties"]
            if properties["subnet"]["id"].lower() == subnet_id.lower() and properties.get("privateIPAddress"):
                found[properties["privateIPAddress"]] = one["id"]
    return found


def free(store: Store, subnet: Resource) -> Iterator[str]:
    """Free addresses, lowest first, as Azure hands them out (source: "Private IP addresses", allocation method)."""
    used = taken(store, subnet.id)
    for network in prefixes(subnet.properties):
        for number in range(int(network.network_address) + 4, int(network.broadcast_address)):
            address = str(ipaddress.IPv4Address(number))
            if address not in used:
                yield address
