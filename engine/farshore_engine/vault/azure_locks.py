"""Immutability on Azure Blob Storage: time-based policies on blob versions, through the SDK.

The container must have version-level immutability, which needs versioning. An object that is overwritten or deleted
while its version is locked leaves that version behind; `immutability.recover` brings it back.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import ImmutabilityPolicy

from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.vault.azure_store import AzureBlobStore, error_code
from farshore_engine.vault.store import LockedVersion, ObjectLocked, checked_name

SWITCH_ON = (
    "Switch on blob versioning at the storage account and version-level immutability at the container (a new container "
    "takes it when it is made, an existing one is migrated), and give the credential the right to set immutability "
    "policies; or remove spec.immutability from the vault"
)


class LockingBlobStore(AzureBlobStore):
    """An `AzureBlobStore` that is a `LockingStore` too."""

    def lock(self, name: str, until: datetime, *, final: bool) -> None:
        """See LockingStore."""
        blob = self._container.get_blob_client(checked_name(name))
        policy = ImmutabilityPolicy(expiry_time=until, policy_mode="Locked" if final else "Unlocked")

        def attempt(_: int) -> None:
            try:
                blob.set_immutability_policy(policy)
            except HttpResponseError as error:
                if error.status_code in (400, 409, 501) and error_code(error) != "ContainerNotFound":
                    raise self._unsupported(error) from error
                raise

        self._retried(f"lock {name}", attempt, name)

    def locks(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """See LockingStore."""
        for one in self._listed(prefix, ["immutabilitypolicy"]):
            until = one.immutability_policy.expiry_time
            if until is not None:
                yield str(one.name), until

    def locked_versions(self, prefix: str) -> Iterator[LockedVersion]:
        """See LockingStore."""
        for one in self._listed(prefix, ["versions", "immutabilitypolicy"]):
            until = one.immutability_policy.expiry_time
            if until is not None:
                yield LockedVersion(str(one.name), str(one.version_id), until, bool(one.is_current_version))

    def get_version(self, version: LockedVersion) -> bytes:
        """See LockingStore."""
        blob = self._container.get_blob_client(checked_name(version.name))

        def attempt(_: int) -> bytes:
            return bytes(blob.download_blob(version_id=version.version, max_concurrency=1).readall())

        return self._retried(f"read a version of {version.name}", attempt, version.name)

    def _listed(self, prefix: str, include: list[str]) -> Iterator[Any]:
        marker: str | None = None
        while True:
            page = self._retried(f"list {prefix}", functools.partial(self._full_page, prefix, include, marker))
            yield from page[0]
            if not (marker := page[1]):
                return

    def _full_page(self, prefix: str, include: list[str], marker: str | None, _: int) -> tuple[list[Any], str | None]:
        pages: Any = self._container.list_blobs(name_starts_with=prefix, include=include).by_page(
            continuation_token=marker
        )
        return list(next(pages, [])), pages.continuation_token

    def _unsupported(self, error: HttpResponseError) -> StopFault:
        code = error_code(error) or f"status {error.status_code}"
        return StopFault(
            f"{self._where} cannot lock objects against deletion ({code})",
            SWITCH_ON,
            reason="ImmutabilityNotSupported",
        )

    def _fault(self, what: str, error: AzureError) -> Fault:
        if error_code(error) in ("BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"):
            return ObjectLocked(what.partition(" ")[2])
        return super()._fault(what, error)
