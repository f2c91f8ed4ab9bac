"""Microsoft.Resources: the subscription, resource groups, provider registration, lists of resources.

Source: the specifications resources.json (2025-04-01) and subscriptions.json (2022-12-01); for the latter no SDK is
installed, so its answers are checked by no model.
"""

from __future__ import annotations

import re
from typing import Any

from azure.mgmt.resource.resources import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import GROUP, SUBSCRIPTION, Route
from tests.azuresim.arm.store import Resource, missing
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.sim import AzureSim

VERSIONS = ("2016-02-01", "2018-05-01", "2019-10-01", "2020-06-01", "2021-04-01", "2024-11-01", "2025-04-01")
SUBSCRIPTION_VERSIONS = ("2016-06-01", "2020-01-01", "2021-01-01", "2022-12-01")
GROUPS = "Microsoft.Resources/resourceGroups"
NAME = re.compile(r"[\w().-]{0,89}[\w()-]")
"""Source: "Naming rules", resourceGroups: 1-90 letters, digits, underscores, hyphens, periods, parentheses; no period
last."""
FILTER = re.compile(r"(\w+)\s+eq\s+'([^']*)'", re.IGNORECASE)
LISTED = ("id", "name", "type", "location", "tags", "sku", "kind", "zones", "managedBy", "identity", "plan")


def plug(sim: AzureSim) -> None:
    sim.parts["registering"] = {}
    provider, v = SUBSCRIPTION + "/providers/{namespace}", VERSIONS
    reads = "Microsoft.Resources/subscriptions/"
    asks = reads + "providers/read"
    sim.arm.add(
        [
            Route("GET", SUBSCRIPTION, get_subscription, SUBSCRIPTION_VERSIONS, action=reads + "read"),
            Route("GET", SUBSCRIPTION + "/locations", locations, SUBSCRIPTION_VERSIONS),
            Route("PUT", GROUP, put_group, v, models.ResourceGroup, models.ResourceGroup),
            Route("GET", GROUP, get_group, v, reply=models.ResourceGroup),
            Route("HEAD", GROUP, head_group, v),
            Route("PATCH", GROUP, patch_group, v, models.ResourceGroupPatchable, models.ResourceGroup),
            Route("DELETE", GROUP, delete_group, v),
            Route("GET", SUBSCRIPTION + "/resourceGroups", list_groups, v, items=models.ResourceGroup),
            Route("GET", GROUP + "/resources", list_in_group, v, items=models.GenericResourceExpanded),
            Route("GET", SUBSCRIPTION + "/resources", list_all, v, items=models.GenericResourceExpanded),
            Route("GET", SUBSCRIPTION + "/providers", providers, v, items=models.Provider, action=asks),
            Route("GET", provider, get_provider, v, reply=models.Provider, action=asks),
            Route(
                "POST", provider + "/register", register, v, reply=models.Provider,
                action="Microsoft.Resources/register/action",
            ),
        ]
    )  # fmt: skip


def get_subscription(call: Call) -> Reply:
    """Subscriptions_Get. `sim.parts["subscription state"]` may be Warned, Disabled..."""
    sim = call.sim
    body = {
        "id": f"/subscriptions/{sim.subscription}", "subscriptionId": sim.subscription, "tenantId": sim.tenant,
        "displayName": "Simulated subscription", "state": sim.parts.get("subscription state", "Enabled"),
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off",
        },
        "authorizationSource": "RoleBased", "managedByTenants": [],
    }  # fmt: skip
    return Reply(body)


def locations(call: Call) -> Reply:
    found = [
        {
            "id": f"/subscriptions/{call.sim.subscription}/locations/{one}",
            "name": one,
            "displayName": one,
            "type": "Region",
        }
        for one in (call.sim.region, *call.sim.other_regions)
    ]
    return Reply({"value": found})


def put_group(call: Call) -> Reply:
    name, known = call.args["group"], call.sim.store.get(call.path)
    if not NAME.fullmatch(name):
        raise ArmError(
            400, "InvalidResourceGroup", f"The provided resource group name '{name}' has invalid characters."
        )
    check_tags(call.body.get("tags"))
    location = call.sim.check_location(call.body["location"], GROUPS)
    if known is not None and known.body["location"] != location:
        # source: Azure docs, resource-manager/troubleshooting: InvalidResourceGroupLocation
        raise ArmError(
            409, "InvalidResourceGroupLocation", f"Invalid resource group location '{location}'. The Resource group "
            f"already exists in location '{known.body['location']}'.",
        )  # fmt: skip
    call.sim.group(name, location, call.body.get("tags"))
    return Reply(call.sim.store.need(call.path).body, 200 if known else 201)


