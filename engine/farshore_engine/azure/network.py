"""The network of a recovered machine: existing subnets, or one of a drill's own; and its network interfaces."""

from __future__ import annotations

import ipaddress
from typing import Any

from farshore_engine.azure.cloud import Cloud, Tell, plain, quiet
from farshore_engine.azure.place import NAME, OWNER, RUN, US, Place
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.site import CloudInterface

ISOLATED_RANGE, ISOLATED_SUBNET = "10.0.0.0/24", "isolated"
RESERVED = 5  # addresses of each subnet that Azure keeps for itself


def vnet_of(cloud: Cloud, place: Place) -> Any:
    """Return the virtual network that the target names, by name or id; else the only one of the resource group.

    Raises:
        StopFault: it does not exist, or it is not clear which is meant.
    """
    wanted = place.target.network
    if wanted.startswith("/"):
        group, name = group_of(wanted), wanted.rstrip("/").rpartition("/")[2]
    else:
        group, name = place.group, wanted
    if name:
        found = cloud.find(f"look for virtual network {name}", lambda: cloud.network.virtual_networks.get(group, name))
        if found is None:
            raise StopFault(
                f"there is no virtual network {name} in resource group {group}{_known(cloud)}",
                "Set target.network to one of them (its resource ID if it is in another group)",
                reason="NoNetwork",
            )
        return found
    here = cloud.all("list virtual networks", lambda: cloud.network.virtual_networks.list(place.group))
    here = [one for one in here if (one.tags or {}).get(OWNER) != US]
    if len(here) != 1:
        raise StopFault(
            f"resource group {place.group} has {len(here)} virtual networks, so it is not clear which one is meant"
            f"{_known(cloud)}",
            "Set target.network of the machine or the site's defaults.network",
            reason="NoNetwork",
        )
    return here[0]


def _known(cloud: Cloud) -> str:
    found = cloud.all("list virtual networks", cloud.network.virtual_networks.list_all)
    names = [f"{one.name} ({group_of(one.id)})" for one in found if one.location == cloud.site.region][:10]
    return f"; region {cloud.site.region} has {', '.join(names) or 'none'}"


def subnet_of(vnet: Any, name: str) -> Any:
    """Return the subnet of that name, the first one for no name; raises StopFault."""
    subnets = list(vnet.subnets or ())
    found = next((one for one in subnets if not name or one.name.lower() == name.lower()), None)
    if found is None:
        names = ", ".join(one.name for one in subnets) or "none"
        raise StopFault(
            f"virtual network {vnet.name} has no subnet {name or 'at all'} (it has {names})",
            "Set target.subnet to one of them",
            reason="NoSubnet",
        )
    return found


def free_addresses(subnet: Any) -> int:
    """Return how many addresses of a subnet are free."""
    prefixes = list(subnet.address_prefixes or ()) or [subnet.address_prefix]
    total = sum(ipaddress.ip_network(one).num_addresses - RESERVED for one in prefixes if one and "." in one)
    return total - len(subnet.ip_configurations or ())


def is_inside(subnet: Any, address: str) -> bool:
    """Tell whether an address is one of a subnet's."""
    prefixes = list(subnet.address_prefixes or ()) or [subnet.address_prefix]
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in prefixes if one)


def isolated_subnet(cloud: Cloud, place: Place, tell: Tell = quiet) -> str:
    """Make the network of a drill alone, from which nothing can be reached, or find it; returns the subnet's id.

    Machines of one drill share it; the last one's clean-up removes it.
    """
    name, site = place.target.network, place.site
    tags = {**place.target.tags, OWNER: US, RUN: place.run, NAME: name}
    found = cloud.find(
        f"look for virtual network {name}", lambda: cloud.network.virtual_networks.get(place.group, name)
    )
    if found is None:
        rule = {
            "name": "nothing-leaves",
            "properties": {
                "priority": 100, "direction": "Outbound", "access": "Deny", "protocol": "*", "sourceAddressPrefix": "*",
                "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "*",
            },
        }  # fmt: skip
        guard = cloud.finish(
            f"make network security group {name}",
            lambda: cloud.network.network_security_groups.begin_create_or_update(
                place.group, name, {"location": site.region, "tags": tags, "properties": {"securityRules": [rule]}}
            ),
            tell,
        )
        subnet = {"addressPrefix": ISOLATED_RANGE, "networkSecurityGroup": {"id": guard.id}}
        body = {
            "location": site.region,
            "tags": tags,
            "properties": {
                "addressSpace": {"addressPrefixes": [ISOLATED_RANGE]},
                "subnets": [{"name": ISOLATED_SUBNET, "properties": subnet}],
            },
        }
        found = cloud.finish(
            f"make virtual network {name}",
            lambda: cloud.network.virtual_networks.begin_create_or_update(place.group, name, body),
            tell,
        )
    if (found.tags or {}).get(OWNER) != US or (found.tags or {}).get(RUN) != place.run:
        raise StopFault(
            f"there is a virtual network {name} in resource group {place.group} already, which this drill did not make",
            "Rename or remove it",
            reason="MachineConflict",
        )
    return str(subnet_of(found, "").id)


def ensure_nics(cloud: Cloud, place: Place, tell: Tell = quiet) -> tuple[Any, ...]:
    """Make the machine's network interfaces in their order, or find them."""
    return tuple(_ensure_nic(cloud, place, number, one, tell) for number, one in enumerate(place.target.nics()))


def _ensure_nic(cloud: Cloud, place: Place, number: int, wanted: CloudInterface, tell: Tell) -> Any:
    """Make a network interface, or find it: at the address that was asked for, else at a free one."""
    name = place.nic(number)
    found = cloud.find(
        f"look for network interface {name}", lambda: cloud.network.network_interfaces.get(place.group, name)
    )
    if found is not None:
        place.check_own("network interface", found)
        if plain(found.provisioning_state) == "Succeeded":
            return found
    if place.target.isolated:
        subnet = isolated_subnet(cloud, place, tell)
    else:
        subnet = str(subnet_of(vnet_of(cloud, place), wanted.subnet).id)
    address: dict[str, Any] = {"privateIPAllocationMethod": "Dynamic"}
    if wanted.private_ip:
        address = {"privateIPAllocationMethod": "Static", "privateIPAddress": wanted.private_ip}
    body = {
        "location": place.site.region,
        "tags": place.tags,
        "properties": {"ipConfigurations": [{"name": "main", "properties": {"subnet": {"id": subnet}, **address}}]},
    }
    return cloud.finish(
        f"make network interface {name}",
        lambda: cloud.network.network_interfaces.begin_create_or_update(place.group, name, body),
        tell,
    )


def address_of(nic: Any) -> str:
    """Return the private address of an interface; raises WaitFault while it has none."""
    for one in nic.ip_configurations or ():
        if one.private_ip_address:
            return str(one.private_ip_address)
    raise WaitFault(f"network interface {nic.name} has no address yet", "It is tried again", reason="NoAddress")


def group_of(resource_id: str) -> str:
    """Return the resource group of a resource id."""
    parts = resource_id.split("/")
    lower = [part.lower() for part in parts]
    return parts[lower.index("resourcegroups") + 1] if "resourcegroups" in lower else ""
