"""Storage accounts in front of an Azurite: names, keys, containers, and disks imported from page blobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ContainerClient
from tests.azuresim import AzureSim, compute
from tests.azuresim.compute.diskfiles import FOOTER, MIB, footer

from farshore_cli.dev.azurite import Azurite

from .conftest import Clients, code

Refused = Callable[..., HttpResponseError]
ACCOUNT: dict[str, Any] = {"location": "westeurope", "kind": "StorageV2", "sku": {"name": "Standard_LRS"}}
SIZE = 20 * MIB


class TestAccounts:
    def test_an_account_is_made_found_listed_and_has_keys(self, sim: AzureSim, azure: Clients) -> None:
        sim.pace.polls = 1
        accounts = azure.storage.storage_accounts
        made = accounts.begin_create("rg", "farshorevault", ACCOUNT).result()
        assert made.primary_endpoints.blob == "https://farshorevault.blob.core.windows.net/"
        assert [one.name for one in accounts.list()] == ["farshorevault"]
        assert len(accounts.list_keys("rg", "farshorevault").as_dict()["keys"]) == 2
        assert azure.storage.blob_containers.create("rg", "farshorevault", "vault", {}).name == "vault"

    @pytest.mark.parametrize("name", ["Vault", "v", "vault-one", "v" * 25])
    def test_names_that_an_account_cannot_have(self, azure: Clients, refused: Refused, name: str) -> None:
        assert code(_created(azure, refused, name)) == "AccountNameInvalid"

    def test_a_name_that_is_taken(self, sim: AzureSim, azure: Clients, refused: Refused) -> None:
        sim.group("other")
        sim.parts["storage"].account("farshorevault", "other")
        assert code(_created(azure, refused, "farshorevault")) == "StorageAccountAlreadyTaken"
        checked = azure.storage.storage_accounts.check_name_availability(
            {"name": "farshorevault", "type": "Microsoft.Storage/storageAccounts"}
        )
        assert (checked.name_available, checked.reason) == (False, "AlreadyExists")


def _created(azure: Clients, refused: Refused, name: str) -> HttpResponseError:
    """The refusal of an account, sent by hand where the SDK refuses the name itself."""
    try:
        return refused(azure.storage.storage_accounts.begin_create, "rg", name, ACCOUNT)
    except ValueError:
        path = f"/subscriptions/{azure.sim.subscription}/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/"
        from azure.core.rest import HttpRequest

        url = f"{azure.sim.endpoint}{path}{name}?api-version=2024-01-01"
        client = azure.storage._client
        response = client.send_request(HttpRequest("PUT", url, json=ACCOUNT))
        return HttpResponseError(response=response)


class TestImport:
    def blob(self, azurite: Azurite, container: str, data: bytes, tail: bytes, kind: str = "page") -> str:
        with ContainerClient.from_connection_string(azurite.connection_string, container) as client:
            if not client.exists():
                client.create_container()
            with client.get_blob_client("disk.vhd") as blob:
                if kind == "page":
                    blob.create_page_blob(len(data) + FOOTER)
                    for at in range(0, len(data), 4 * MIB):
                        if any(data[at : at + 4 * MIB]):
                            blob.upload_page(data[at : at + 4 * MIB], at, min(4 * MIB, len(data) - at))
                    blob.upload_page(tail, len(data), FOOTER)
                else:
                    blob.upload_blob(data[:512])
                return str(blob.url)

    def imported(self, sim: AzureSim, url: str) -> dict[str, Any]:
        account = sim.parts["storage"].account("farshorevault", "rg")
        creation = {"createOption": "Import", "storageAccountId": account, "sourceUri": url}
        return {"location": "westeurope", "properties": {"osType": "Linux", "creationData": creation}}

    def test_a_disk_is_imported_from_a_page_blob_with_a_footer(
        self, sim: AzureSim, azure: Clients, azurite: Azurite, container_name: str
    ) -> None:
        sim.parts["storage"].serve_with(azurite.connection_string)
        data = b"\1" * MIB + bytes(SIZE - 2 * MIB) + b"\2" * MIB
        url = self.blob(azurite, container_name, data, footer(SIZE))
        made = azure.compute.disks.begin_create_or_update("rg", "d", self.imported(sim, url)).result()
        assert made.disk_size_bytes == SIZE
        assert compute.compute(sim).disk_bytes("d") == data
        found = azure.storage.storage_accounts.get_properties("rg", "farshorevault")
        assert found.primary_endpoints.blob.startswith(azurite.account_url)

    @pytest.mark.parametrize(
        ("size", "tail", "kind", "expected"),
        [
            pytest.param(SIZE, bytes(FOOTER), "page", "InvalidVhd", id="no-footer"),
            pytest.param(SIZE + 512, footer(SIZE), "page", "VHDSizeInvalid", id="not-whole-mib"),
            pytest.param(SIZE, b"", "block", "IncorrectDiskBlobType", id="block-blob"),
        ],
    )
    def test_blobs_that_make_no_disk(
        self, sim: AzureSim, azure: Clients, azurite: Azurite, container_name: str, refused: Refused,
        size: int, tail: bytes, kind: str, expected: str,
    ) -> None:  # fmt: skip
        sim.parts["storage"].serve_with(azurite.connection_string)
        url = self.blob(azurite, container_name, bytes(size), tail, kind)
        error = refused(azure.compute.disks.begin_create_or_update, "rg", "d", self.imported(sim, url))
        assert code(error) == expected
        assert not list(azure.compute.disks.list())

    def test_a_blob_that_is_not_there(
        self, sim: AzureSim, azure: Clients, azurite: Azurite, container_name: str, refused: Refused
    ) -> None:
        sim.parts["storage"].serve_with(azurite.connection_string)
        url = f"{azurite.account_url.rstrip('/')}/{container_name}/none.vhd"
        error = refused(azure.compute.disks.begin_create_or_update, "rg", "d", self.imported(sim, url))
        assert code(error) == "DiskBlobNotFound"

    def test_a_container_that_resource_manager_makes_is_in_the_azurite(
        self, sim: AzureSim, azure: Clients, azurite: Azurite, container_name: str
    ) -> None:
        sim.parts["storage"].serve_with(azurite.connection_string)
        sim.parts["storage"].account("farshorevault", "rg")
        azure.storage.blob_containers.create("rg", "farshorevault", container_name, {})
        with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
            assert service.get_container_client(container_name).exists()
