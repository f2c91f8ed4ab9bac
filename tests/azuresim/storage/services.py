"""The blob service of a storage account, and the rules by which it lets blobs go.

Source: the specification storage.json (BlobServices, ManagementPolicies); "Blob versioning" (none with a hierarchical
namespace); "Configure immutability policies for blob versions" (a container takes them when the account has versions).
"""

from __future__ import annotations

from typing import Any

from tests.azuresim.arm.call import Call, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.operations import now
from tests.azuresim.arm.store import Resource, Store

ACCOUNTS = "Microsoft.Storage/storageAccounts"
SERVICES, POLICIES = ACCOUNTS + "/blobServices", ACCOUNTS + "/managementPolicies"


def _account(call: Call) -> Resource:
    return call.sim.store.need("/".join(call.path.split("/")[:9]))


def _shown(call: Call, properties: dict[str, Any]) -> dict[str, Any]:
    account = _account(call)
    plain = {"cors": {"corsRules": []}, "deleteRetentionPolicy": {"enabled": False}}
    service_id = f"{account.id}/blobServices/default"
    body = {"id": service_id, "name": "default", "type": SERVICES, "sku": account.body["sku"]}
    return {**body, "properties": {**plain, **properties}}


def get(call: Call) -> Reply:
    known = call.sim.store.get(call.path)
    return Reply(_shown(call, known.properties if known is not None else {}))


def put(call: Call) -> Reply:
    """BlobServices_SetServiceProperties: what is not named stays ("if not specified, the existing setting remains")."""
    account, known = _account(call), call.sim.store.get(call.path)
    given = {name: value for name, value in (call.body.get("properties") or {}).items() if value is not None}
    if given.get("isVersioningEnabled") and account.properties.get("isHnsEnabled"):
        # the rule is documented, the code is [inf]
        raise ArmError(
            409, "FeatureNotSupportedForAccount", f"Blob versioning is not supported for the account {account.name}."
        )
    properties = {**(known.properties if known is not None else {}), **given}
    call.sim.store.put(Resource(call.path, SERVICES, {"name": "default", "properties": properties}))
    return Reply(_shown(call, properties))


def has_versions(store: Store, account_id: str) -> bool:
    known = store.get(f"{account_id}/blobServices/default")
    return known is not None and bool(known.properties.get("isVersioningEnabled"))


def get_policy(call: Call) -> Reply:
    known = call.sim.store.get(call.path)
    if known is None:
        raise ArmError(404, "ManagementPolicyNotFound", "No ManagementPolicy found for account.")  # code [inf]
    return Reply(known.body)


def put_policy(call: Call) -> Reply:
    _account(call)
    body = {
        "id": call.path, "name": "DefaultManagementPolicy", "type": POLICIES,
        "properties": {**call.body["properties"], "lastModifiedTime": now()},
    }  # fmt: skip
    return Reply(call.sim.store.put(Resource(call.path, POLICIES, body)).body)
