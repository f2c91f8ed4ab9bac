"""Microsoft.Resources: the subscription, resource groups, provider registration, lists of resources."""

from __future__ import annotations

from azure.mgmt.resource.resources import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import GROUP, Route
from tests.azuresim.arm.store import missing
from tests.azuresim.sim import AzureSim

VERSIONS = ("2019-10-01", "2025-04-01")


def plug(sim: AzureSim) -> None:
    sim.arm.add(
        [
            Route("PUT", GROUP, put_group, VERSIONS, models.ResourceGroup, models.ResourceGroup),
            Route("GET", GROUP, get_group, VERSIONS, reply=models.ResourceGroup),
            Route("HEAD", GROUP, head_group, VERSIONS),
            Route("DELETE", GROUP, delete_group, VERSIONS),
        ]
    )


def put_group(call: Call) -> Reply:
    known = call.sim.store.get(call.path)
    location, tags = call.body["location"], call.body.get("tags")
    if known is not None and known.body["location"].lower() != location.lower():
        # source: learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
        raise ArmError(
            409, "InvalidResourceGroupLocation", f"Invalid resource group location '{location}'. The Resource group "
            f"already exists in location '{known.body['location']}'.",
        )  # fmt: skip
    call.sim.group(call.args["group"], location, tags)
    return Reply(call.sim.store.need(call.path).body, 200 if known else 201)


def get_group(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)


def head_group(call: Call) -> Reply:
    if call.sim.store.get(call.path) is None:
        raise missing(call.path)
    return Reply(status=204)


def delete_group(call: Call) -> Later:
    group = call.sim.store.need(call.path)
    group.properties["provisioningState"] = "Deleting"

    def finish() -> None:
        for one in call.sim.store.below(group.id):
            call.sim.store.remove(one.id)
        call.sim.store.remove(group.id)

    return Later(finish, group.id, status_path="")