def get_group(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)


def head_group(call: Call) -> Reply:
    if call.sim.store.get(call.path) is None:
        raise missing(call.path)
    return Reply(status=204)


def patch_group(call: Call) -> Reply:
    group = call.sim.store.need(call.path)
    check_tags(call.body.get("tags"))
    if call.body.get("tags") is not None:
        group.body["tags"] = call.body["tags"]
    return Reply(group.body)


def list_groups(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(GROUPS)]})


def delete_group(call: Call) -> Later:
    """Everything in it goes with it (source: "Azure Resource Manager resource group and resource deletion")."""
    group = call.sim.store.need(call.path)
    group.properties["provisioningState"] = "Deleting"

    def finish() -> None:
        for one in call.sim.store.below(group.id):
            if gone := call.sim.gone.get(one.kind.lower()):
                gone(one)
            call.sim.store.remove(one.id)
        call.sim.store.remove(group.id)

    return Later(finish, group.id, status_path="", result_status=200)


def _is_tracked(resource: Resource) -> bool:
    """Lists show resources, not their children nor groups (source: Resources_List)."""
    return "location" in resource.body and resource.kind.count("/") == 1 and resource.kind != GROUPS


def _listed(call: Call, below: str) -> list[dict[str, Any]]:
    wanted = {name.lower(): value for name, value in FILTER.findall(call.query.get("$filter", ""))}
    if call.query.get("$filter") and not wanted:
        # [inf]: the code
        raise ArmError(400, "InvalidFilterInQueryString", f"Invalid $filter '{call.query['$filter']}' specified.")
    found = []
    for one in [each for each in call.sim.store.found.values() if _is_tracked(each)]:
        if one.id.lower().startswith(below.lower()) and _matches(one, wanted):
            shown = {name: one.body[name] for name in LISTED if one.body.get(name)}
            if "sku" in shown:
                shown["sku"] = {name: value for name, value in shown["sku"].items() if name in ("name", "tier")}
            found.append(shown)
    return found


def _matches(resource: Resource, wanted: dict[str, str]) -> bool:
    facts = {
        "resourcetype": resource.kind, "name": resource.name, "resourcegroup": resource.group,
        "location": resource.body.get("location", ""),
    }  # fmt: skip
    tag = wanted.get("tagname")
    if tag is not None:
        tags = {name.lower(): value for name, value in resource.tags.items()}
        if tag.lower() not in tags or ("tagvalue" in wanted and tags[tag.lower()] != wanted["tagvalue"]):
            return False
    return all(facts[name].lower() == value.lower() for name, value in wanted.items() if name in facts)


def list_in_group(call: Call) -> Reply:
    return Reply({"value": _listed(call, call.group_id + "/")})


def list_all(call: Call) -> Reply:
    return Reply({"value": _listed(call, "/")})


def _provider(call: Call, namespace: str) -> dict[str, Any]:
    kinds: dict[str, set[str]] = {}
    for route in call.sim.arm.routes:
        space, _, kind = route.kind.partition("/")
        if space.lower() == namespace.lower() and kind:
            kinds.setdefault(kind, set()).update(call.sim.arm.supported(route))
    return {
        "id": f"/subscriptions/{call.sim.subscription}/providers/{namespace}", "namespace": namespace,
        "registrationPolicy": "RegistrationRequired", "registrationState": call.sim.providers[namespace],
        "resourceTypes": [
            {
                "resourceType": kind, "locations": [call.sim.region, *call.sim.other_regions],
                "apiVersions": sorted(versions, reverse=True), "capabilities": "None",
            }
            for kind, versions in kinds.items()
        ],
    }  # fmt: skip


def _namespace(call: Call) -> str:
    asked = call.args["namespace"]
    for known in call.sim.providers:
        if known.lower() == asked.lower():
            return known
    # source: Azure docs, resource-manager/troubleshooting: InvalidResourceNamespace
    raise ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{asked}' is invalid.")


def providers(call: Call) -> Reply:
    return Reply({"value": [_provider(call, one) for one in list(call.sim.providers)]})


def get_provider(call: Call) -> Reply:
    """While a provider is registering, each look brings it nearer (as many as the pace says)."""
    name, waiting = _namespace(call), call.sim.parts["registering"]
    if name in waiting:
        waiting[name] -= 1
        if waiting[name] < 0:
            call.sim.providers[name] = "Registered"
            del waiting[name]
    return Reply(_provider(call, name))


def register(call: Call) -> Reply:
    name = _namespace(call)
    if call.sim.providers[name] != "Registered":
        call.sim.providers[name] = "Registering"
        call.sim.parts["registering"][name] = call.sim.pace.polls
    return Reply(_provider(call, name))
