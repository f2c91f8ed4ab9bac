"""Storage accounts in front of an Azurite: `sim.parts["storage"].serve_with(azurite.connection_string)`.

Source: the specification storage.json (StorageAccounts, BlobContainers; reasons AccountNameInvalid and AlreadyExists of
CheckNameAvailability) and "Storage account overview" for names and kinds.
"""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from azure.mgmt.storage import models
from azure.storage.blob import BlobServiceClient
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.operations import now
from tests.azuresim.arm.registry import GROUP, SUBSCRIPTION, Route
from tests.azuresim.arm.store import Resource
from tests.azuresim.arm.tags import check_tags
from tests.azuresim.sim import AzureSim
from tests.azuresim.storage import services
from tests.azuresim.storage.sources import AzuriteBlob, Source, size_of

VERSIONS = ("2017-10-01", "2019-06-01", "2023-05-01", "2024-01-01", "2025-06-01", "2025-08-01", "2026-09-01")
ACCOUNTS = "Microsoft.Storage/storageAccounts"
CONTAINERS = ACCOUNTS + "/blobServices/containers"
NAME = re.compile(r"[a-z0-9]{3,24}")
CONTAINER = re.compile(r"(?!.*--)[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]")
PAGE_BLOB_KINDS = ("StorageV2", "Storage", "BlobStorage")
STEP = 4 * 1024 * 1024


@dataclass
class Storage:
    """State of the provider. `connection` is an Azurite's connection string once a test has given one."""

    sim: AzureSim
    connection: str = ""
    endpoint: str = ""
    keys: dict[str, list[str]] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    """Page blobs by URI that a test makes up, without an Azurite."""

    def serve_with(self, connection_string: str) -> None:
        """From now on the accounts' blobs are those of this Azurite: their endpoint and keys are its own."""
        parts = dict(one.split("=", 1) for one in connection_string.split(";") if one)
        self.connection, self.endpoint = connection_string, parts["BlobEndpoint"]
        self.keys = {"*": [parts["AccountKey"]]}

    def account(self, name: str, group: str, kind: str = "StorageV2", sku: str = "Standard_LRS") -> str:
        """Seed an account; gives its id."""
        account_id = f"/subscriptions/{self.sim.subscription}/resourceGroups/{group}/providers/{ACCOUNTS}/{name}"
        body = {"location": self.sim.region, "kind": kind, "sku": {"name": sku}, "properties": {}}
        _make(self, account_id, body)
        return account_id

    def keys_of(self, account: Resource) -> list[str]:
        if "*" in self.keys:
            return self.keys["*"]
        known = self.keys.setdefault(account.id.lower(), [])
        while len(known) < 2:
            known.append(base64.b64encode(secrets.token_bytes(64)).decode())
        return known

    def blob(self, account_id: str | None, uri: str) -> Source:
        """The page blob at `uri`. Raises ArmError in the words of common VM errors (azure-docs includes/
        virtual-machines-common-error-messages.md)."""
        if account_id and self.sim.store.get(account_id) is None:
            raise ArmError(
                400, "StorageAccountNotFound", f"Storage account {account_id.rpartition('/')[2]} not found. Ensure "
                f"storage "
                "account is not deleted and belongs to the same Azure location as the VM.",
            )  # fmt: skip
        if uri in self.sources:
            return self.sources[uri]
        if not self.connection or not uri.lower().startswith(self.endpoint.lower().rstrip("/") + "/"):
            raise ArmError(
                400, "InvalidParameter", f"The URI {uri} does not look to be correct blob URI.", target="sourceUri"
            )
        path = urlsplit(uri).path.removeprefix(urlsplit(self.endpoint).path).strip("/")
        container, _, name = path.partition("/")
        return AzuriteBlob(self.connection, container, name, size_of(self.connection, container, name, uri))


