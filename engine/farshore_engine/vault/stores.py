"""From the description of a vault in an assignment to an open store."""

from __future__ import annotations

from pydantic import SecretBytes

from farshore_engine.contract.assignment import (
    AzureBlobAccess,
    DirectoryAccess,
    KeyVaultAccess,
    PreviousKey,
    VaultAccess,
)
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.azure_locks import LockingBlobStore
from farshore_engine.vault.azure_store import DEADLINE
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.keyring import KeyRing, KeyWrapper, LocalKey, Previous
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.store import ObjectStore


def open_store(storage: AzureBlobAccess | DirectoryAccess, *, deadline: float | None = None) -> ObjectStore:
    """Return the store; nothing is contacted yet. `deadline`: seconds for one operation with its retries.

    Raises:
        StopFault: not exactly one credential is given, or it is malformed.
    """
    if isinstance(storage, DirectoryAccess):
        return DirectoryStore(storage.path)
    secrets = [s for s in (storage.account_key, storage.connection_string, storage.sas_token) if s is not None]
    if len(secrets) != 1:
        raise StopFault(
            f"container {storage.container} has {len(secrets)} credentials",
            "Give exactly one of account key, connection string and SAS token",
            reason="BadCredential",
        )
    secret = secrets[0].get_secret_value()
    patience = DEADLINE if deadline is None else deadline
    if storage.connection_string is not None:
        return LockingBlobStore.from_connection_string(secret, storage.container, deadline=patience)
    return LockingBlobStore.connect(storage.account_url, storage.container, secret, deadline=patience)


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
