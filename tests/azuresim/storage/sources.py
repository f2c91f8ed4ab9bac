"""Page blobs that disks are imported from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobClient
from tests.azuresim.arm.errors import ArmError


class Source(Protocol):
    """A page blob that a disk is imported from."""

    size: int

    def into(self, path: Path) -> None: ...


@dataclass
class AzuriteBlob:
    """A page blob in the Azurite behind the accounts."""

    connection: str
    container: str
    name: str
    size: int

    def into(self, path: Path) -> None:
        """Write the blob's pages to a file that is as long."""
        given = (self.connection, self.container, self.name)
        with BlobClient.from_connection_string(*given) as client, path.open("r+b") as file:
            for one in client.list_page_ranges():
                if one.cleared:
                    continue
                data = client.download_blob(offset=one.start, length=one.end - one.start + 1).readall()
                file.seek(one.start)
                file.write(data)


def size_of(connection: str, container: str, name: str, uri: str) -> int:
    try:
        with BlobClient.from_connection_string(connection, container, name) as client:
            found = client.get_blob_properties()
    except ResourceNotFoundError as error:
        raise ArmError(404, "DiskBlobNotFound", f"Unable to find VHD blob with URI {uri}.") from error
    except HttpResponseError as error:
        raise ArmError(
            500, "StorageAccountOperationInternalError", "Internal error occurred while accessing storage account."
        ) from error
    if found.blob_type != "PageBlob":
        raise ArmError(
            400, "IncorrectDiskBlobType",
            f"Disk blobs can only be of type page blob. Blob {uri} is of type '{found.blob_type}'.",
        )  # fmt: skip
    if found.size < 20972032 or (found.size - 512) % (1024 * 1024):
        # the lower bound and the whole MiB as for uploads (description of uploadSizeBytes; "Prepare a VHD")
        raise ArmError(
            400, "VHDSizeInvalid", f"The specified disk size value of {found.size} for disk with blob {uri} is "
            f"invalid. Disk "
            "size must be between 20972032 and 35183298347520.",
        )  # fmt: skip
    return int(found.size)
