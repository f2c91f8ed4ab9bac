"""Where a test machine is put: network, subnet, address."""

from __future__ import annotations

import ipaddress
from typing import Any

from tests.azuresim.sim import AzureSim
from tests.azuresim.siterecovery.refusals import bad
from tests.azuresim.siterecovery.state import HYPERV, Item

NICS = "Microsoft.Network/networkInterfaces"


def drill_network(sim: AzureSim, item: Item, given: dict[str, Any]) -> tuple[str, str]:
    """Network id and subnet of a test failover: the network that is given, or the item's own one for tests; in it
    the subnet set for tests, or the one named like the target's, or the first [doc: "Test failover to Azure"]."""
    if item.provider == HYPERV:
        return "", ""
    kind, network = given.get("networkType") or "", given.get("networkId") or ""
    details = given.get("providerSpecificDetails")
    if not network and isinstance(details, dict):
        network = details.get("networkId") or ""  # of the modernized provider's input [MIGRATE]
    if kind not in ("VmNetworkAsInput", "NoNetworkAttachAsInput"):
        raise bad(f"'{kind}' is no network type.", "properties.networkType")
    network = network or item.target.test_network
    if kind == "NoNetworkAttachAsInput" or not network:
        raise bad("A virtual machine in Azure needs a network.", "properties.networkId")  # [inf]
    found = sim.store.get(network)
    if found is None:
        raise bad(f"The virtual network '{network}' does not exist.", "properties.networkId")
    names = [one["name"] for one in found.properties.get("subnets") or []]
    if not names:
        names = [one.name for one in sim.store.below(network)]
    for wanted in (item.target.test_subnet, item.target.subnet):
        if wanted in names:
            return network, wanted
    if not names:
        raise bad(f"The virtual network '{network}' has no subnet.", "properties.networkId")
    return network, sorted(names)[0]


def same_address(sim: AzureSim, item: Item, network: str, subnet: str) -> str:
    """The address that the machine would get in a failover, if it is free in the test network; else any [doc: "Failover
    in Site Recovery", note on test failovers]."""
    wanted, here = item.target.static_ip, f"{network}/subnets/{subnet}"
    if not wanted or not any(ipaddress.ip_address(wanted) in one for one in _prefixes(sim, network, subnet)):
        return ""
    configs = [one["properties"] for nic in sim.store.of(NICS) for one in nic.properties.get("ipConfigurations") or []]
    taken = {
        one.get("privateIPAddress")
        for one in configs
        if (one.get("subnet") or {}).get("id", "").lower() == here.lower()
    }
    return "" if wanted in taken else wanted


def _prefixes(sim: AzureSim, network: str, subnet: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = sim.store.get(f"{network}/subnets/{subnet}")
    inside = [
        one["properties"] for one in sim.store.need(network).properties.get("subnets") or [] if one["name"] == subnet
    ]
    known: dict[str, Any] = found.properties if found else inside[0] if inside else {}
    texts = [known["addressPrefix"]] if known.get("addressPrefix") else known.get("addressPrefixes") or []
    return [ipaddress.ip_network(one) for one in texts]
