"""A container of Azurite that exists for one test, and the real stores as a fixture's parameter names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from farshore_cli.dev.azurite import Azurite
from farshore_engine.vault.azure_store import AzureBlobStore
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.store import ObjectStore


@contextmanager
def blob_container(azurite: Azurite, name: str) -> Iterator[ContainerClient]:
    """Make the container, and remove it in the end, also after a failure."""
    with BlobServiceClient(azurite.account_url, credential=azurite.key) as service:
        client = service.create_container(name)
        try:
            yield client
        finally:
            service.delete_container(name)


@contextmanager
def blob_store(azurite: Azurite, name: str) -> Iterator[AzureBlobStore]:
    """Give a store in a container of its own."""
    with blob_container(azurite, name):
        yield AzureBlobStore.connect(azurite.account_url, name, azurite.key)


@contextmanager
def real_store(request: pytest.FixtureRequest, directory: Path, name: str) -> Iterator[ObjectStore]:
    """Give the store that the fixture's parameter names: "directory" or "azure"; Azurite starts only for that."""
    if request.param == "directory":
        yield DirectoryStore(directory / "vault")
    else:
        with blob_store(request.getfixturevalue("azurite"), name) as store:
            yield store
