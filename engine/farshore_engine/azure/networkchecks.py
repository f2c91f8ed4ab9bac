"""What a network must have before a machine joins it: region, rights, room, and the private address free."""

from __future__ import annotations

from farshore_engine.azure.cloud import Cloud
from farshore_engine.azure.network import free_addresses, group_of, subnet_of, vnet_of
from farshore_engine.azure.permissions import JOIN, lacking
from farshore_engine.azure.place import Place
from farshore_engine.contract.faults import StopFault


def network_fits(cloud: Cloud, place: Place) -> str:
    """Say how much room the subnet has that machines join; raises StopFault."""
    vnet = vnet_of(cloud, place)
    if str(vnet.location).lower() != place.site.region.lower():
        raise StopFault(
            f"virtual network {vnet.name} is in {vnet.location}, and the site's region is {place.site.region}",
            "Name a network of the region in target.network",
            reason="NetworkElsewhere",
        )
    subnet = subnet_of(vnet, place.target.subnet)
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
    free = free_addresses(subnet)
    if free < 1:
        raise StopFault(
            f"subnet {vnet.name}/{subnet.name} has no free address",
            "Enlarge it, or name another one in target.subnet",
            reason="SubnetFull",
        )
    return (
        f"{vnet.name}/{subnet.name} has {free} free addresses; people and the process server reach machines there by "
        "their private address (peering, ExpressRoute, VPN or Bastion)"
    )


def address_free(cloud: Cloud, place: Place) -> str:
    """Say that the private address which is asked for is free; raises StopFault."""
    wanted, vnet = place.target.private_ip, vnet_of(cloud, place)
    answer = cloud.ask(
        f"ask for address {wanted}",
        lambda: cloud.network.virtual_networks.check_ip_address_availability(
            group_of(str(vnet.id)), str(vnet.name), ip_address=wanted
        ),
    )
    if not answer.available:
        free = ", ".join(answer.available_ip_addresses or ()) or "none"
        raise StopFault(
            f"address {wanted} is taken in {vnet.name} (free near it: {free})",
            "Free it, set another target.privateIP, or leave it out",
            reason="AddressTaken",
        )
    return f"{wanted} is free"
