"""Virtual networks and subnets. Source: the specification virtualNetwork.json; refusals from Azure docs and reports
as cited."""

from __future__ import annotations

import ipaddress
import uuid
from itertools import combinations, islice
from typing import Any

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.store import Resource
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.network.addresses import RESERVED, free, is_reserved, prefixes, taken
from tests.azuresim.network.making import etag, making
from tests.azuresim.network.ways import in_subnet

VNETS, SUBNETS = "Microsoft.Network/virtualNetworks", "Microsoft.Network/virtualNetworks/subnets"


def put(call: Call) -> Later:
    check_tags(call.body.get("tags"))
    given = {name: value for name, value in (call.body.get("properties") or {}).items() if value is not None}
    space = prefixes(given.get("addressSpace") or {})
    if not space:
        # source of the rule: description of AddressSpace; the code is [inf], as for a subnet without a prefix
        raise ArmError(400, "InvalidRequestFormat", f"Virtual network {call.args['vnet']} has no address prefixes.")
    wanted = given.pop("subnets", None) or []
    known = call.sim.store.get(call.path)
    _check_subnets(call.args["vnet"], space, {one["name"]: prefixes(one["properties"]) for one in wanted})
    kept = {one["name"].lower() for one in wanted}
    for subnet in list(call.sim.store.of(SUBNETS, call.path)):
        if subnet.name.lower() not in kept:
            _in_use(call, subnet)
            call.sim.store.remove(subnet.id)
    body = {
        "id": call.path, "name": call.args["vnet"], "type": VNETS, "etag": etag(call.path),
        "location": call.sim.check_location(call.body.get("location") or call.sim.region, VNETS),
        "tags": call.body.get("tags") or {},
        "properties": {
            **given, "provisioningState": "Succeeded", "resourceGuid": str(uuid.uuid5(uuid.NAMESPACE_OID, call.path)),
            "virtualNetworkPeerings": given.get("virtualNetworkPeerings") or [], "enableDdosProtection": False,
        },
    }  # fmt: skip
    vnet = call.sim.store.put(Resource(call.path, VNETS, body))
    for one in wanted:
        _store_subnet(call, f"{vnet.id}/subnets/{one['name']}", one["properties"])
    return making(vnet, known is not None, lambda: shown(call, vnet))


def _check_subnets(vnet: str, space: list[Any], subnets: dict[str, list[Any]]) -> None:
    """Source of the codes: Azure docs, resource-manager/troubleshooting (NetcfgInvalidSubnet,
    NetcfgSubnetRangesOverlap)."""
    for name, networks in subnets.items():
        for network in networks:
            if not any(network.subnet_of(one) for one in space):
                raise ArmError(400, "NetcfgInvalidSubnet", f"Subnet '{name}' is not valid in virtual network '{vnet}'.")
    flat = [(name, network) for name, networks in subnets.items() for network in networks]
    for (name, network), (other, against) in combinations(flat, 2):
        if network.overlaps(against):
            raise ArmError(
                400, "NetcfgSubnetRangesOverlap", f"Subnet '{name}' is not valid because its IP address range "
                f"overlaps with "
                f"that of an existing subnet in virtual network '{vnet}' ('{other}').",
            )  # fmt: skip


def _store_subnet(call: Call, subnet_id: str, properties: dict[str, Any]) -> Resource:
    body = {
        "id": subnet_id, "name": subnet_id.rpartition("/")[2], "type": SUBNETS, "etag": etag(subnet_id),
        "properties": {
            **{name: value for name, value in properties.items() if value is not None},
            "delegations": [_delegation(subnet_id, one) for one in properties.get("delegations") or []],
            "serviceEndpoints": [_endpoint(call, one) for one in properties.get("serviceEndpoints") or []],
            "purpose": "PrivateEndpoints", "privateEndpointNetworkPolicies": "Disabled",
            "privateLinkServiceNetworkPolicies": "Enabled", "provisioningState": "Succeeded",
        },
    }  # fmt: skip
    return call.sim.store.put(Resource(subnet_id, SUBNETS, body))


def _delegation(subnet_id: str, given: dict[str, Any]) -> dict[str, Any]:
    delegation_id = f"{subnet_id}/delegations/{given.get('name')}"
    properties = {**(given.get("properties") or {}), "provisioningState": "Succeeded"}
    return {**given, "id": delegation_id, "etag": etag(delegation_id), "properties": properties}


def _endpoint(call: Call, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "locations": given.get("locations") or [call.sim.region], "provisioningState": "Succeeded"}


def shown(call: Call, vnet: Resource) -> dict[str, Any]:
    subnets = [_subnet(call, one) for one in call.sim.store.of(SUBNETS, vnet.id)]
    return {**vnet.body, "properties": {**vnet.properties, "subnets": subnets}}


def _subnet(call: Call, subnet: Resource) -> dict[str, Any]:
    used = [{"id": one} for one in (*taken(call.sim.store, subnet.id).values(), *in_subnet(call.sim.store, subnet.id))]
    return {**subnet.body, "properties": {**subnet.properties, **({"ipConfigurations": used} if used else {})}}


