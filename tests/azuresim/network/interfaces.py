"""Network interfaces with static and dynamic addresses. Source: networkInterface.json; refusals as cited."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Any

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.refusals import reference_missing
from tests.azuresim.arm.store import Resource
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.network.addresses import NICS, free, is_reserved, prefixes, taken
from tests.azuresim.network.making import etag, making
from tests.azuresim.network.vnets import SUBNETS


def put(call: Call) -> Later:
    check_tags(call.body.get("tags"))
    known = call.sim.store.get(call.path)
    given = {name: value for name, value in (call.body.get("properties") or {}).items() if value is not None}
    wanted = given.get("ipConfigurations") or []
    if not wanted:
        # [inf]: code and words
        raise ArmError(
            400, "NetworkInterfaceMustHaveAtLeastOneIPConfiguration",
            f"Network interface {call.path} must have at least one IP configuration.",
        )  # fmt: skip
    location = call.sim.check_location(call.body.get("location") or call.sim.region, NICS)
    first = ((wanted[0].get("properties") or {}).get("subnet") or {}).get("id") or ""
    made = [_configuration(call, one, known, first if number else "", location) for number, one in enumerate(wanted)]
    if len({one["properties"]["subnet"]["id"].rpartition("/subnets/")[0].lower() for one in made}) > 1:
        # [inf]: code and words
        raise ArmError(
            400, "SubnetsNotInSameVnet", f"Subnets referenced by the IP configurations of {call.path} are not in the "
            f"same "
            "virtual network.",
        )  # fmt: skip
    nic = call.sim.store.put(Resource(call.path, NICS, _body(call, given, made, known, location)))
    return making(nic, known is not None)


def _configuration(
    call: Call, given: dict[str, Any], nic: Resource | None, first: str, location: str
) -> dict[str, Any]:
    properties = {name: value for name, value in (given.get("properties") or {}).items() if value is not None}
    # a further configuration may leave its subnet to the first (the specification's example NetworkInterfaceCreate)
    subnet_id = (properties.get("subnet") or {}).get("id") or first
    subnet = call.sim.store.get(subnet_id)
    configuration_id = f"{call.path}/ipConfigurations/{given.get('name')}"
    vnet = call.sim.store.get(subnet_id.rpartition("/subnets/")[0])
    if subnet is None or subnet.kind != SUBNETS or vnet is None or vnet.body["location"] != location:
        raise reference_missing(subnet_id, configuration_id)
    call.require("Microsoft.Network/virtualNetworks/subnets/join/action", subnet.id)
    if public := (properties.get("publicIPAddress") or {}).get("id"):
        _take_public(call, public, configuration_id)
    static = str(properties.get("privateIPAllocationMethod") or "Dynamic").lower() == "static"
    before = _before(nic, str(given.get("name")), subnet.id)
    if static and not properties.get("privateIPAddress"):
        # [inf] the code; that a static allocation needs an address is in the description of privateIPAddress
        raise ArmError(
            400, "PrivateIPAddressNotSpecified",
            f"IP configuration {configuration_id} has static allocation and no private IP address.",
        )  # fmt: skip
    address = (
        _static(call, subnet, properties["privateIPAddress"], configuration_id)
        if static
        else before or _dynamic(call, subnet)
    )
    return {
        "id": configuration_id, "name": given.get("name"), "etag": etag(configuration_id),
        "type": f"{NICS}/ipConfigurations",
        "properties": {
            **properties, "privateIPAddress": address, "privateIPAllocationMethod": "Static" if static else "Dynamic",
            "subnet": {"id": subnet.id}, "primary": bool(properties.get("primary", not first)),
            "privateIPAddressVersion": "IPv4", "provisioningState": "Succeeded",
        },
    }  # fmt: skip


def _before(nic: Resource | None, name: str, subnet_id: str) -> str | None:
    for one in nic.properties["ipConfigurations"] if nic else []:
        if one["name"] == name and one["properties"]["subnet"]["id"].lower() == subnet_id.lower():
            return str(one["properties"]["privateIPAddress"])
    return None


def _static(call: Call, subnet: Resource, asked: str, configuration_id: str) -> str:
    """Source of codes and wording: Azure docs, resource-manager/troubleshooting/common-deployment-errors, and
    (allocated)
    Azure docs "Private Link" for PostgreSQL, which quotes it."""
    try:
        address = ipaddress.IPv4Address(asked)
    except ValueError as error:
        raise ArmError(400, "InvalidIPAddressFormat", f"The IP address '{asked}' is invalid.") from error
    networks = prefixes(subnet.properties)
    network = next((one for one in networks if address in one), None)
    shown = ",".join(str(one) for one in networks)
    if network is None:
        raise ArmError(
            400, "PrivateIPAddressNotInSubnet",
            f"Private static IP address {asked} does not belong to the range of subnet prefix {shown}.",
        )  # fmt: skip
    if is_reserved(network, address):
        raise ArmError(
            400, "PrivateIPAddressInReservedRange",
            f"Private static IP address {asked} falls within reserved IP range of subnet prefix {shown}.",
        )  # fmt: skip
    user = taken(call.sim.store, subnet.id).get(str(address))
    if user and not user.lower().startswith(call.path.lower() + "/"):
        raise ArmError(
            400, "PrivateIPAddressIsAllocated", f"IP configuration {configuration_id} is using the private IP "
            f"address {asked} "
            f"which is already allocated to resource {user}.",
        )  # fmt: skip
    return str(address)


def _dynamic(call: Call, subnet: Resource) -> str:
    """Source of code and wording: MicrosoftDocs/azure-docs issue 88211."""
    found = next(free(call.sim.store, subnet), None)
    if found is None:
        shown = ",".join(str(one) for one in prefixes(subnet.properties))
        raise ArmError(
            400, "SubnetIsFull",
            f"Subnet {subnet.name} with address prefix {shown} does not have enough capacity for 1 IP addresses.",
        )  # fmt: skip
    return found


def _take_public(call: Call, address_id: str, configuration_id: str) -> None:
    """Source of the wording: MicrosoftLearning/AZ-100 issue 15; the code is [inf]."""
    address = call.sim.store.get(address_id)
    if address is None:
        raise reference_missing(address_id, configuration_id)
    call.require("Microsoft.Network/publicIPAddresses/join/action", address.id)
    user = (address.properties.get("ipConfiguration") or {}).get("id")
    if user and user.lower() != configuration_id.lower():
        raise ArmError(
            400, "PublicIPAddressInUse", f"Resource {configuration_id} is referencing public IP address {address.id} "
            f"that is "
            f"already allocated to resource {user}.",
        )  # fmt: skip
    address.properties["ipConfiguration"] = {"id": configuration_id}


def _body(
    call: Call, given: dict[str, Any], made: list[dict[str, Any]], known: Resource | None, location: str
) -> dict[str, Any]:
    kept = (
        {"virtualMachine": known.properties["virtualMachine"]} if known and "virtualMachine" in known.properties else {}
    )
    return {
        "id": call.path, "name": call.args["nic"], "type": NICS, "location": location, "etag": etag(call.path),
        "tags": call.body.get("tags") or {},
        "properties": {
            **given, "ipConfigurations": made, "provisioningState": "Succeeded", "nicType": "Standard",
            "resourceGuid": str(uuid.uuid5(uuid.NAMESPACE_OID, call.path.lower())),
            "dnsSettings": {"dnsServers": [], "appliedDnsServers": [], **(given.get("dnsSettings") or {})},
            "vnetEncryptionSupported": False,
            "enableAcceleratedNetworking": bool(given.get("enableAcceleratedNetworking")),
            "enableIPForwarding": bool(given.get("enableIPForwarding")), "hostedWorkloads": [],
            "tapConfigurations": [], **kept,
        },
    }  # fmt: skip


def get(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)


def patch_tags(call: Call) -> Reply:
    nic = call.sim.store.need(call.path)
    check_tags(call.body.get("tags"))
    nic.body["tags"] = call.body.get("tags") or {}
    return Reply(nic.body)


def list_in_group(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(NICS, call.group_id)]})


def list_all(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(NICS)]})


def delete(call: Call) -> Reply | Later:
    nic = call.sim.store.get(call.path)
    if nic is None:
        return Reply(status=204)
    user = (nic.properties.get("virtualMachine") or {}).get("id")
    if user:
        # source of code and wording: hashicorp/terraform-provider-azurerm issue 8105
        raise ArmError(
            400, "NicInUse", f"Network Interface {nic.id} is used by existing resource {user}. In order to delete "
            f"the network "
            "interface, it must be dissociated from the resource. To learn more, see aka.ms/deletenic.",
        )  # fmt: skip
    if call.sim.reserved_nics.get(nic.id.lower(), 0) > 0:
        # source: gardenlinux/gardenlinux issue 4133 (180 seconds after a machine that used it failed or went away)
        call.sim.reserved_nics[nic.id.lower()] -= 1
        raise ArmError(
            400, "NicReservedForAnotherVm", "Nic(s) in request is reserved for another Virtual Machine for 180 "
            "seconds. Please "
            "provide another nic(s) or retry after 180 seconds. Reserved VM: "
            f"{call.group_id}/providers/Microsoft.Compute/virtualMachines/{nic.name}",
        )  # fmt: skip

    def finish() -> None:
        for address in call.sim.store.of("Microsoft.Network/publicIPAddresses"):
            if (
                str((address.properties.get("ipConfiguration") or {}).get("id", ""))
                .lower()
                .startswith(nic.id.lower() + "/")
            ):
                address.properties.pop("ipConfiguration")
        call.sim.store.remove(nic.id)

    return Later(finish, nic.id)
