"""The calls of Microsoft.Network that are simulated, with the SDK's models on both sides."""

from __future__ import annotations

from azure.mgmt.network import models
from tests.azuresim.arm.registry import GROUP, SUBSCRIPTION, Route
from tests.azuresim.network import interfaces, others, vnets, ways
from tests.azuresim.sim import AzureSim

VERSIONS = ("2017-10-01", "2018-11-01", "2020-11-01", "2023-11-01", "2024-05-01", "2025-05-01", "2026-03-01")
IN_GROUP = GROUP + "/providers/Microsoft.Network"
IN_SUBSCRIPTION = SUBSCRIPTION + "/providers/Microsoft.Network"


def plug(sim: AzureSim) -> None:
    sim.providers.setdefault("Microsoft.Network", "Registered")
    sim.arm.add([*_vnets(), *_interfaces(), *_others()])


def _vnets() -> list[Route]:
    one, v = IN_GROUP + "/virtualNetworks/{vnet}", VERSIONS
    subnet = one + "/subnets/{subnet}"
    return [
        Route("PUT", one, vnets.put, v, models.VirtualNetwork, models.VirtualNetwork),
        Route("GET", one, vnets.get, v, reply=models.VirtualNetwork),
        Route("DELETE", one, vnets.delete, v),
        Route("GET", IN_GROUP + "/virtualNetworks", vnets.list_in_group, v, items=models.VirtualNetwork),
        Route("GET", IN_SUBSCRIPTION + "/virtualNetworks", vnets.list_all, v, items=models.VirtualNetwork),
        Route("PUT", subnet, vnets.put_subnet, v, models.Subnet, models.Subnet),
        Route("GET", subnet, vnets.get_subnet, v, reply=models.Subnet),
        Route("DELETE", subnet, vnets.delete_subnet, v),
        Route("GET", one + "/subnets", vnets.list_subnets, v, items=models.Subnet),
        Route(
            "GET", one + "/CheckIPAddressAvailability", vnets.check_address, v, reply=models.IPAddressAvailabilityResult
        ),
        Route("GET", one + "/usages", vnets.usages, v, items=models.VirtualNetworkUsage),
    ]


def _interfaces() -> list[Route]:
    one, v = IN_GROUP + "/networkInterfaces/{nic}", VERSIONS
    return [
        Route("PUT", one, interfaces.put, v, models.NetworkInterface, models.NetworkInterface),
        Route("GET", one, interfaces.get, v, reply=models.NetworkInterface),
        Route("PATCH", one, interfaces.patch_tags, v, models.TagsObject, models.NetworkInterface),
        Route("DELETE", one, interfaces.delete, v),
        Route("GET", IN_GROUP + "/networkInterfaces", interfaces.list_in_group, v, items=models.NetworkInterface),
        Route("GET", IN_SUBSCRIPTION + "/networkInterfaces", interfaces.list_all, v, items=models.NetworkInterface),
    ]


def _others() -> list[Route]:
    address, group, v = IN_GROUP + "/publicIPAddresses/{address}", IN_GROUP + "/networkSecurityGroups/{nsg}", VERSIONS
    addresses, groups = IN_GROUP + "/publicIPAddresses", IN_GROUP + "/networkSecurityGroups"
    return [
        Route("PUT", address, others.put_address, v, models.PublicIPAddress, models.PublicIPAddress),
        Route("GET", address, others.get, v, reply=models.PublicIPAddress),
        Route("DELETE", address, others.delete_address, v),
        Route("GET", addresses, others.list_addresses, v, items=models.PublicIPAddress),
        Route("PUT", group, others.put_group, v, models.NetworkSecurityGroup, models.NetworkSecurityGroup),
        Route("GET", group, others.get, v, reply=models.NetworkSecurityGroup),
        Route("DELETE", group, others.delete_group, v),
        Route("GET", groups, others.list_groups, v, items=models.NetworkSecurityGroup),
        Route("GET", IN_GROUP + "/virtualNetworkGateways/{gateway}", ways.get, v, reply=models.VirtualNetworkGateway),
    ]
