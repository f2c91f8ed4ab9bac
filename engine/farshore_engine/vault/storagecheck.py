"""What a container must have before machines replicate into it: everything that is missing, at once.

Nothing is left behind. Writing is tried with a condition that cannot hold, deleting with a name that nothing has: Azure
looks at the right first. Source: "Specifying conditional headers for Blob service operations" (412 where the condition
fails) and "Authorize requests to Azure Storage" (403 before the operation is looked at).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from farshore_engine.checklist import Checklist
from farshore_engine.contract.assignment import AzureBlobAccess
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.networkpath import VPN, Resolve, path_to
from farshore_engine.vault.azure_store import AzureBlobStore
from farshore_engine.vault.sastoken import check_token
from farshore_engine.vault.store import ObjectNotFound, VersionMismatch
from farshore_engine.vault.stores import open_store

PATIENCE = 15.0  # seconds for each question
SKEW_WARNED, SKEW_REFUSED = 300.0, 900.0
"""Seconds. Azure refuses requests whose clock is off by more than 15 minutes ("Authorize with Shared Key")."""
NEVER = '"0x0"'
"""A version that no object has."""
REST = ("Account", "Container", "Rights", "Immutability", "Clock")


@dataclass
class _Seen:
    """What the account said of itself; empty before it was asked."""

    account: dict[str, Any] = field(default_factory=dict)
    clock: datetime | None = None

    def take(self, response: Any) -> None:
        date = response.http_response.headers.get("Date")
        self.clock = parsedate_to_datetime(date) if date else None


def check_storage(
    found: Checklist,
    access: AzureBlobAccess,
    *,
    locks: bool,
    now: Callable[[], datetime],
    resolve: Resolve | None = None,
) -> AzureBlobStore | None:
    """Add the checks of a container to the list, and return it open; None where nothing more can be asked of it.

    Args:
        locks: whether the vault asks for immutability.
        now: the clock that is compared with Azure's.
        resolve: names to addresses, as in `networkpath.path_to`.
    """
    opened: list[AzureBlobStore] = []
    seen = _Seen()

    def credential() -> str:
        opened.append(cast(AzureBlobStore, open_store(access, deadline=PATIENCE)))
        if access.sas_token is not None:
            return check_token(access.sas_token.get_secret_value(), locks=locks, now=now())
        if access.principal or access.account_key or access.connection_string:
            return "it is complete"
        return "there is none: this host logs in as what it is, and each process server as what its own host is"

    told = found.ask("Credential", credential)
    if not opened:
        found.skip(("NetworkPath", "Login", *REST), "the credential is not one")
        return None
    store = opened[0]
    url = store.inquire("name the container", lambda container: container.url)
    if not found.need("NetworkPath", lambda: _path(url, resolve)):
        found.skip(("Login", *REST), "the storage account cannot be reached")
        return None
    if not found.need("Login", lambda: _login(store, seen)):
        found.skip(REST, "the storage account does not let us in" if told else "the credential is not good")
        return None
    found.ask("Account", lambda: judge_account(seen.account, locks=locks))
    there = found.need("Container", lambda: _container(store, access))
    if there:
        found.ask("Rights", lambda: _rights(store))
        _immutability(found, store, locks=locks)
    else:
        found.skip(("Rights", "Immutability"), "there is no container that could be asked")
    found.ask("Clock", lambda: judge_clock(seen.clock, now()))
    return store if there else None


def judge_account(said: dict[str, Any], *, locks: bool) -> str:
    """Say what kind of account it is.

    Raises:
        StopFault: it cannot hold a vault, or not the locks that are asked for.
        WaitFault: it can, with what is to be known.
    """
    sku, kind = str(said.get("sku_name") or ""), str(said.get("account_kind") or "")
    told = f"the account is a {kind or 'storage account'} of {sku or 'unknown redundancy'}"
    another = "Use a StorageV2 account of Standard_*, or a BlockBlobStorage account"
    if kind == "FileStorage" or (sku.startswith("Premium") and kind in ("Storage", "StorageV2")):
        what = "file shares" if kind == "FileStorage" else "page blobs"
        raise StopFault(f"{told}, which holds {what} only", another, reason="AccountKind")
    if str(said.get("is_hns_enabled", "")).lower() == "true":
        # source: "Blob Storage feature support in Azure Storage accounts": no blob versions with it
        text = f"{told} with a hierarchical namespace, which has neither blob versions nor locks on them"
        raise _unfit(text, f"{another} without a hierarchical namespace", locks)
    if kind == "Storage":
        # source: "Blob versioning", "About blob versioning": v2, premium block blob and legacy Blob accounts only
        raise _unfit(f"{told}, general-purpose v1, which has no blob versions", "Upgrade it to StorageV2", locks)
    return told


def judge_clock(azure: datetime | None, here: datetime) -> str:
    """Say how far this host's clock is from the storage account's; raises Fault where that is too much."""
    if azure is None:
        raise WaitFault("the storage account does not say what time it is", "", reason="NoDate")
    skew = (here - azure).total_seconds()
    text = f"this host's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} Azure's"
    remedy = "Let chrony or systemd-timesyncd set the clock, here and at the process servers"
    if abs(skew) > SKEW_REFUSED:
        raise StopFault(text, remedy, reason="ClockSkew")
    if abs(skew) > SKEW_WARNED:
        raise WaitFault(text, remedy, reason="ClockSkew")
    return text if abs(skew) >= 2 else "this host's clock agrees with Azure's"


def _unfit(text: str, remedy: str, locks: bool) -> StopFault | WaitFault:
    if locks:
        return StopFault(f"{text}, and spec.immutability asks for them", remedy, reason="AccountKind")
    return WaitFault(text, f"{remedy}, before spec.immutability is set", reason="AccountKind")


def _path(url: str, resolve: Resolve | None) -> str:
    path = path_to(url, resolve)
    if not path.encrypted and not path.local:
        raise StopFault(
            f"{path.describe()}, and is not encrypted",
            "Write https:// in storage.azureBlob.accountURL",
            reason="NotEncrypted",
        )
    return f"{path.describe()}; every process server needs HTTPS to it: {VPN}"


def _login(store: AzureBlobStore, seen: _Seen) -> str:
    def ask(container: Any) -> dict[str, Any]:
        return dict(container.get_account_information(raw_response_hook=seen.take))

    try:
        seen.account = store.inquire("ask the account what it is", ask)
    except StopFault as fault:
        if fault.reason != "StorageAccessRefused":
            raise
        # A token of the container alone may not be told what the account is; listing shows whether it is let in.
        store.inquire("list the container", lambda one: next(iter(one.list_blob_names(results_per_page=1)), None))
        return "the credential is accepted; it may not ask what kind of account it is"
    return "the credential is accepted"


def _container(store: AzureBlobStore, access: AzureBlobAccess) -> str:
    next(iter(store.list(_probe())), None)
    return f"container {access.container} is there, and can be listed"


def _rights(store: AzureBlobStore) -> str:
    name = _probe()
    probes: dict[str, Callable[[], object]] = {
        "read": lambda: store.get(name),
        "write": lambda: store.put_if(name, b"", NEVER),
        "delete": lambda: store.delete(name),
    }
    refused = []
    for word, probe in probes.items():
        try:
            probe()
        except (ObjectNotFound, VersionMismatch):
            continue
        except StopFault as fault:
            if fault.reason != "StorageAccessRefused":
                raise
            refused.append(word)
    if refused:
        raise StopFault(
            f"the credential may not {' and not '.join(refused)} in the container",
            "Give a key, or a token with read, add, create, write, delete and list; the account's firewall refuses in "
            "the same words",
            reason="StorageAccessRefused",
        )
    return (
        "the credential may list, read, write and delete (tried on a name that nothing has, under a condition that "
        "never holds: nothing was written)"
    )


def _immutability(found: Checklist, store: AzureBlobStore, *, locks: bool) -> None:
    if not locks:
        found.skip(("Immutability",), "the vault asks for no locks (spec.immutability)")
        return
    found.ask("Immutability", lambda: _locks(store))


def _locks(store: AzureBlobStore) -> str:
    try:
        properties = store.inquire("read the container's properties", lambda one: one.get_container_properties())
    except StopFault as fault:
        if fault.reason != "StorageAccessRefused":
            raise
        raise WaitFault(
            "the credential may not read the container's properties, so it cannot be told whether it locks versions",
            "Look in the portal, or check with an account key",
            reason="CannotTell",
        ) from fault
    if not properties.immutable_storage_with_versioning_enabled:
        raise StopFault(
            "the container has no version-level immutability, which spec.immutability asks for",
            "Switch on blob versioning at the account and version-level immutability at the container (an existing "
            "one is migrated), or remove spec.immutability",
            reason="ImmutabilityNotSupported",
        )
    return "the container locks versions, so the account keeps versions"


def _probe() -> str:
    return f"farshore-doctor-{secrets.token_hex(8)}"


def utc_now() -> datetime:
    """Return the time of this host."""
    return datetime.now(UTC)