def plug(sim: AzureSim) -> None:
    sim.parts["storage"] = Storage(sim)
    sim.providers.setdefault("Microsoft.Storage", "Registered")
    group, everywhere, v = GROUP + "/providers/" + ACCOUNTS, SUBSCRIPTION + "/providers/" + ACCOUNTS, VERSIONS
    one = group + "/{account}"
    container = one + "/blobServices/default/containers/{container}"
    service, policy = one + "/blobServices/default", one + "/managementPolicies/{policy}"
    writes, reads = CONTAINERS + "/write", CONTAINERS + "/read"
    sim.arm.add(
        [
            Route("PUT", one, put, v, models.StorageAccountCreateParameters, models.StorageAccount),
            Route("GET", one, get, v, reply=models.StorageAccount),
            Route("DELETE", one, delete, v),
            Route("GET", group, list_in_group, v, items=models.StorageAccount),
            Route("GET", everywhere, list_all, v, items=models.StorageAccount),
            Route("POST", one + "/listKeys", list_keys, v, reply=models.StorageAccountListKeysResult),
            Route(
                "GET", service, services.get, v, reply=models.BlobServiceProperties,
                action=services.SERVICES + "/read",
            ),
            Route(
                "PUT", service, services.put, v, models.BlobServiceProperties, models.BlobServiceProperties,
                action=services.SERVICES + "/write",
            ),
            Route("GET", policy, services.get_policy, v, reply=models.ManagementPolicy),
            Route("PUT", policy, services.put_policy, v, models.ManagementPolicy, models.ManagementPolicy),
            Route("PUT", container, put_container, v, models.BlobContainer, models.BlobContainer, action=writes),
            Route("GET", container, get_container, v, reply=models.BlobContainer, action=reads),
            Route(
                "POST", SUBSCRIPTION + "/providers/Microsoft.Storage/checkNameAvailability", check_name, v,
                models.StorageAccountCheckNameAvailabilityParameters, models.CheckNameAvailabilityResult,
            ),
        ]
    )  # fmt: skip


def put(call: Call) -> Reply | Later:
    name, state = call.args["account"], call.sim.parts["storage"]
    check_tags(call.body.get("tags"), 128)
    if not NAME.fullmatch(name):
        # source: "Storage account overview", names; the code is the reason that CheckNameAvailability has
        raise ArmError(
            400, "AccountNameInvalid", f"{name} is not a valid storage account name. Storage account name must be "
            f"between 3 and "
            "24 characters in length and use numbers and lower-case letters only.",
        )  # fmt: skip
    location = call.sim.check_location(call.body["location"], ACCOUNTS)
    known = call.sim.store.get(call.path)
    if known is None and _taken(call, name):
        # the codes of this and of the next refusal are [inf]
        raise ArmError(409, "StorageAccountAlreadyTaken", f"The storage account named {name} is already taken.")
    if known is not None:
        if known.body["location"] != location or known.body["kind"] != call.body["kind"]:
            raise ArmError(
                409,
                "AccountPropertyCannotBeUpdated",
                "Account property location or kind cannot be updated at this time.",
            )
        known.body["tags"] = call.body.get("tags") or known.body.get("tags", {})
        return Reply(known.body)
    account = _make(state, call.path, {**call.body, "location": location})
    return Later(
        lambda: account.body, account.id, status_path="",
        result_path=f"/subscriptions/{call.sim.subscription}/providers/Microsoft.Storage/locations/{location}/"
        "asyncoperations/{operation}?monitor=true", result_model=models.StorageAccount,
    )  # fmt: skip


