"""From the description of a vault in an assignment to an open store."""

from __future__ import annotations

from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess, VaultAccess
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.azure_store import AzureBlobStore
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.store import ObjectStore


def open_store(storage: AzureBlobAccess | DirectoryAccess) -> ObjectStore:
    """Return the store; nothing is contacted yet.

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
    if storage.connection_string is not None:
        return AzureBlobStore.from_connection_string(secret, storage.container)
    return AzureBlobStore.connect(storage.account_url, storage.container, secret)


def open_machine(access: VaultAccess, machine: str, *, create: bool = False) -> MachineVault:
    """Open a machine's part of the vault that an assignment describes; see `MachineVault.open`."""
    kek = access.key.get_secret_value()
    return MachineVault.open(open_store(access.storage), kek, machine, prefix=access.prefix, create=create)
