"""Warm replicas in page blobs: one for each disk of a machine, near its newest point, and the copies that runs make.

A run never writes to a replica. The service copies it, from a snapshot, because the replica may be moved on meanwhile;
the run brings its copy to its point and writes there what it changes in the guest. Names are the same for every
repetition, and begin with the machine's id and what tells its vault from others.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

from farshore_engine.azure.cloud import Cloud, Tell, plain, quiet
from farshore_engine.azure.faults import fault_of
from farshore_engine.azure.place import Place, same_region
from farshore_engine.contract.assignment import AzureBlobAccess, ReplicaAccess
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.hydrate.pageblob import PageBlob, PageBlobContainer, state_in
from farshore_engine.vault.azure_store import client_options, error_code
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.stores import principal_login

LOOK = 0.5  # seconds between two looks at a copy that the service makes
PREPARED = "prepared"
"""Mark of a copy that is not the point any more: what the guest's preparation changed was written to it."""
BLOB_ROLE = (
    "Give the site's principal the role Storage Blob Data Contributor on the container, or name a credential: "
    "spec.azure.replicas.credential of the Site"
)
FIREWALL = "Let the process server's network through the firewall of the storage account, or give it a private endpoint"


class ReplicaContainer(PageBlobContainer):
    """The container of a site's replicas, which must exist."""

    @classmethod
    def open(cls, access: ReplicaAccess, cloud: Cloud) -> ReplicaContainer:
        """Return the container, with the credential that is given or else the site's own login; asks nothing yet.

        Raises:
            StopFault: the credential is malformed.
        """
        storage = access.storage
        options = {**client_options(), "connection_verify": cloud.verify}
        secret = storage.account_key or storage.sas_token
        try:
            if storage.connection_string is not None:
                text = storage.connection_string.get_secret_value()
                service = BlobServiceClient.from_connection_string(text, **options)
            else:
                known: Any = secret.get_secret_value() if secret is not None else None
                if known is None:
                    known = principal_login(storage) if storage.principal is not None else cloud.credential
                service = BlobServiceClient(storage.account_url, credential=known, **options)
        except ValueError as error:  # its text may hold the secret
            raise StopFault(
                f"the storage account of the replicas ({storage.account_url}) or its credential is malformed",
                "Correct spec.azure.replicas of the Site and its Secret",
                reason="BadCredential",
            ) from error
        return cls(service.get_container_client(storage.container))

    def url(self, name: str) -> str:
        """Return the address of a blob, without any signature."""
        return str(self._container.get_blob_client(name).url).partition("?")[0]

    def copy(self, source: str, target: str, tell: Tell = quiet) -> None:
        """Make `target` a copy of the page blob `source` as it is now; one that was begun is waited for.

        Raises:
            StopFault: there is no `source`.
            WaitFault: the copy failed; call again.
        """
        blob = self._container.get_blob_client(target)
        status = self._copying(target)
        if status in ("failed", "aborted"):
            self.delete(target)
        if status in ("", "failed", "aborted"):
            self._begin_copy(source, target)
        while (status := self._copying(target)) == "pending":
            tell()
            time.sleep(LOOK)
        if status != "success":
            raise WaitFault(f"the copy {blob.blob_name} of {source} {status}", "It is made anew", reason="CopyFailed")
        self.drop_snapshots(source)

    def drop_snapshots(self, name: str) -> tuple[str, ...]:
        """Delete the snapshots of a blob; returns when each was taken. A copy that needs one is made anew."""
        found = self._listed(name, ["snapshots"])
        taken = [str(one.snapshot) for one in found if one.name == name and one.snapshot]
        for snapshot in taken:
            self._gone(f"delete a snapshot of {name}", self._container.get_blob_client(name, snapshot=snapshot))
        return tuple(taken)

    def drop(self, name: str) -> None:
        """Delete a blob with its snapshots; one that is not there is fine."""
        self._gone(f"delete {name}", self._container.get_blob_client(name), delete_snapshots="include")

    def named(self, prefix: str) -> list[str]:
        """Return the names of the blobs that begin so."""
        return sorted({str(one.name) for one in self._listed(prefix, [])})

    def _begin_copy(self, source: str, target: str) -> None:
        original = self._container.get_blob_client(source)

        def snapshot(_: int) -> str:
            return str(original.create_snapshot()["snapshot"])

        try:
            taken = self._retried(f"take a snapshot of {source}", snapshot)
        except StopFault as fault:
            if isinstance(fault.__cause__, ResourceNotFoundError) and fault.reason != "ContainerMissing":
                raise _no_replica(source) from fault
            raise
        url = str(self._container.get_blob_client(source, snapshot=taken).url)
        missing = {"If-None-Match": "*"}

        def start(_: int) -> None:
            try:
                self._container.get_blob_client(target).start_copy_from_url(url, headers=missing)
            except ResourceExistsError as error:
                if error_code(error) not in ("PendingCopyOperation", "BlobAlreadyExists"):  # of an earlier try
                    raise

        self._retried(f"copy {source}", start)

    def _copying(self, name: str) -> str:
        """Return how the copy to a blob stands, "" where there is no such blob."""
        found = self.disk(name, "").look()
        return "" if found is None else plain(found.copy.status) or "success"

    def _listed(self, prefix: str, include: list[str]) -> list[Any]:
        return self._retried(
            f"list {prefix}", lambda _: list(self._container.list_blobs(name_starts_with=prefix, include=include))
        )

    def _gone(self, what: str, blob: Any, **options: Any) -> None:
        def delete() -> None:
            try:
                blob.delete_blob(**options)
            except ResourceNotFoundError as error:
                if error_code(error) == "ContainerNotFound":
                    raise

        self.ask(what, delete)

    def _fault(self, what: str, error: AzureError) -> Fault:
        fault, code = super()._fault(what, error), error_code(error)
        if isinstance(error, ClientAuthenticationError) and not code:
            return fault_of(f"{what} in {self._where}", error)  # no token was given: the account was not asked
        if fault.reason != "StorageAccessRefused":
            return fault
        remedy = FIREWALL if code == "AuthorizationFailure" else BLOB_ROLE
        return StopFault(fault.message, remedy, reason=fault.reason)


