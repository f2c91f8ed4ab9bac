"""How people reach a machine after it was recovered ("prepare to connect"): known before, or in the night it counts.

Recovered machines get no public address: whoever works on them comes through Bastion, a VPN or ExpressRoute gateway, or
a peered network, and the subnet's security group must let him in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farshore_engine.azure.cloud import Cloud, plain
from farshore_engine.azure.network import group_of, subnet_of, vnet_of
from farshore_engine.azure.place import Place
from farshore_engine.contract.faults import StopFault

SSH, RDP = 22, 3389
GATEWAYS, BASTION = "GatewaySubnet", "AzureBastionSubnet"
"""Names that Azure demands. Source: "About VPN Gateway configuration settings", gateway subnet; "About Azure Bastion
configuration settings", subnet."""
PEOPLE = ("*", "virtualnetwork", "internet", "any", "0.0.0.0/0")
"""Sources of a rule that take people of peered and connected networks along. Source: "Virtual network service tags":
VirtualNetwork has the peered networks, and what is connected by a gateway, in it."""
PREPARE = (
    "Add Azure Bastion to the network, peer it with the one that people work from, or connect it by ExpressRoute or a "
    "VPN gateway; a public address can also be given to a machine by hand after its failover"
)


@dataclass(frozen=True)
class Rule:
    """What of a security rule decides on people who come in by TCP."""

    name: str
    priority: int
    allows: bool
    ports: tuple[str, ...]
    sources: tuple[str, ...]

    def is_about(self, port: int) -> bool:
        """Tell whether it decides on a port for whoever is in the network or connected to it."""
        return any(_among(one, port) for one in self.ports) and any(one.lower() in PEOPLE for one in self.sources)

    def lets_some(self, port: int) -> bool:
        """Tell whether it lets some networks in."""
        return self.allows and any(_among(one, port) for one in self.ports)


def ways_in(cloud: Cloud, place: Place, port: int = SSH) -> str:
    """Say how people reach machines in the subnet of a place.

    Args:
        port: where they log in, RDP for Windows.

    Raises:
        StopFault: they do not; the caller takes that as a warning.
    """
    vnet = vnet_of(cloud, place)
    subnet = subnet_of(vnet, next(one.subnet for one in place.target.nics() if one.primary))
    where = f"machines in {vnet.name}/{subnet.name}"
    found = (*_behind(cloud, vnet), *_peerings(vnet))
    if not found:
        raise StopFault(
            f"nobody would reach {where}: they get no public address, and {vnet.name} has no Bastion, no gateway and "
            "no connected peering",
            PREPARE,
            reason="NoWayIn",
        )
    closed = _closed(cloud, subnet, port)
    if closed:
        raise StopFault(
            f"people come into {vnet.name} by {', '.join(found)}, but {closed}",
            f"Allow TCP {port} from where people work with a rule of a lower number",
            reason="PortClosed",
        )
    return f"people reach {where} by their private address: {', '.join(found)} (they get no public address)"


def first_rule(rules: tuple[Rule, ...], port: int) -> Rule | None:
    """Return the rule that decides on a port for people who come in: the first one that is about them."""
    return next((one for one in sorted(rules, key=lambda rule: rule.priority) if one.is_about(port)), None)


def _behind(cloud: Cloud, vnet: Any) -> tuple[str, ...]:
    """Return the Bastion and the gateways of a network. That a Bastion shows in its subnet like a gateway is [inf]."""
    found = []
    for subnet in vnet.subnets or ():
        users = [str(one.id) for one in subnet.ip_configurations or ()]
        if str(subnet.name).lower() == BASTION.lower() and users:
            found.append(f"Bastion {_owner(users[0])}")
        elif str(subnet.name).lower() == GATEWAYS.lower():
            found += [
                _gateway(cloud, one) for one in sorted({user.rpartition("/ipConfigurations/")[0] for user in users})
            ]
    return tuple(found)


def _gateway(cloud: Cloud, gateway_id: str) -> str:
    name = gateway_id.rpartition("/")[2]
    found = cloud.find(
        f"look at gateway {name}", lambda: cloud.network.virtual_network_gateways.get(group_of(gateway_id), name)
    )
    kind = plain(found.gateway_type) if found is not None else ""
    if kind == "Vpn":
        return f"VPN gateway {name} (for people; replication over a site-to-site VPN is not supported)"
    return f"{kind or 'unknown'} gateway {name}"


def _peerings(vnet: Any) -> tuple[str, ...]:
    found = []
    for one in vnet.virtual_network_peerings or ():
        if plain(one.peering_state) == "Connected" and one.allow_virtual_network_access is not False:
            remote = str(one.remote_virtual_network.id if one.remote_virtual_network is not None else "")
            found.append(f"peering with {remote.rpartition('/')[2] or one.name}")
    return tuple(found)


def _closed(cloud: Cloud, subnet: Any, port: int) -> str:
    """Say which rule keeps people out of a subnet, nothing where none does or where it has no security group."""
    guard = str(subnet.network_security_group.id) if subnet.network_security_group is not None else ""
    if not guard:
        return ""
    name = guard.rpartition("/")[2]
    found = cloud.find(
        f"look at network security group {name}",
        lambda: cloud.network.network_security_groups.get(group_of(guard), name),
    )
    if found is None:
        return ""
    rules = tuple(
        _rule(one)
        for one in (*(found.security_rules or ()), *(found.default_security_rules or ()))
        if plain(one.direction) == "Inbound" and plain(one.protocol).lower() in ("*", "tcp")
    )
    decides = first_rule(rules, port)
    if decides is None or decides.allows:
        return ""
    some = [one.name for one in rules if one.priority < decides.priority and one.lets_some(port)]
    if some:
        return ""  # it lets in those whom somebody has named
    return f"rule {decides.name} of its security group {name} keeps TCP {port} out"


def _rule(given: Any) -> Rule:
    ports = tuple(given.destination_port_ranges or ()) or (str(given.destination_port_range or "*"),)
    sources = tuple(given.source_address_prefixes or ()) or (str(given.source_address_prefix or "*"),)
    return Rule(str(given.name), int(given.priority or 0), plain(given.access) == "Allow", ports, sources)


def _among(ports: str, port: int) -> bool:
    if ports == "*":
        return True
    low, _, high = ports.partition("-")
    return low.isdigit() and int(low) <= port <= int(high or low)


def _owner(configuration_id: str) -> str:
    parts = configuration_id.split("/")
    lower = [part.lower() for part in parts]
    return parts[lower.index("bastionhosts") + 1] if "bastionhosts" in lower else "host"
