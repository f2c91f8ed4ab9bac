"""What a test's cloud holds before the test begins, made in one line each. All go through the simulator's own rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.azuresim.compute.diskfiles import FOOTER, GIB
from tests.azuresim.compute.state import compute
from tests.azuresim.network import ways
from tests.azuresim.sim import AzureSim


def _id(sim: AzureSim, group: str, kind: str, name: str) -> str:
    return f"/subscriptions/{sim.subscription}/resourceGroups/{group}/providers/{kind}/{name}"


def vnet(
    sim: AzureSim, group: str, name: str = "vnet", prefix: str = "10.1.0.0/16",
    subnets: Mapping[str, str] | None = None,
    location: str = "",
) -> str:  # fmt: skip
    """A virtual network with subnets by name (default: `default`, 10.1.0.0/24); gives its id."""
    wanted = {"default": "10.1.0.0/24"} if subnets is None else subnets
    body = {
        "location": location or sim.region,
        "properties": {
            "addressSpace": {"addressPrefixes": [prefix]},
            "subnets": [{"name": one, "properties": {"addressPrefix": value}} for one, value in wanted.items()],
        },
    }
    return str(sim.seed("PUT", _id(sim, group, "Microsoft.Network/virtualNetworks", name), body)["id"])


def subnet_id(vnet_id: str, name: str = "default") -> str:
    return f"{vnet_id}/subnets/{name}"


def gateway(sim: AzureSim, group: str, name: str, vnet_id: str, kind: str = "Vpn") -> str:
    """A VPN or ExpressRoute gateway in the subnet GatewaySubnet of a network; gives its id."""
    made = _id(sim, group, ways.GATEWAYS, name)
    more = {"gatewayType": kind, "vpnType": "RouteBased", "sku": {"name": "VpnGw1", "tier": "VpnGw1"}}
    return ways.make(sim.store, ways.GATEWAYS, made, subnet_id(vnet_id, "GatewaySubnet"), sim.region, **more).id


def bastion(sim: AzureSim, group: str, name: str, vnet_id: str) -> str:
    """A Bastion in the subnet AzureBastionSubnet of a network; gives its id."""
    made = _id(sim, group, ways.BASTIONS, name)
    return ways.make(sim.store, ways.BASTIONS, made, subnet_id(vnet_id, "AzureBastionSubnet"), sim.region).id


def peering(sim: AzureSim, vnet_id: str, remote_id: str) -> None:
    """One side of a peering of two networks; it is Connected once the other side is made too."""
    ways.peer(sim.store, sim.store.need(vnet_id), f"to-{remote_id.rpartition('/')[2]}", remote_id)


def guard(sim: AzureSim, group: str, name: str, rules: Sequence[Mapping[str, Any]]) -> str:
    """A network security group with rules of one's own (`name` and the properties); gives its id."""
    own = [{"name": one["name"], "properties": {k: v for k, v in one.items() if k != "name"}} for one in rules]
    body = {"location": sim.region, "properties": {"securityRules": own}}
    return str(sim.seed("PUT", _id(sim, group, "Microsoft.Network/networkSecurityGroups", name), body)["id"])


def nic(
    sim: AzureSim, group: str, name: str, subnet: str, address: str = "", tags: Mapping[str, str] | None = None
) -> str:
    """A network interface in a subnet (its id), with a static address when one is given; gives its id."""
    properties: dict[str, Any] = {"subnet": {"id": subnet}}
    if address:
        properties.update(privateIPAllocationMethod="Static", privateIPAddress=address)
    body = {
        "location": sim.region, "tags": dict(tags or {}),
        "properties": {"ipConfigurations": [{"name": "ipconfig1", "properties": properties}]},
    }  # fmt: skip
    return str(sim.seed("PUT", _id(sim, group, "Microsoft.Network/networkInterfaces", name), body)["id"])


def disk(
    sim: AzureSim, group: str, name: str, data: bytes | None = None, gib: int = 1, os_type: str = "",
    kind: str = "Standard_LRS", generation: str = "V1", tags: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """An unattached disk: empty of `gib` GiB, or exactly as long as `data` (whole MiB, 20 or more); gives its id."""
    creation: dict[str, Any] = {"createOption": "Empty"}
    if data is not None:
        creation = {"createOption": "Upload", "uploadSizeBytes": len(data) + FOOTER}
    properties: dict[str, Any] = {"creationData": creation}
    if data is None:
        properties["diskSizeGB"] = gib
    if os_type:
        properties.update(osType=os_type, hyperVGeneration=generation)
    body = {"location": sim.region, "sku": {"name": kind}, "properties": properties, "tags": dict(tags or {})}
    made = sim.seed("PUT", _id(sim, group, "Microsoft.Compute/disks", name), body)
    if data is not None:
        files = compute(sim).files
        files.path(made["id"]).write_bytes(data)
        compute(sim).disk(name, group).properties["diskState"] = "Unattached"
    return str(made["id"])


def machine(
    sim: AzureSim, group: str, name: str, os_disk: str, nics: Sequence[str], data_disks: Sequence[str] = (),
    size: str = "Standard_D2s_v5", tags: Mapping[str, str] | None = None, running: bool = True,
) -> str:  # fmt: skip
    """A machine on existing disks (ids) and interfaces (ids), running unless said otherwise; gives its id."""
    os_type = sim.store.need(os_disk).properties.get("osType") or "Linux"
    body = {
        "location": sim.region, "tags": dict(tags or {}),
        "properties": {
            "hardwareProfile": {"vmSize": size},
            "storageProfile": {
                "osDisk": {"osType": os_type, "createOption": "Attach", "managedDisk": {"id": os_disk}},
                "dataDisks": [
                    {"lun": lun, "createOption": "Attach", "managedDisk": {"id": one}}
                    for lun, one in enumerate(data_disks)
                ],
            },
            "networkProfile": {
                "networkInterfaces": [
                    {"id": one, "properties": {"primary": number == 0}} for number, one in enumerate(nics)
                ]
            },
        },
    }  # fmt: skip
    made = sim.seed("PUT", _id(sim, group, "Microsoft.Compute/virtualMachines", name), body)
    if not running:
        sim.seed("POST", f"{made['id']}/deallocate")
    return str(made["id"])


__all__ = ["GIB", "bastion", "disk", "gateway", "guard", "machine", "nic", "peering", "subnet_id", "vnet"]