@dataclass(frozen=True)
class Replicas:
    """The replica of one machine, and its copies. `folder` begins the names of all of them."""

    container: ReplicaContainer
    folder: str

    @classmethod
    def of(cls, access: ReplicaAccess, cloud: Cloud, vault: MachineVault) -> Replicas:
        """Return those of the machine of a vault; asks nothing yet."""
        own = hashlib.blake2b(vault.digest_key, digest_size=6, person=b"replica").hexdigest()
        return cls(ReplicaContainer.open(access, cloud), f"{vault.access.names.machine}/{own}")

    def name(self, disk: str) -> str:
        """Return the name of the replica of a disk."""
        return f"{self.folder}/replica/{_word(disk)}.vhd"

    def replica(self, disk: str, owner: str) -> PageBlob:
        """Return the replica of a disk as `owner` writes it."""
        return self.container.disk(self.name(disk), owner)

    def replicas(self) -> list[str]:
        """Return the names of the replicas that are there, of whichever disks."""
        return self.container.named(f"{self.folder}/replica/")

    def everything(self) -> list[str]:
        """Return the names of the replicas and copies that are there."""
        return self.container.named(f"{self.folder}/")

    def copy_name(self, place: Place, disk: str) -> str:
        """Return the name of the run's own copy of a replica."""
        return f"{self._copies(place.name)}{place.key}-{_word(disk)}.vhd"

    def copy(self, place: Place, disk: str, owner: str, *, prepared: str = "", tell: Tell = quiet) -> PageBlob:
        """Return the run's own copy of a replica, made if need be.

        Args:
            prepared: the mark of the run's preparation, if there was one: a copy with another mark is made anew.

        Raises:
            StopFault: there is no replica.
            WaitFault: the copy is not ready, or the account is away.
        """
        name = self.copy_name(place, disk)
        blob = self.container.disk(name, owner)
        found = blob.look()
        if found is not None and (found.metadata or {}).get(PREPARED, "") not in ("", prepared):
            self.container.drop(name)
        self.container.copy(self.name(disk), name, tell)
        if (kept := blob.look()) is None or state_in(kept) is None:
            self.container.drop(name)
            raise _no_replica(self.name(disk))
        return blob

    def remove_copies(self, machine: str) -> tuple[str, ...]:
        """Remove the copies that runs made for a recovered machine of that name, and snapshots; returns their names."""
        found = self.container.named(self._copies(machine))
        for name in found:
            self.container.drop(name)
        for name in self.replicas():
            self.container.drop_snapshots(name)
        return tuple(found)

    def _copies(self, machine: str) -> str:
        return f"{self.folder}/runs/{_word(machine)}/"


def usable(cloud: Cloud, storage: AzureBlobAccess) -> str:
    """Say that a container can hold replicas: it answers, and disks can be imported from its account; reads only.

    Raises:
        StopFault: it is not there, its account is elsewhere, or access is refused.
        WaitFault: the account is away.
    """
    container = ReplicaContainer.open(ReplicaAccess(storage=storage), cloud)
    container.named("none/")  # lists, and is refused as every other request would be
    account = account_of(cloud, container.url("none"))
    return f"container {storage.container} of {account.rpartition('/')[2]} answers, in the region of the site"


def account_of(cloud: Cloud, url: str) -> str:
    """Return the resource id of the storage account of a blob, which must be one that disks can be imported from.

    Raises:
        StopFault: it is in another region or subscription, or cannot be seen.
    """
    site = cloud.site
    accounts = cloud.kept(
        "storage accounts", 300.0, lambda: cloud.all("list storage accounts", cloud.storage.storage_accounts.list)
    )
    known = next((one for one in accounts if url.lower().startswith(tuple(_endpoints(one)))), None)
    host = url.partition("://")[2].partition("/")[0]
    if known is None:
        raise StopFault(
            f"no storage account of subscription {site.subscription} that the site's principal sees has the blob "
            f"endpoint {host}, so no disk can be imported from there",
            "Keep the replicas in an account of the site's subscription, and let the principal read it: "
            "spec.azure.replicas of the Site",
            reason="ReplicaElsewhere",
        )
    if not same_region(str(known.location), site.region):
        raise StopFault(
            f"the storage account {known.name} of the replicas is in {known.location}, the site in {site.region}: "
            "disks are imported within one region only",
            f"Keep the replicas in an account of {site.region}: spec.azure.replicas of the Site",
            reason="ReplicaElsewhere",
        )
    return str(known.id)


def _endpoints(account: Any) -> Iterator[str]:
    blob = str(getattr(account.primary_endpoints, "blob", "") or "")
    if blob:
        yield blob.rstrip("/").lower() + "/"


def _word(text: str) -> str:
    """Return what can stand in a blob's name for any text, readable and never the same for two."""
    return (
        f"{re.sub(r'[^a-z0-9-]+', '-', text.lower())[:60].strip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )


def _no_replica(name: str) -> StopFault:
    return StopFault(
        f"there is no warm replica {name}, or none that is complete",
        "It comes by itself; status.warmReplica of the ProtectedVM says how far it is",
        reason="NoReplica",
    )
