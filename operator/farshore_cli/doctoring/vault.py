"""The checks of a vault, from here: of a container and its key, or of a Recovery Services vault."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from farshore_cli.doctoring.cluster import Namespace, current
from farshore_engine.checklist import Checklist
from farshore_engine.contract.assignment import DirectoryAccess
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretBytes

    from farshore_engine.contract.assignment import AzureBlobAccess, KeyVaultAccess, PreviousKey
    from farshore_engine.contract.replication import Check
    from farshore_engine.networkpath import Resolve
    from farshore_engine.vault.store import ObjectStore
    from farshore_operator.api import RecoveryVault


def vault_checks(name: str, namespace: str) -> tuple[Check, ...]:
    """Read a RecoveryVault and its Secrets from the cluster, and check it; raises Fault.

    Args:
        name: of the RecoveryVault.
        namespace: where it is; empty for the current context's.
    """
    from farshore_operator.api import RecoveryVault

    where = current(namespace)
    return checks_of(where.need(RecoveryVault, name), where)


def checks_of(
    vault: RecoveryVault,
    where: Namespace,
    *,
    now: Callable[[], datetime] | None = None,
    resolve: Resolve | None = None,
) -> tuple[Check, ...]:
    """Check a vault with the Secrets of its namespace.

    Args:
        now: this host's clock.
        resolve: names to addresses, as in `networkpath.path_to`.
    """
    from farshore_engine.vault.storagecheck import utc_now
    from farshore_operator.api.recoveryvault import Engine

    found = Checklist()
    if vault.spec.engine is Engine.SITE_RECOVERY:
        from farshore_cli.doctoring.siterecovery import check_service

        check_service(found, vault, where, now or utc_now)
    else:
        _native(found, vault, where, now or utc_now, resolve)
    return tuple(found.lines)


def _native(
    found: Checklist, vault: RecoveryVault, where: Namespace, now: Callable[[], datetime], resolve: Resolve | None
) -> None:
    from farshore_engine.vault.keycheck import check_key, check_opening
    from farshore_operator.decide.vaultaccess import encryption_key, previous_keys

    store, prefix = _store(found, vault, where, now, resolve)
    keys: list[tuple[SecretBytes | KeyVaultAccess, tuple[PreviousKey, ...]]] = []

    def resolved() -> str:
        keys.append((encryption_key(vault, where.secret), previous_keys(vault, where.secret)))
        return "the Secrets of the keys are there"

    ring = None
    if found.need("KeySecret", resolved):
        ring = check_key(found, *keys[0])
    else:
        found.skip(("Key",), "its Secret cannot be used")
    if store is None:
        found.skip(("Format", "DataKeys"), "the storage cannot be read")
    else:
        check_opening(found, store, prefix, ring)


def _store(
    found: Checklist, vault: RecoveryVault, where: Namespace, now: Callable[[], datetime], resolve: Resolve | None
) -> tuple[ObjectStore | None, str]:
    """Check where the vault is, and return that open, with the vault's prefix there."""
    from farshore_engine.vault.storagecheck import check_storage
    from farshore_operator.api.recoveryvault import ImmutabilityMode
    from farshore_operator.decide.vaultaccess import storage_access

    known: list[tuple[AzureBlobAccess | DirectoryAccess, str]] = []

    def resolved() -> str:
        if vault.spec.storage is None:
            raise StopFault("the vault has no storage", "Set spec.storage", reason="VaultNotUsable")
        known.append(storage_access(vault.metadata.name, vault.spec.storage, where.secret))
        return "the Secret of the storage is there"

    if not found.need("StorageSecret", resolved):
        found.skip(("Storage",), "there is no credential")
        return None, ""
    (access, prefix), lock = known[0], vault.spec.immutability
    if isinstance(access, DirectoryAccess):
        return _directory(found, access), prefix
    locks = lock is not None and lock.mode is not ImmutabilityMode.NONE
    return check_storage(found, access, locks=locks, now=now, resolve=resolve), prefix


def _directory(found: Checklist, access: DirectoryAccess) -> ObjectStore | None:
    """Check a directory, which only its process servers need to have: nothing is wrong where this host has none."""
    from farshore_engine.vault.stores import open_store

    if not access.path.is_dir():
        found.skip(("Directory",), f"{access.path} is a directory of the process servers, and not on this host")
        return None
    found.ask("Directory", lambda: f"{access.path} is on this host too")
    return open_store(access)
