"""From the description of a vault in an assignment to an open store."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import SecretBytes

from farshore_engine.contract.assignment import (
    AzureBlobAccess,
    DirectoryAccess,
    KeyVaultAccess,
    PreviousKey,
    VaultAccess,
)
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudCredential
from farshore_engine.vault.azure_locks import LockingBlobStore
from farshore_engine.vault.azure_store import DEADLINE
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.keyring import KeyRing, KeyWrapper, LocalKey, Previous
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.store import ObjectStore
from farshore_engine.vault.tokenlogin import token_login

TIMES = {"connection_timeout": 5.0, "read_timeout": 15.0, "retry_total": 3, "retry_backoff_max": 10}
"""Patience with the token service, in seconds and tries."""


def open_store(storage: AzureBlobAccess | DirectoryAccess, *, deadline: float | None = None) -> ObjectStore:
    """Return the store; nothing is contacted yet. `deadline`: seconds for one operation with its retries.

    Raises:
        StopFault: several credentials are given, or one that is malformed.
    """
    if isinstance(storage, DirectoryAccess):
        return DirectoryStore(storage.path)
    secrets = [s for s in (storage.account_key, storage.connection_string, storage.sas_token) if s is not None]
    if len(secrets) + (storage.principal is not None) > 1:
        raise StopFault(
            f"container {storage.container} has several credentials",
            "Give one of account key, connection string, SAS token and service principal, or none",
            reason="BadCredential",
        )
    patience = DEADLINE if deadline is None else deadline
    if storage.connection_string is not None:
        text = storage.connection_string.get_secret_value()
        return LockingBlobStore.from_connection_string(text, storage.container, deadline=patience)
    credential = secrets[0].get_secret_value() if secrets else principal_login(storage)
    return LockingBlobStore.connect(storage.account_url, storage.container, credential, deadline=patience)


def principal_login(storage: AzureBlobAccess) -> Any:
    """Return the login by token, as the principal that is named or as what this host is; one for all who ask.

    Raises:
        StopFault: tenant or certificate is malformed, or the token would go over the network in the clear.
    """
    if not storage.account_url.lower().startswith("https://"):
        raise StopFault(
            f"container {storage.container} is reached without TLS, and a token goes over TLS only",
            "Begin accountURL with https://, or name an account key",
            reason="BadCredential",
        )
    try:
        return _login(storage.principal, storage.authority)
    except ValueError:  # its text may hold the certificate
        raise StopFault(
            f"the service principal for container {storage.container} is malformed",
            "Check tenantId and clientCertificate in the credential's Secret",
            reason="BadCredential",
        ) from None


@functools.lru_cache(maxsize=16)  # tokens are kept with it
def _login(principal: CloudCredential | None, authority: str) -> Any:
    return token_login(principal, authority, True, TIMES)


def key_ring(access: VaultAccess) -> KeyRing:
    """Return the keys of a vault; nothing is contacted yet.

    Raises:
        StopFault: a key from a Secret is not one.
    """
    return ring_of(access.key, access.previous_keys)


def ring_of(key: SecretBytes | KeyVaultAccess, previous: tuple[PreviousKey, ...]) -> KeyRing:
    """Return the ring of a current key and those before it; as `key_ring`."""
    return KeyRing(_wrapper(key), tuple(Previous(_wrapper(one.key), one.remove) for one in previous))


def _wrapper(key: SecretBytes | KeyVaultAccess) -> KeyWrapper:
    if isinstance(key, KeyVaultAccess):
        from farshore_engine.vault.keyvault import KeyVaultKey  # its SDK takes time to import

        return KeyVaultKey.connect(key)
    return LocalKey.parse(key.get_secret_value())


def open_machine(access: VaultAccess, machine: str, *, create: bool = False) -> MachineVault:
    """Open a machine's part of the vault that an assignment describes; see `MachineVault.open`.

    Who may create it also rotates its keys as the assignment says: `key_report` tells how they stand.
    """
    ring = key_ring(access)
    vault = MachineVault.open(open_store(access.storage), ring, machine, prefix=access.prefix, create=create)
    if create:
        try:
            vault.rotate(ring)
        except BaseException:
            vault.close()
            raise
    return vault
