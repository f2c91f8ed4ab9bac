"""A container of Azurite that exists for one test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.storage.blob import BlobServiceClient, ContainerClient

from farshore_cli.dev.azurite import Azurite
from farshore_engine.vault.azure_store import AzureBlobStore


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
