"""Unmanaged disks: VHDs in page blobs of a storage account at the Hub, read and written by page ranges.

The VHD is fetched over the Hub's own network into a sparse file of the process server, the point is written to that
file where it differs, and the pages that differ go back. So of the vault no more is read than what changed.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient

from farshore_engine.azurestack.faults import translate
from farshore_engine.azurestack.metadata import verify
from farshore_engine.azurestack.profile import BLOBS
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.image import translated

ACCOUNTS = "Microsoft.Storage/storageAccounts"
FOOTER = 512
"""Bytes at the end of a fixed VHD that are not the disk's."""
STEP = 4 << 20
"""Bytes of one request; Put Page takes no more."""
PAGE = 512
R = TypeVar("R")
Tell = Callable[[int, int], None]


class VhdBlob:
    """The disk in a page blob. The machine must be gone, or the platform's lease refuses every write.

    Methods raise WaitFault and StopFault as `ResourceManager` does.
    """

    def __init__(self, manager: ResourceManager, uri: str) -> None:
        """Ask for the key of the account that the blob is in."""
        self._uri = uri.split("?")[0]
        self._manager = manager
        name = _account_name(self._uri)
        known = {"account_name": name, "account_key": _key(manager, self._uri)}
        self._client = BlobClient.from_blob_url(
            self._uri, credential=known, api_version=BLOBS, connection_verify=verify(manager.site), retry_total=3
        )

    def size(self) -> int:
        """Return the bytes of the disk."""
        return self._asked("read", lambda: int(self._client.get_blob_properties().size)) - FOOTER

    def fetch(self, path: Path, tell: Tell) -> None:
        """Read the disk into a file; what is zeros takes no space there."""
        size = self.size()
        ranges = self._ranges()
        with translated(path), path.open("wb") as file:
            file.truncate(size)
            for begin, end in ranges:
                for at in range(begin, min(end, size), STEP):
                    tell(at, size)
                    file.seek(at)
                    file.write(self._read(at, min(STEP, end - at, size - at)))
            file.flush()
            os.fsync(file.fileno())

    def store(self, path: Path, tell: Tell) -> int:
        """Make the disk equal to a file, writing only pages that differ; return the bytes that were written."""
        size, written = self.size(), 0
        ranges = self._ranges()
        with translated(path), path.open("rb") as file:
            for at in range(0, size, STEP):
                tell(at, size)
                length = min(STEP, size - at)
                wanted = file.read(length).ljust(length, b"\0")
                filled = any(begin < at + length and at < end for begin, end in ranges)
                there = self._read(at, length) if filled else bytes(length)
                for begin, end in _differing(wanted, there):
                    self._put(at + begin, wanted[begin:end])
                    written += end - begin
        return written

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _put(self, offset: int, data: bytes) -> None:
        def write() -> object:
            if data.count(0) == len(data):
                return self._client.clear_page(offset=offset, length=len(data))
            return self._client.upload_page(data, offset=offset, length=len(data))

        self._asked("write", write)

    def _read(self, offset: int, length: int) -> bytes:
        return self._asked("read", lambda: bytes(self._client.download_blob(offset=offset, length=length).readall()))

    def _ranges(self) -> list[tuple[int, int]]:
        def ask() -> list[tuple[int, int]]:
            found = self._client.list_page_ranges()
            return [(int(one.start or 0), int(one.end or 0) + 1) for one in found if not one.cleared]

        return self._asked("read the ranges of", ask)

    def _asked(self, verb: str, ask: Callable[[], R]) -> R:
        try:
            return ask()
        except AzureError as error:
            raise translate(error, f"{verb} {urlsplit(self._uri).path.lstrip('/')}", self._uri) from error


def _differing(wanted: bytes, there: bytes) -> list[tuple[int, int]]:
    """Return where two stretches differ, in whole 64 KiB where they are that long."""
    step = 1 << 16
    found: list[tuple[int, int]] = []
    for at in range(0, len(wanted), step):
        if wanted[at : at + step] != there[at : at + step]:
            end = min(at + step, len(wanted))
            if found and found[-1][1] == at:
                found[-1] = (found[-1][0], end)
            else:
                found.append((at, end))
    return found


def _account_name(uri: str) -> str:
    """Return the account that a blob's URI names: in the host, or, where that is an address, in the path."""
    parts = urlsplit(uri)
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return (parts.hostname or "").split(".")[0]
    return parts.path.split("/")[1]


def _key(manager: ResourceManager, uri: str) -> str:
    """Return a key of the account whose blob endpoint the URI begins with."""
    path = f"/subscriptions/{manager.site.subscription}/providers/{ACCOUNTS}"
    for account in manager.all(path):
        endpoint = str((account.get("properties") or {}).get("primaryEndpoints", {}).get("blob") or "")
        if endpoint and uri.lower().startswith(endpoint.lower()):
            keys = manager.post(f"{account['id']}/listKeys").get("keys") or []
            if keys:
                return str(keys[0]["value"])
    raise StopFault(
        f"no storage account of the subscription holds {uri}",
        "Give the site's principal the right to list storage accounts and their keys",
        reason="AccountMissing",
    )
