"""The store on Azure Blob Storage: one container, block blobs, ETags as versions.

The SDK's retries are off, because they have no total deadline; ours have one. Vendor errors are translated here and
nowhere else. One object is one request, which is what makes a put atomic.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import BlobServiceClient, ContainerClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.vault.store import (
    WHOLE_MAX,
    AlreadyExists,
    ObjectNotFound,
    ObjectTooLarge,
    Version,
    VersionMismatch,
    checked_name,
)

ONE_REQUEST = 64 << 20  # bytes up to which an object is put and got in one request
CONNECT = 5.0  # seconds
READ = 30.0  # seconds without a byte
DEADLINE = 60.0  # seconds for one operation with all its retries
TRANSIENT = {408, 429, 500, 502, 503, 504}
R = TypeVar("R")
Page = tuple[list[str], str | None]  # names, and where the next page begins
SizedPage = tuple[list[tuple[str, int]], str | None]


class AzureBlobStore:
    """An `ObjectStore` on a container that must exist."""

    def __init__(self, container: ContainerClient, *, deadline: float = DEADLINE) -> None:
        """Use a client made with `client_options`; `deadline` seconds bound each operation with its retries."""
        self._container = container
        self._deadline = deadline
        self._where = (
            f"container {container.container_name} of {container.url.split('/' + container.container_name)[0]}"
        )

    @classmethod
    def connect(
        cls, account_url: str, container: str, credential: Any = None, *, deadline: float = DEADLINE
    ) -> AzureBlobStore:
        """Connect with an account key, a SAS token (both as str) or a TokenCredential."""
        service = BlobServiceClient(account_url, credential=credential, **client_options())
        return cls(service.get_container_client(container), deadline=deadline)

    @classmethod
    def from_connection_string(cls, text: str, container: str, *, deadline: float = DEADLINE) -> AzureBlobStore:
        """Connect with a connection string; raises StopFault when it is malformed."""
        try:
            service = BlobServiceClient.from_connection_string(text, **client_options())
        except ValueError as error:  # its text may hold the key, so it is not repeated
            raise StopFault(
                "the storage connection string is malformed",
                "Copy it again from the storage account's access keys",
                reason="BadCredential",
            ) from error
        return cls(service.get_container_client(container), deadline=deadline)

    def inquire(self, what: str, request: Callable[[ContainerClient], R]) -> R:
        """Ask the container something that is no matter of objects; raises Fault, "cannot <what> ..."."""
        return self._retried(what, lambda _: request(self._container))

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        """See ObjectStore."""
        blob, content = self._container.get_blob_client(checked_name(name)), bytes(data)
        match = MatchConditions.IfMissing if create_only else None

        def attempt(number: int) -> Version:
            try:
                return _etag(blob.upload_blob(content, overwrite=True, match_condition=match, max_concurrency=1))
            except (ResourceExistsError, ResourceModifiedError) as error:
                if number > 1 and (version := self._holds(name, content)):
                    return version  # the answer to an earlier attempt was lost
                raise AlreadyExists(name) from error

        return self._retried(f"write {name}", attempt)

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        """See ObjectStore."""
        blob, content = self._container.get_blob_client(checked_name(name)), bytes(data)

        def attempt(number: int) -> Version:
            try:
                answer = blob.upload_blob(
                    content,
                    overwrite=True,
                    etag=version,
                    match_condition=MatchConditions.IfNotModified,
                    max_concurrency=1,
                )
                return _etag(answer)
            except (ResourceModifiedError, ResourceNotFoundError) as error:
                if isinstance(error, ResourceNotFoundError) and error_code(error) == "ContainerNotFound":
                    raise
                if number > 1 and (found := self._holds(name, content)):
                    return found
                raise VersionMismatch(name) from error

        return self._retried(f"replace {name}", attempt)

    def get(self, name: str) -> tuple[bytes, Version]:
        """See ObjectStore."""
        blob = self._container.get_blob_client(checked_name(name))

        def attempt(_: int) -> tuple[bytes, Version]:
            stream = blob.download_blob(max_concurrency=1)
            if stream.size > WHOLE_MAX:
                raise ObjectTooLarge(name, stream.size)
            return stream.readall(), str(stream.properties.etag)

        return self._retried(f"read {name}", attempt, name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ObjectStore."""
        blob = self._container.get_blob_client(checked_name(name))

        def attempt(_: int) -> bytes:
            try:
                data: bytes = blob.download_blob(offset=offset, length=length, max_concurrency=1).readall()
            except HttpResponseError as error:
                if error.status_code == 416:
                    return b""
                raise
            return data

        return self._retried(f"read {name}", attempt, name) if length > 0 else b""

    def head(self, name: str) -> int:
        """See ObjectStore."""
        blob = self._container.get_blob_client(checked_name(name))
        return self._retried(f"look up {name}", lambda _: int(blob.get_blob_properties().size), name)

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore; pages of 5,000 names."""
        marker: str | None = None
        while True:
            page: Page = self._retried(f"list {prefix}", functools.partial(self._page, prefix, marker))
            yield from page[0]
            if not (marker := page[1]):
                return

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See ObjectStore; the listing tells the sizes, so this costs no more than `list`."""
        marker: str | None = None
        while True:
            page: SizedPage = self._retried(f"list {prefix}", functools.partial(self._sized_page, prefix, marker))
            yield from page[0]
            if not (marker := page[1]):
                return

    def folders(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""

        def attempt(_: int) -> Page:
            found = self._container.walk_blobs(name_starts_with=prefix, delimiter="/")
            return [str(one.name)[len(prefix) : -1] for one in found if str(one.name).endswith("/")], None

        yield from sorted(self._retried(f"list {prefix}", attempt)[0])

    def delete(self, name: str) -> None:
        """See ObjectStore."""
        blob = self._container.get_blob_client(checked_name(name))

        def attempt(_: int) -> None:
            try:
                blob.delete_blob()
            except ResourceNotFoundError as error:
                if error_code(error) == "ContainerNotFound":
                    raise

        self._retried(f"delete {name}", attempt)

    def _page(self, prefix: str, marker: str | None, _: int) -> Page:
        pages: Any = self._container.list_blob_names(name_starts_with=prefix).by_page(continuation_token=marker)
        return [str(name) for name in next(pages, [])], pages.continuation_token

    def _sized_page(self, prefix: str, marker: str | None, _: int) -> SizedPage:
        pages: Any = self._container.list_blobs(name_starts_with=prefix).by_page(continuation_token=marker)
        return [(str(one.name), int(one.size)) for one in next(pages, [])], pages.continuation_token

    def _holds(self, name: str, content: bytes) -> Version | None:
        """Return the version if the object holds exactly `content`."""
        try:
            data, version = self.get(name)
        except ObjectNotFound:
            return None
        return version if data == content else None

    def _retried(self, what: str, attempt: Callable[[int], R], name: str | None = None) -> R:
        retrying = Retrying(
            retry=retry_if_exception(_transient),
            stop=stop_after_delay(self._deadline),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        try:
            for turn in retrying:
                with turn:
                    return attempt(turn.retry_state.attempt_number)
        except ResourceNotFoundError as error:
            if name is not None and error_code(error) != "ContainerNotFound":
                raise ObjectNotFound(name) from error
            raise self._fault(what, error) from error
        except AzureError as error:
            raise self._fault(what, error) from error
        raise AssertionError("unreachable")

    def _fault(self, what: str, error: AzureError) -> Fault:
        status, code = getattr(error, "status_code", None), error_code(error)
        where = f"cannot {what} in {self._where}"
        if code in ("ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"):
            return StopFault(
                f"{where}: the container does not exist",
                "Create the container, or correct its name in the vault",
                reason="ContainerMissing",
            )
        if isinstance(error, ClientAuthenticationError) and not code:  # the account itself names one
            return _no_token(where, error)
        if status in (401, 403):
            return StopFault(
                f"{where}: access refused ({code or status})",
                "Check the storage credential: key, permissions and expiry, or the role Storage Blob Data Contributor, "
                "and the account's firewall",
                reason="StorageAccessRefused",
            )
        if code in ("ServerBusy", "OperationTimedOut") or status in (429, 503):
            return WaitFault(
                f"{where}: the storage account is throttled ({code or status})",
                "Nothing; if it lasts, spread the machines over more storage accounts",
                reason="StorageThrottled",
            )
        if isinstance(error, ServiceRequestError | ServiceResponseError | IncompleteReadError) or _transient(error):
            return WaitFault(
                f"{where}: no answer ({_short(error)})",
                "Check the network route, DNS and the account's address",
                reason="StorageUnreachable",
            )
        return StopFault(f"{where}: {code or _short(error)}", "See the storage account's logs", reason="StorageError")


def client_options() -> dict[str, Any]:
    """Return the options of every client: no retries of its own, short timeouts, one request for each object."""
    return {
        "retry_total": 0,
        "connection_timeout": CONNECT,
        "read_timeout": READ,
        "max_single_put_size": ONE_REQUEST,
        "max_single_get_size": ONE_REQUEST,
        "max_chunk_get_size": ONE_REQUEST,
    }


def _etag(answer: Any) -> Version:
    return str(answer["etag"])


def error_code(error: AzureError) -> str:
    """Return the code that the service gave, such as ContainerNotFound; empty if there is none."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")  # an enumeration where the client knows the code


def _no_token(where: str, error: ClientAuthenticationError) -> Fault:
    """Return what a refusal of the token service means; its text may hold the secret, its code does not."""
    status = error.status_code
    if status is None or status == 429 or status >= 500:
        return WaitFault(
            f"{where}: no token was given ({type(error).__name__})",
            "Without a credential, the process server's host needs a workload or managed identity",
            reason="NoToken",
        )
    code = re.search(r"AADSTS\d+", str(error))
    return StopFault(
        f"{where}: the login was refused ({code.group() if code else status})",
        "Check tenantId, clientId, clientSecret or clientCertificate in the credential's Secret",
        reason="LoginRefused",
    )


def _short(error: AzureError) -> str:
    return type(error).__name__ if not isinstance(error, HttpResponseError) else f"status {error.status_code}"


def _transient(error: BaseException) -> bool:
    if isinstance(error, HttpResponseError) and not isinstance(error, IncompleteReadError):
        return error.status_code in TRANSIENT
    return isinstance(error, ServiceRequestError | ServiceResponseError | IncompleteReadError)
