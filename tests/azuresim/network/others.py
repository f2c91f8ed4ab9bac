"""Public addresses and security groups, as far as an interface refers to them."""

from __future__ import annotations

import uuid

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.store import Resource
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.network.addresses import NICS
from tests.azuresim.network.making import etag, making

DEFAULT_RULES = (
    ("AllowVnetInBound", "Inbound", True, "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", "Inbound", True, "AzureLoadBalancer", "*"),
    ("DenyAllInBound", "Inbound", False, "*", "*"),
    ("AllowVnetOutBound", "Outbound", True, "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", "Outbound", True, "*", "Internet"),
    ("DenyAllOutBound", "Outbound", False, "*", "*"),
)
ADDRESSES, GROUPS = "Microsoft.Network/publicIPAddresses", "Microsoft.Network/networkSecurityGroups"


def _put(call: Call, kind: str, name: str, more: dict[str, object]) -> Later:
    check_tags(call.body.get("tags"))
    known = call.sim.store.get(call.path)
    given = {key: value for key, value in (call.body.get("properties") or {}).items() if value is not None}
    extra = {key: call.body[key] for key in ("sku", "zones") if call.body.get(key)}
    if kind == ADDRESSES:
        extra["sku"] = {"name": "Basic", "tier": "Regional", **(extra.get("sku") or {})}
    body = {
        "id": call.path, "name": name, "type": kind, "etag": etag(call.path),
        "tags": call.body.get("tags") or {}, **extra,
        "location": call.sim.check_location(call.body.get("location") or call.sim.region, kind),
        "properties": {
            **more, **given, **(known.properties if known else {}), "provisioningState": "Succeeded",
            "resourceGuid": str(uuid.uuid5(uuid.NAMESPACE_OID, call.path.lower())),
        },
    }  # fmt: skip
    made = call.sim.store.put(Resource(call.path, kind, body))
    return making(made, known is not None)


def put_address(call: Call) -> Later:
    count = len(list(call.sim.store.of(ADDRESSES)))
    more = {
        "publicIPAddressVersion": "IPv4", "publicIPAllocationMethod": "Dynamic", "idleTimeoutInMinutes": 4,
        "ipAddress": f"203.0.113.{count % 250 + 1}",
    }  # fmt: skip
    return _put(call, ADDRESSES, call.args["address"], more)


def put_group(call: Call) -> Later:
    """With the rules that every group has (source: Azure docs "Network security groups", default security rules)."""
    rules = [
        _default_rule(f"{call.path}/defaultSecurityRules/", number, *one) for number, one in enumerate(DEFAULT_RULES)
    ]
    return _put(call, GROUPS, call.args["nsg"], {"securityRules": [], "defaultSecurityRules": rules})


def _default_rule(below: str, number: int, name: str, way: str, allow: bool, source: str, to: str) -> dict[str, object]:
    return {
        "id": below + name, "name": name,
        "properties": {
            "protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*", "sourceAddressPrefix": source,
            "destinationAddressPrefix": to, "access": "Allow" if allow else "Deny", "direction": way,
            "priority": 65000 + (number % 3 if number % 3 < 2 else 500), "provisioningState": "Succeeded",
            "description": name,
        },
    }  # fmt: skip


def get(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)


def list_addresses(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(ADDRESSES, call.group_id)]})


def list_groups(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(GROUPS, call.group_id)]})


def delete_address(call: Call) -> Reply | Later:
    address = call.sim.store.get(call.path)
    if address is None:
        return Reply(status=204)
    if user := (address.properties.get("ipConfiguration") or {}).get("id"):
        # source of the code: hashicorp/terraform-provider-azurerm issue 688
        raise ArmError(
            400, "PublicIPAddressCannotBeDeleted", f"Public IP address {address.id} can not be deleted since it is "
            f"still "
            f"allocated to resource {user}.",
        )  # fmt: skip
    return Later(lambda: call.sim.store.remove(address.id) and None, address.id)


def delete_group(call: Call) -> Reply | Later:
    group = call.sim.store.get(call.path)
    if group is None:
        return Reply(status=204)
    for nic in call.sim.store.of(NICS):
        if (nic.properties.get("networkSecurityGroup") or {}).get("id", "").lower() == group.id.lower():
            # [inf]: code and words
            raise ArmError(
                400, "InUseNetworkSecurityGroupCannotBeDeleted",
                f"Network security group {group.id} cannot be deleted because it is in use by: {nic.id}.",
            )  # fmt: skip
    return Later(lambda: call.sim.store.remove(group.id) and None, group.id)