def _make(state: Storage, account_id: str, body: dict[str, Any]) -> Resource:
    name = account_id.rpartition("/")[2]
    premium = body["sku"]["name"].startswith("Premium")
    endpoints = {
        kind: f"https://{name}.{kind}.core.windows.net/" for kind in ("blob", "dfs", "file", "queue", "table", "web")
    }
    if state.endpoint:
        endpoints = {"blob": state.endpoint.rstrip("/") + "/"}
    given = {key: value for key, value in (body.get("properties") or {}).items() if value is not None}
    extra = {key: body[key] for key in ("identity", "extendedLocation") if body.get(key)}
    made = {
        "id": account_id, "name": name, "type": ACCOUNTS, "location": body["location"], "kind": body["kind"], **extra,
        "sku": {"name": body["sku"]["name"], "tier": "Premium" if premium else "Standard"},
        "tags": body.get("tags") or {},
        "properties": {
            "accessTier": "Hot", "supportsHttpsTrafficOnly": True, "minimumTlsVersion": "TLS1_2",
            "allowBlobPublicAccess": False, **given, "provisioningState": "Succeeded", "creationTime": now(),
            "primaryLocation": body["location"], "statusOfPrimary": "available",
            "primaryEndpoints": endpoints, "privateEndpointConnections": [],
            "keyCreationTime": {"key1": now(), "key2": now()},
            "encryption": {
                "keySource": "Microsoft.Storage",
                "services": {
                    kind: {"enabled": True, "keyType": "Account", "lastEnabledTime": now()} for kind in ("blob", "file")
                },
                **{key: one for key, one in (given.get("encryption") or {}).items() if one is not None},
            },
            "networkAcls": {
                "bypass": "AzureServices", "virtualNetworkRules": [], "ipRules": [], "defaultAction": "Allow",
                **{key: one for key, one in (given.get("networkAcls") or {}).items() if one is not None},
            },
        },
    }  # fmt: skip
    return state.sim.store.put(Resource(account_id, ACCOUNTS, made))


def _taken(call: Call, name: str) -> bool:
    return any(one.name == name for one in call.sim.store.of(ACCOUNTS))


def get(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)


def list_in_group(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(ACCOUNTS, call.group_id)]})


def list_all(call: Call) -> Reply:
    return Reply({"value": [one.body for one in call.sim.store.of(ACCOUNTS)]})


def delete(call: Call) -> Reply:
    found = call.sim.store.remove(call.path)
    for one in call.sim.store.below(call.path) if found else ():
        call.sim.store.remove(one.id)
    return Reply(status=200 if found else 204)


def list_keys(call: Call) -> Reply:
    account = call.sim.store.need(call.resource_id)
    keys = call.sim.parts["storage"].keys_of(account)
    return Reply(
        {
            "keys": [
                {"keyName": f"key{number}", "value": key, "permissions": "Full"} for number, key in enumerate(keys, 1)
            ]
        }
    )


def put_container(call: Call) -> Reply:
    state, name = call.sim.parts["storage"], call.args["container"]
    account_id = call.path.partition("/blobServices/")[0]
    call.sim.store.need(account_id)
    if not CONTAINER.fullmatch(name):
        # source of the rule: "Naming and referencing containers, blobs, and metadata"; the code is [inf]
        raise ArmError(
            400, "ContainerOperationFailure", f"The container name '{name}' is invalid: 3-63 characters, lower-case "
            f"letters, "
            "digits and single hyphens.",
        )  # fmt: skip
    known = call.sim.store.get(call.path)
    locks = (call.body.get("properties") or {}).get("immutableStorageWithVersioning") or {}
    if known is None and locks.get("enabled") and not services.has_versions(call.sim.store, account_id):
        # the rule is documented ("Configure immutability policies for blob versions"), the code is [inf]
        raise ArmError(
            409, "ContainerImmutableStorageWithVersioningNotAllowed",
            "Version level immutability of a container needs blob versioning at the account.",
        )  # fmt: skip
    if known is None and state.connection:
        with BlobServiceClient.from_connection_string(state.connection) as service:
            container = service.get_container_client(name)
            if not container.exists():
                container.create_container()
    properties = {**(call.body.get("properties") or {}), "hasImmutabilityPolicy": False, "hasLegalHold": False}
    body = {"id": call.path, "name": name, "type": CONTAINERS, "properties": properties}
    made = call.sim.store.put(Resource(call.path, CONTAINERS, body))
    return Reply(made.body, 200 if known else 201)


def get_container(call: Call) -> Reply:
    return Reply(call.sim.store.need(call.path).body)


def check_name(call: Call) -> Reply:
    name = call.body["name"]
    if not NAME.fullmatch(name):
        message = f"{name} is not a valid storage account name."
        return Reply({"nameAvailable": False, "reason": "AccountNameInvalid", "message": message})
    if _taken(call, name):
        message = f"The storage account named {name} is already taken."
        return Reply({"nameAvailable": False, "reason": "AlreadyExists", "message": message})
    return Reply({"nameAvailable": True})
