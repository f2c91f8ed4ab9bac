"""By which ways people come into a virtual network: gateways, Bastion, peerings. Seeded by tests, read by the product.

Sources: virtualNetworkGateway.json, bastionHost.json and virtualNetworkPeering.json of the specification; "About VPN
Gateway configuration settings" (the gateway's subnet is called GatewaySubnet), "About Azure Bastion configuration
settings" (AzureBastionSubnet), "Create, change, or delete a virtual network peering" (Initiated until the other side is
made, then Connected).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.azuresim.arm.call import Call, Reply
from tests.azuresim.arm.store import Resource, Store
from tests.azuresim.network.making import etag

GATEWAYS, BASTIONS = "Microsoft.Network/virtualNetworkGateways", "Microsoft.Network/bastionHosts"
SUBNET_OF = {GATEWAYS: "GatewaySubnet", BASTIONS: "AzureBastionSubnet"}
CONFIGURATIONS = {GATEWAYS: "ipConfigurations", BASTIONS: "bastionHostIpConfigurations"}


def in_subnet(store: Store, subnet_id: str) -> Iterator[str]:
    """Ids of the IP configurations of gateways and Bastions in a subnet.

    That those of a Bastion are shown with the subnet, as those of a gateway are, is [inf].
    """
    for kind in SUBNET_OF:
        for one in store.of(kind):
            for configuration in one.properties["ipConfigurations"]:
                if configuration["properties"]["subnet"]["id"].lower() == subnet_id.lower():
                    yield configuration["id"]


def make(store: Store, kind: str, resource_id: str, subnet_id: str, location: str, **properties: Any) -> Resource:
    """Put a gateway or a Bastion into its subnet, which must have the name that Azure demands."""
    wanted = SUBNET_OF[kind]
    assert subnet_id.rpartition("/")[2] == wanted, f"a resource of {kind} lives in a subnet {wanted}"
    configuration = f"{resource_id}/{CONFIGURATIONS[kind]}/default"
    body = {
        "id": resource_id, "name": resource_id.rpartition("/")[2], "type": kind, "etag": etag(resource_id),
        "location": location,
        "properties": {
            "provisioningState": "Succeeded", **properties,
            "ipConfigurations": [
                {
                    "id": configuration, "name": "default", "etag": etag(configuration),
                    "properties": {
                        "subnet": {"id": subnet_id}, "privateIPAllocationMethod": "Dynamic",
                        "provisioningState": "Succeeded",
                    },
                }
            ],
        },
    }  # fmt: skip
    return store.put(Resource(resource_id, kind, body))


def peer(store: Store, vnet: Resource, name: str, remote_id: str) -> None:
    """Make one side of a peering; both are Connected once there are two."""
    other = store.get(remote_id)
    back = next((one for one in _peerings(other) if _remote(one) == vnet.id.lower()), None) if other else None
    state = "Connected" if back is not None else "Initiated"
    if back is not None:
        back["properties"]["peeringState"] = state
    peering_id = f"{vnet.id}/virtualNetworkPeerings/{name}"
    properties = {
        "remoteVirtualNetwork": {"id": remote_id}, "peeringState": state, "allowVirtualNetworkAccess": True,
        "allowForwardedTraffic": False, "allowGatewayTransit": False, "useRemoteGateways": False,
        "provisioningState": "Succeeded",
    }  # fmt: skip
    _peerings(vnet).append({"id": peering_id, "name": name, "etag": etag(peering_id), "properties": properties})


def _peerings(vnet: Resource | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = vnet.properties["virtualNetworkPeerings"] if vnet is not None else []
    return found


def _remote(peering: dict[str, Any]) -> str:
    return str(peering["properties"]["remoteVirtualNetwork"]["id"]).lower()


def get(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)