def get(call: Call) -> Reply:
    return Reply(shown(call, call.sim.store.need(call.path)))


def list_in_group(call: Call) -> Reply:
    return Reply({"value": [shown(call, one) for one in call.sim.store.of(VNETS, call.group_id)]})


def list_all(call: Call) -> Reply:
    return Reply({"value": [shown(call, one) for one in call.sim.store.of(VNETS)]})


def delete(call: Call) -> Reply | Later:
    vnet = call.sim.store.get(call.path)
    if vnet is None:
        return Reply(status=204)
    for subnet in call.sim.store.of(SUBNETS, vnet.id):
        _in_use(call, subnet)

    def finish() -> None:
        for one in call.sim.store.below(vnet.id):
            call.sim.store.remove(one.id)
        call.sim.store.remove(vnet.id)

    return Later(finish, vnet.id)


def _in_use(call: Call, subnet: Resource) -> None:
    """Source of code and wording: hashicorp/terraform-provider-azurerm issue 334."""
    used = list(taken(call.sim.store, subnet.id).values())
    if used:
        raise ArmError(
            400, "InUseSubnetCannotBeDeleted", f"Subnet {subnet.name} is in use by {used[0]} and cannot be deleted. "
            f"In order "
            "to delete the subnet, delete all the resources within the subnet. See aka.ms/deletesubnet.",
        )  # fmt: skip


def _parent(call: Call) -> Resource:
    return call.sim.store.need(f"{call.group_id}/providers/{VNETS}/{call.args['vnet']}")


def put_subnet(call: Call) -> Later:
    vnet = _parent(call)
    given, known = call.body.get("properties") or {}, call.sim.store.get(call.path)
    others = {one.name: prefixes(one.properties) for one in call.sim.store.of(SUBNETS, vnet.id)}
    others = {name: value for name, value in others.items() if name.lower() != call.args["subnet"].lower()}
    mine = prefixes(given)
    if not mine:
        raise ArmError(400, "InvalidRequestFormat", f"Subnet {call.args['subnet']} has no address prefix.")
    if known and mine != prefixes(known.properties) and taken(call.sim.store, known.id):
        # source of the rule: Azure docs "Add, change, or delete a virtual network subnet" (only an
        # empty one changes its range); the code is [inf]
        raise ArmError(
            400, "InUsePrefixCannotBeDeleted", f"IpPrefix of subnet {known.name} is in use and cannot be changed."
        )
    _check_subnets(vnet.name, prefixes(vnet.properties["addressSpace"]), {**others, call.args["subnet"]: mine})
    subnet = _store_subnet(call, call.path, given)
    return making(subnet, known is not None)


def get_subnet(call: Call) -> Reply:
    _parent(call)
    return Reply(_subnet(call, call.sim.store.need(call.path)))


def list_subnets(call: Call) -> Reply:
    return Reply({"value": [_subnet(call, one) for one in call.sim.store.of(SUBNETS, _parent(call).id)]})


def delete_subnet(call: Call) -> Reply | Later:
    subnet = call.sim.store.get(call.path)
    if subnet is None:
        return Reply(status=204)
    _in_use(call, subnet)
    return Later(lambda: call.sim.store.remove(subnet.id) and None, subnet.id)


def check_address(call: Call) -> Reply:
    """VirtualNetworks_CheckIPAddressAvailability."""
    vnet = _parent(call)
    try:
        asked = ipaddress.IPv4Address(call.query.get("ipAddress", ""))
    except ValueError as error:
        raise ArmError(
            400, "InvalidIPAddressFormat", f"The IP address '{call.query.get('ipAddress')}' is invalid."
        ) from error
    for subnet in call.sim.store.of(SUBNETS, vnet.id):
        for network in prefixes(subnet.properties):
            if asked in network:
                reserved = is_reserved(network, asked)
                if not reserved and str(asked) not in taken(call.sim.store, subnet.id):
                    return Reply({"available": True, "isPlatformReserved": False})
                near = list(islice(free(call.sim.store, subnet), 5))
                return Reply({"available": False, "availableIPAddresses": near, "isPlatformReserved": reserved})
    # source: reports of this code for addresses outside every subnet; [inf] that checking answers with it
    raise ArmError(
        400, "PrivateIPAddressNotInAnySubnet", f"Private static IP address {asked} does not belong to the range of "
        f"any subnet "
        f"in the virtual network {vnet.id}.",
    )  # fmt: skip


def usages(call: Call) -> Reply:
    """VirtualNetworks_ListUsage: what each subnet holds and can hold."""
    found = []
    for subnet in call.sim.store.of(SUBNETS, _parent(call).id):
        room = sum(one.num_addresses - RESERVED for one in prefixes(subnet.properties))
        found.append(
            {
                "currentValue": len(taken(call.sim.store, subnet.id)), "id": subnet.id, "limit": room,
                "name": {"localizedValue": "Subnet size and usage", "value": "SubnetSpace"}, "unit": "Count",
            }
        )  # fmt: skip
    return Reply({"value": found})
