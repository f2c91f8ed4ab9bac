"""Microsoft.Authorization: which actions the caller has at a group or a resource; built-in roles for seeding.

Source: Permissions_ListForResourceGroup and Permissions_ListForResource of the specification, api-version 2022-04-01.
"""

from __future__ import annotations

from azure.mgmt.authorization.v2022_04_01 import models
from tests.azuresim.arm.call import Call, Reply
from tests.azuresim.arm.identity import Principal
from tests.azuresim.arm.registry import GROUP, Route
from tests.azuresim.sim import AzureSim

VERSIONS = ("2015-07-01", "2018-07-01", "2022-04-01")
TAIL = "/providers/Microsoft.Authorization/permissions"

BUILT_IN: dict[str, dict[str, tuple[str, ...]]] = {
    "Owner": {"actions": ("*",)},
    "Contributor": {
        "actions": ("*",),
        "not_actions": (
            "Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action", "Microsoft.Blueprint/blueprintAssignments/write",
            "Microsoft.Blueprint/blueprintAssignments/delete", "Microsoft.Compute/galleries/share/action",
        ),
    },
    "Reader": {"actions": ("*/read",)},
    "Virtual Machine Contributor": {
        "actions": (
            "Microsoft.Authorization/*/read", "Microsoft.Compute/availabilitySets/*", "Microsoft.Compute/locations/*",
            "Microsoft.Compute/virtualMachines/*", "Microsoft.Compute/virtualMachineScaleSets/*",
            "Microsoft.Compute/cloudServices/*", "Microsoft.Compute/disks/write", "Microsoft.Compute/disks/read",
            "Microsoft.Compute/disks/delete", "Microsoft.Network/locations/*",
            "Microsoft.Network/networkInterfaces/*", "Microsoft.Network/networkSecurityGroups/join/action",
            "Microsoft.Network/networkSecurityGroups/read", "Microsoft.Network/publicIPAddresses/join/action",
            "Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/virtualNetworks/read",
            "Microsoft.Network/virtualNetworks/subnets/join/action", "Microsoft.Resources/deployments/*",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
            "Microsoft.Storage/storageAccounts/listKeys/action",
            "Microsoft.Storage/storageAccounts/read",
        ),
    },
    "Disk Restore Operator": {
        "actions": (
            "Microsoft.Compute/disks/write", "Microsoft.Compute/disks/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ),
    },
    "Storage Blob Data Contributor": {
        "actions": (
            "Microsoft.Storage/storageAccounts/blobServices/containers/delete",
            "Microsoft.Storage/storageAccounts/blobServices/containers/read",
            "Microsoft.Storage/storageAccounts/blobServices/containers/write",
            "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action",
        ),
        "data_actions": (
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete",
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/move/action",
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action",
        ),
    },
}  # fmt: skip
"""Source: learn.microsoft.com/azure/role-based-access-control/built-in-roles; the Virtual Machine Contributor is cut to
what concerns the simulated providers. Note that it lacks disks/beginGetAccess/action."""


def plug(sim: AzureSim) -> None:
    sim.providers.setdefault("Microsoft.Authorization", "Registered")
    action = "Microsoft.Authorization/permissions/read"
    resource = GROUP + "/providers/{resource*}" + TAIL
    sim.arm.add(
        [
            Route("GET", GROUP + TAIL, at_group, VERSIONS, items=models.Permission, action=action),
            Route("GET", resource, at_resource, VERSIONS, items=models.Permission, action=action),
        ]
    )


def grant_role(sim: AzureSim, who: Principal, role: str, scope: str) -> None:
    """Assign a built-in role."""
    found = BUILT_IN[role]
    more = {name: value for name, value in found.items() if name != "actions"}
    sim.grant(who, *found["actions"], scope=scope, **more)


def at_group(call: Call) -> Reply:
    return _at(call, call.group_id)


def at_resource(call: Call) -> Reply:
    scope = f"{call.group_id}/providers/{call.args['resource']}"
    call.sim.store.need(scope)
    return _at(call, scope)


def _at(call: Call, scope: str) -> Reply:
    found = [
        {
            "actions": list(one.actions), "notActions": list(one.not_actions), "dataActions": list(one.data_actions),
            "notDataActions": list(one.not_data_actions),
        }
        for one in call.sim.roles.at(call.who, scope)
    ]  # fmt: skip
    return Reply({"value": found})
