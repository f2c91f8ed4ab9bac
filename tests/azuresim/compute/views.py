"""Reading machines: as they were asked for, and as they are (instance view)."""

from __future__ import annotations

import copy
from typing import Any

from tests.azuresim.arm.call import Call, Reply
from tests.azuresim.arm.operations import now
from tests.azuresim.arm.store import Resource
from tests.azuresim.compute.state import MACHINES, compute


def get(call: Call) -> Reply:
    machine = call.sim.store.need(call.path)
    if "instanceview" in call.query.get("$expand", "").lower():
        body = copy.deepcopy(machine.body)
        body["properties"]["instanceView"] = _view(call, machine)
        return Reply(body)
    return Reply(machine.body)


def instance_view(call: Call) -> Reply:
    return Reply(_view(call, call.sim.store.need(call.path.rpartition("/")[0])))


def _view(call: Call, machine: Resource) -> dict[str, Any]:
    state, provisioning = compute(call.sim), machine.properties["provisioningState"].lower()
    power = state.power.get(machine.id.lower(), "unknown")
    statuses = [{
        "code": f"ProvisioningState/{provisioning}", "level": "Error" if provisioning == "failed" else "Info",
        "displayStatus": f"Provisioning {provisioning}", "time": now(),
    }]  # fmt: skip
    if failure := machine.hidden.get("failure"):
        statuses[0].update(message=failure.message, code=f"ProvisioningState/failed/{failure.code}")
    if power != "creating":
        statuses.append({"code": f"PowerState/{power}", "level": "Info", "displayStatus": f"VM {power}"})
    attached = [call.sim.store.get(disk) for _, disk in state.attached(machine)]
    shown = {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded"}
    generation = next((one.properties.get("hyperVGeneration") for one in attached if one), None)
    return {
        "disks": [{"name": one.name, "statuses": [{**shown, "time": now()}]} for one in attached if one],
        "hyperVGeneration": generation or "V1", "statuses": statuses,
    }  # fmt: skip


def list_in_group(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(MACHINES, call.group_id)]})


def list_all(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(MACHINES)]})
