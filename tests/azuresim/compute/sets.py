"""Availability sets. Source: ComputeRP.json, AvailabilitySets; limits from Azure docs "Availability sets overview"."""

from __future__ import annotations

from typing import Any

from tests.azuresim.arm.call import Call, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.store import Resource
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.compute.state import MACHINES, SETS


def put(call: Call) -> Reply:
    check_tags(call.body.get("tags"))
    given = {name: value for name, value in (call.body.get("properties") or {}).items() if value is not None}
    faults, updates = given.get("platformFaultDomainCount") or 1, given.get("platformUpdateDomainCount") or 5
    if not 1 <= faults <= 3 or not 1 <= updates <= 20:
        # source: common VM errors, InvalidParameter; ranges: "Availability sets overview"
        raise ArmError(
            400, "InvalidParameter", f"The specified fault domain count {faults} must fall in the range 1 to 3.",
            target="platformFaultDomainCount",
        )  # fmt: skip
    location = call.sim.check_location(call.body["location"], SETS)
    known = call.sim.store.get(call.path)
    if known is not None:
        for name, value in (("platformFaultDomainCount", faults), ("platformUpdateDomainCount", updates)):
            if name in given and known.properties[name] != value:
                raise ArmError(
                    409, "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.", target=name
                )
        if call.body.get("tags") is not None:
            known.body["tags"] = call.body["tags"]
        return Reply(_shown(call, known))
    body = {
        "id": call.path, "name": call.args["set"], "type": SETS, "location": location,
        "tags": call.body.get("tags") or {},
        "sku": {"name": (call.body.get("sku") or {}).get("name") or "Classic"},
        "properties": {**given, "platformFaultDomainCount": faults, "platformUpdateDomainCount": updates},
    }  # fmt: skip
    return Reply(_shown(call, call.sim.store.put(Resource(call.path, SETS, body))))


def _members(call: Call, found: Resource) -> list[dict[str, str]]:
    machines = call.sim.store.of(MACHINES)
    named = [(one, (one.properties.get("availabilitySet") or {}).get("id", "")) for one in machines]
    return [{"id": one.id} for one, set_id in named if set_id.lower() == found.id.lower()]


def _shown(call: Call, found: Resource) -> dict[str, Any]:
    return {**found.body, "properties": {**found.properties, "virtualMachines": _members(call, found)}}


def get(call: Call) -> Reply:
    return Reply(_shown(call, call.sim.store.need(call.path)))


def list_in_group(call: Call) -> Reply:
    return Reply({"value": [_shown(call, one) for one in call.sim.store.of(SETS, call.group_id)]})


def delete(call: Call) -> Reply:
    found = call.sim.store.get(call.path)
    if found is None:
        return Reply(status=204)
    if _members(call, found):
        # source: common VM errors, OperationNotAllowed
        raise ArmError(
            409, "OperationNotAllowed", f"Availability Set {found.name} cannot be deleted. Before deleting an "
            f"Availability "
            "Set please ensure that it does not contain any VM.",
        )  # fmt: skip
    call.sim.store.remove(found.id)
    return Reply()
