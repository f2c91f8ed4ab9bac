"""Makes a vault's storage account and container where that is asked for, so that a repetition finds what it made.

What others have made is left as it is: an account without our tag is looked at, and only gets the container.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farshore_engine.azure.cloud import Cloud, Tell, plain, quiet
from farshore_engine.azure.faults import NOT_FOUND
from farshore_engine.azure.place import OWNER, US, same_region
from farshore_engine.contract.faults import Fault, StopFault

GENERAL = "StorageV2"
KEEP_CONTAINERS = 7  # days for which a container that was deleted can be had back
VERSIONS_AFTER = 1  # days after which former versions go; a locked one stays until its lock ends
RULE = "farshore-former-versions"


@dataclass(frozen=True)
class StorageWish:
    """A storage account and a container in it. `locks`: the vault asks for immutability, which takes versions."""

    group: str
    name: str
    container: str
    redundancy: str = "Standard_GRS"
    locks: bool = False


@dataclass(frozen=True)
class StorageMade:
    """What is there now: the blob endpoint, what was made by this call, and what differs and was left."""

    endpoint: str
    made: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def make_storage(cloud: Cloud, wish: StorageWish, tell: Tell = quiet) -> StorageMade:
    """Make what is missing of account and container.

    Raises:
        StopFault: Azure refuses (right, policy, quota), the name is somebody else's, or what is there does not fit.
    """
    made: list[str] = []
    account = _account(cloud, wish)
    if account is None:
        _check_name(cloud, wish)
        cloud.finish(
            f"make storage account {wish.name}",
            lambda: cloud.storage.storage_accounts.begin_create(wish.group, wish.name, _body(cloud, wish)),
            tell,
        )
        made.append(f"storage account {wish.name} ({wish.redundancy}, {cloud.site.region})")
        account = cloud.ask(
            f"look at storage account {wish.name}",
            lambda: cloud.storage.storage_accounts.get_properties(wish.group, wish.name),
        )
    notes = _check_account(cloud, wish, account)
    ours = (account.tags or {}).get(OWNER) == US
    made += _service(cloud, wish, ours=ours)
    if wish.locks and ours:
        made += _lifecycle(cloud, wish)
    made += _container(cloud, wish)
    return StorageMade(str(account.primary_endpoints.blob or ""), tuple(made), notes)


def account_key(cloud: Cloud, group: str, name: str) -> str:
    """Return the first key of a storage account; raises Fault."""
    found = cloud.ask(
        f"read the keys of storage account {name}", lambda: cloud.storage.storage_accounts.list_keys(group, name)
    )
    return str(found.as_dict()["keys"][0]["value"])  # the SDK's model is a mapping too, and has `keys` of its own


def _account(cloud: Cloud, wish: StorageWish) -> Any:
    group = cloud.find(f"look for resource group {wish.group}", lambda: cloud.resources.resource_groups.get(wish.group))
    if group is None:
        raise StopFault(
            f"there is no resource group {wish.group}",
            "Create it, or correct spec.azure.resourceGroup",
            reason="ResourceGroupNotFound",
        )
    return cloud.find(
        f"look for storage account {wish.name}",
        lambda: cloud.storage.storage_accounts.get_properties(wish.group, wish.name),
    )


def _check_name(cloud: Cloud, wish: StorageWish) -> None:
    answer = cloud.ask(
        f"ask whether the name {wish.name} is free",
        lambda: cloud.storage.storage_accounts.check_name_availability(
            {"name": wish.name, "type": "Microsoft.Storage/storageAccounts"}
        ),
    )
    if answer.name_available:
        return
    taken = plain(answer.reason) == "AlreadyExists"
    raise StopFault(
        f"the name {wish.name} cannot be had: {answer.message}",
        "Names of storage accounts are one for all of Azure, 3 to 24 lower-case letters and digits: choose another in "
        "spec.azure.vaultName and storage.azureBlob.accountURL",
        reason="NameTaken" if taken else "BadName",
    )


def _body(cloud: Cloud, wish: StorageWish) -> dict[str, Any]:
    return {
        "location": cloud.site.region,
        "kind": GENERAL,
        "sku": {"name": wish.redundancy},
        "tags": {OWNER: US},
        "properties": {
            "minimumTlsVersion": "TLS1_2",
            "supportsHttpsTrafficOnly": True,
            "allowBlobPublicAccess": False,
            "accessTier": "Hot",
        },
    }


def _check_account(cloud: Cloud, wish: StorageWish, account: Any) -> tuple[str, ...]:
    """Return what differs from what would have been made; raises StopFault where it can hold no vault."""
    kind, sku = plain(account.kind), plain(account.sku.name)
    wrong = ""
    if kind not in (GENERAL, "BlockBlobStorage", "BlobStorage") or (kind == GENERAL and sku.startswith("Premium")):
        wrong = f"is a {kind} of {sku}, which holds no vault"
    elif account.is_hns_enabled:
        wrong = "has a hierarchical namespace, which has no blob versions"
    elif not same_region(str(account.location), cloud.site.region):
        wrong = f"is in {account.location}, and spec.azure.region is {cloud.site.region}"
    if wrong:
        raise StopFault(
            f"storage account {wish.name} {wrong}",
            "Name another account in spec.azure.vaultName, or correct spec.azure.region",
            reason="BadAccount",
        )
    notes = []
    if plain(account.minimum_tls_version) not in ("TLS1_2", "TLS1_3"):
        notes.append(f"{wish.name} takes TLS older than 1.2")
    if account.allow_blob_public_access:
        notes.append(f"{wish.name} allows public containers")
    if not account.enable_https_traffic_only:
        notes.append(f"{wish.name} takes traffic without TLS")
    return tuple(notes)


def _service(cloud: Cloud, wish: StorageWish, *, ours: bool) -> list[str]:
    """Let containers be had back after they were deleted and, for locks, let blobs have versions."""
    services = cloud.storage.blob_services
    known = cloud.ask(
        f"look at the blob service of {wish.name}", lambda: services.get_service_properties(wish.group, wish.name)
    )
    versions = bool(known.is_versioning_enabled)
    kept = known.container_delete_retention_policy
    if not ours:
        if wish.locks and not versions:
            raise StopFault(
                f"storage account {wish.name}, which farshore did not make, keeps no blob versions, and "
                "spec.immutability needs them",
                "Switch blob versioning on there, or name an account that does not exist yet",
                reason="NoVersions",
            )
        return []
    if (versions or not wish.locks) and kept is not None and kept.enabled:
        return []
    given: dict[str, Any] = {"containerDeleteRetentionPolicy": {"enabled": True, "days": KEEP_CONTAINERS}}
    if wish.locks:
        given["isVersioningEnabled"] = True
    cloud.ask(
        f"set the blob service of {wish.name}",
        lambda: services.set_service_properties(wish.group, wish.name, {"properties": given}),
    )
    return [f"deleted containers are kept for {KEEP_CONTAINERS} days{', blobs have versions' if wish.locks else ''}"]


def _lifecycle(cloud: Cloud, wish: StorageWish) -> list[str]:
    """Let former versions go: everything that is pruned or replaced stays as one otherwise."""
    policies = cloud.storage.management_policies
    known = _there(
        cloud, f"look at the lifecycle of {wish.name}", lambda: policies.get(wish.group, wish.name, "default")
    )
    rules = list(known.policy.rules) if known is not None and known.policy is not None else []
    if any(one.name == RULE for one in rules):
        return []
    rule = {
        "name": RULE,
        "type": "Lifecycle",
        "enabled": True,
        "definition": {
            "actions": {"version": {"delete": {"daysAfterCreationGreaterThan": VERSIONS_AFTER}}},
            "filters": {"blobTypes": ["blockBlob"], "prefixMatch": [f"{wish.container}/"]},
        },
    }
    body = {"properties": {"policy": {"rules": [*(one.as_dict() for one in rules), rule]}}}
    cloud.ask(
        f"set the lifecycle of {wish.name}",
        lambda: policies.create_or_update(wish.group, wish.name, "default", body),
    )
    return [f"former versions are deleted after {VERSIONS_AFTER} day"]


def _container(cloud: Cloud, wish: StorageWish) -> list[str]:
    containers = cloud.storage.blob_containers
    known = _there(
        cloud,
        f"look for container {wish.container}",
        lambda: containers.get(wish.group, wish.name, wish.container),
    )
    if known is None:
        given: dict[str, Any] = {"publicAccess": "None"}
        if wish.locks:
            given["immutableStorageWithVersioning"] = {"enabled": True}
        cloud.ask(
            f"make container {wish.container}",
            lambda: containers.create(wish.group, wish.name, wish.container, {"properties": given}),
        )
        return [f"container {wish.container}{', with version-level immutability' if wish.locks else ''}"]
    locked = known.immutable_storage_with_versioning
    if wish.locks and not (locked is not None and locked.enabled):
        raise StopFault(
            f"container {wish.container} is there without version-level immutability, which spec.immutability needs",
            "Migrate it (portal: Access policy of the container), or name another container",
            reason="ImmutabilityNotSupported",
        )
    return []


def _there(cloud: Cloud, what: str, request: Any) -> Any:
    """Return what is there, None where it is not: storage has codes of its own for that."""
    try:
        return cloud.ask(what, request)
    except Fault as fault:
        if fault.reason == NOT_FOUND:
            return None
        raise
