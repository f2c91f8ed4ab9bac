"""Disks hold bytes, and are refused what Azure refuses: states, signatures, footers, sizes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient
from tests.azuresim import AzureSim, compute, seeds
from tests.azuresim.compute.diskfiles import FOOTER, MIB, checksum, footer

from .conftest import Clients, code

Refused = Callable[..., HttpResponseError]
SIZE = 20 * MIB


def upload(size: int = SIZE, **properties: Any) -> dict[str, Any]:
    creation = {"createOption": "Upload", "uploadSizeBytes": size + FOOTER}
    return {"location": "westeurope", "properties": {"creationData": creation, **properties}}


def empty(gib: int = 1, **more: Any) -> dict[str, Any]:
    properties = {"diskSizeGB": gib, "creationData": {"createOption": "Empty"}}
    return {"location": "westeurope", "properties": properties, **more}


@contextmanager
def opened(sim: AzureSim, azure: Clients, name: str, access: str) -> Iterator[BlobClient]:
    granted = azure.compute.disks.begin_grant_access("rg", name, {"access": access, "durationInSeconds": 600}).result()
    with BlobClient.from_blob_url(granted.access_sas, connection_verify=str(sim.ca_bundle), retry_total=0) as blob:
        yield blob


def state(azure: Clients, name: str) -> str:
    return str(azure.compute.disks.get("rg", name).as_dict()["properties"]["diskState"])


class TestUpload:
    def test_what_is_uploaded_is_what_the_disk_holds(self, sim: AzureSim, azure: Clients) -> None:
        disks = azure.compute.disks
        disks.begin_create_or_update("rg", "d", upload(osType="Linux", hyperVGeneration="V2")).result()
        assert state(azure, "d") == "ReadyToUpload"
        with opened(sim, azure, "d", "Write") as blob:
            assert state(azure, "d") == "ActiveUpload"
            blob.upload_page(b"A" * 4096, offset=MIB, length=4096)
            blob.upload_page(b"B" * 512, offset=SIZE - 512, length=512)
            blob.upload_page(footer(SIZE), offset=SIZE, length=FOOTER)
        disks.begin_revoke_access("rg", "d").result()
        assert state(azure, "d") == "Unattached"
        assert disks.get("rg", "d").disk_size_bytes == SIZE
        found = compute.compute(sim).disk_bytes("d")
        assert found == bytes(MIB) + b"A" * 4096 + bytes(SIZE - MIB - 4096 - 512) + b"B" * 512

    def test_an_exported_disk_has_the_footer_again_and_its_holes(self, sim: AzureSim, azure: Clients) -> None:
        data = bytes(MIB) + b"A" * MIB + bytes(SIZE - 2 * MIB)
        seeds.disk(sim, "rg", "d", data)
        with opened(sim, azure, "d", "Read") as blob:
            assert blob.get_blob_properties().size == SIZE + FOOTER
            read = blob.download_blob().readall()
            assert read == data + footer(SIZE)
            assert struct.unpack(">I", read[SIZE + 64 : SIZE + 68])[0] == checksum(read[SIZE:])
            part = blob.download_blob(offset=SIZE - 100, length=200).readall()
            assert part == read[SIZE - 100 : SIZE + 100]
        assert state(azure, "d") == "ActiveSAS"

    def test_page_ranges_tell_what_was_written_and_what_was_cleared(self, sim: AzureSim, azure: Clients) -> None:
        azure.compute.disks.begin_create_or_update("rg", "d", upload()).result()
        with opened(sim, azure, "d", "Write") as blob:
            for at in (0, 8, 16):
                blob.upload_page(b"x" * MIB, offset=at * MIB, length=MIB)
            blob.clear_page(offset=8 * MIB, length=MIB)
            found = [(one.start, one.end + 1) for one in blob.list_page_ranges()]
            assert found == [(0, MIB), (16 * MIB, 17 * MIB)]
            some = [(one.start, one.end + 1) for one in blob.list_page_ranges(offset=512, length=1024)]
            assert some == [(512, 1536)]
            pages = [list(page) for page in blob.list_page_ranges(results_per_page=1).by_page()]
            assert [len(page) for page in pages] == [1, 1]

    @pytest.mark.parametrize(
        ("tail", "part"),
        [
            pytest.param(bytes(FOOTER), "expected to have cookie value 'conectix'", id="no-footer"),
            pytest.param(footer(SIZE + MIB), "does not describe a fixed disk", id="footer-of-another-size"),
            pytest.param(footer(SIZE)[:60] + b"\0\0\0\3" + footer(SIZE)[64:], "does not describe", id="dynamic-disk"),
            pytest.param(footer(SIZE)[:64] + b"\0\0\0\0" + footer(SIZE)[68:], "does not describe", id="bad-checksum"),
        ],
    )
    def test_a_wrong_footer_is_found_when_access_is_revoked(
        self, sim: AzureSim, azure: Clients, refused: Refused, tail: bytes, part: str
    ) -> None:
        azure.compute.disks.begin_create_or_update("rg", "d", upload()).result()
        with opened(sim, azure, "d", "Write") as blob:
            blob.upload_page(tail, offset=SIZE, length=FOOTER)
            error = refused(azure.compute.disks.begin_revoke_access, "rg", "d")
            assert code(error) == "InvalidVhd" and part in str(error)
            assert state(azure, "d") == "ActiveUpload"
            blob.upload_page(footer(SIZE), offset=SIZE, length=FOOTER)
        azure.compute.disks.begin_revoke_access("rg", "d").result()
        assert state(azure, "d") == "Unattached"

    def test_an_expired_signature_is_renewed_by_granting_again(self, sim: AzureSim, azure: Clients) -> None:
        azure.compute.disks.begin_create_or_update("rg", "d", upload()).result()
        with opened(sim, azure, "d", "Write") as blob:
            blob.upload_page(b"1" * 512, offset=0, length=512)
            compute.compute(sim).files.expire(compute.compute(sim).disk("d").id)
            with pytest.raises(HttpResponseError, match="Signature not valid in the specified time frame"):
                blob.upload_page(b"2" * 512, offset=0, length=512)
        with opened(sim, azure, "d", "Write") as blob:
            assert blob.download_blob(offset=0, length=512).readall() == b"1" * 512

    @pytest.mark.parametrize(
        ("offset", "data", "expected"),
        [
            pytest.param(100, b"x" * 512, "InvalidPageRange", id="not-on-a-page"),
            pytest.param(SIZE + FOOTER, b"x" * 512, "InvalidPageRange", id="beyond-the-end"),
            pytest.param(0, b"x" * (4 * MIB + 512), "InvalidPageRange", id="more-than-4-MiB"),
        ],
    )
    def test_pages_that_the_service_does_not_take(
        self, sim: AzureSim, azure: Clients, offset: int, data: bytes, expected: str
    ) -> None:
        azure.compute.disks.begin_create_or_update("rg", "d", upload()).result()
        granted = azure.compute.disks.begin_grant_access(
            "rg", "d", {"access": "Write", "durationInSeconds": 60}
        ).result()
        assert _put_page(sim, granted.access_sas, offset, data) == (416, expected)

    def test_a_revoked_a_foreign_and_a_reading_signature_cannot_write(self, sim: AzureSim, azure: Clients) -> None:
        seeds.disk(sim, "rg", "read", bytes(SIZE))
        azure.compute.disks.begin_create_or_update("rg", "d", upload()).result()
        with opened(sim, azure, "d", "Write") as writing, opened(sim, azure, "read", "Read") as reading:
            with pytest.raises(HttpResponseError) as found:
                reading.upload_page(b"x" * 512, offset=0, length=512)
            assert found.value.error_code == "AuthorizationPermissionMismatch"  # type: ignore[attr-defined]
            writing.upload_page(footer(SIZE), offset=SIZE, length=FOOTER)
            foreign = reading.url.partition("?")[0] + "?" + writing.url.partition("?")[2]
            assert _put_page(sim, foreign, 0, b"x" * 512)[0] == 403
            azure.compute.disks.begin_revoke_access("rg", "d").result()
            with pytest.raises(HttpResponseError) as found:
                writing.upload_page(b"x" * 512, offset=0, length=512)
            assert found.value.status_code == 403

    def test_faults_can_be_planned_for_the_data_too(self, sim: AzureSim, azure: Clients) -> None:
        azure.compute.disks.begin_create_or_update("rg", "d", upload()).result()
        sim.faults.refuse("PUT", "*/abcd", 503, "ServerBusy", plane="data", nth=2)
        sim.faults.lose_response("PUT", "*/abcd", plane="data", nth=3)
        with opened(sim, azure, "d", "Write") as blob:
            blob.upload_page(b"1" * 512, offset=0, length=512)
            with pytest.raises(HttpResponseError, match="Planned by a test"):
                blob.upload_page(b"2" * 512, offset=0, length=512)
            with pytest.raises(Exception, match=r"(?i)connection|response"):
                blob.upload_page(b"3" * 512, offset=0, length=512)
            assert blob.download_blob(offset=0, length=512).readall() == b"3" * 512


def _put_page(sim: AzureSim, url: str, offset: int, data: bytes) -> tuple[int, str]:
    """Put a page by hand: the SDK refuses some of these itself."""
    import http.client
    import ssl
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=str(sim.ca_bundle))
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context)
    try:
        headers = {
            "x-ms-version": "2021-12-02", "x-ms-page-write": "update", "Content-Length": str(len(data)),
            "x-ms-range": f"bytes={offset}-{offset + len(data) - 1}",
        }  # fmt: skip
        connection.request("PUT", f"{parts.path}?comp=page&{parts.query}", data, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("x-ms-error-code", "")
    finally:
        connection.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "expected", "part"),
        [
            pytest.param(upload(SIZE + 1), "InvalidParameter", "uploadSizeBytes", id="size-not-whole-mib"),
            pytest.param(upload(SIZE - MIB), "InvalidParameter", "20972032", id="size-below-20-mib"),
            pytest.param(
                {"location": "westeurope", "properties": {"creationData": {"createOption": "Upload"}}},
                "InvalidParameter", "uploadSizeBytes", id="size-of-upload-missing",
            ),
            pytest.param(
                {"location": "westeurope", "properties": {"creationData": {"createOption": "Empty"}}},
                "InvalidParameter", "diskSizeGB", id="size-of-empty-missing",
            ),
            pytest.param(
                {
                    "location": "westeurope",
                    "properties": {"creationData": {"createOption": "Import", "sourceUri": "https://a/b/c.vhd"}},
                },
                "InvalidParameter", "correct blob URI", id="import-from-nowhere",
            ),
        ],
    )  # fmt: skip
    def test_what_a_disk_cannot_be_made_from(
        self, azure: Clients, refused: Refused, body: dict[str, Any], expected: str, part: str
    ) -> None:
        error = refused(azure.compute.disks.begin_create_or_update, "rg", "d", body)
        assert (error.status_code, code(error)) == (400, expected) and part in str(error)

    @pytest.mark.parametrize("name", ["-d", "d.", "d d", "d" * 81])
    def test_names(self, azure: Clients, refused: Refused, name: str) -> None:
        assert code(refused(azure.compute.disks.begin_create_or_update, "rg", name, empty())) == "InvalidParameter"

    def test_a_disk_type_that_the_region_lacks(self, sim: AzureSim, azure: Clients, refused: Refused) -> None:
        compute.compute(sim).disk_types.discard("Premium_LRS")
        body = empty(sku={"name": "Premium_LRS"})
        assert code(refused(azure.compute.disks.begin_create_or_update, "rg", "d", body)) == "InvalidAccountType"

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            pytest.param(upload(), "PropertyChangeNotAllowed", id="another-origin"),
            pytest.param({**empty(2), "zones": ["1"]}, "PropertyChangeNotAllowed", id="another-zone"),
            pytest.param({**empty(2), "location": "northeurope"}, "InvalidResourceLocation", id="another-region"),
            pytest.param(empty(1), "InvalidParameter", id="smaller"),
        ],
    )
    def test_what_a_disk_cannot_become(
        self, sim: AzureSim, azure: Clients, refused: Refused, change: dict[str, Any], expected: str
    ) -> None:
        seeds.disk(sim, "rg", "d", gib=2)
        assert code(refused(azure.compute.disks.begin_create_or_update, "rg", "d", change)) == expected

    def test_a_write_signature_needs_a_disk_in_an_upload_state(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        seeds.disk(sim, "rg", "d")
        ask = {"access": "Write", "durationInSeconds": 60}
        assert code(refused(azure.compute.disks.begin_grant_access, "rg", "d", ask)) == "OperationNotAllowed"
        azure.compute.disks.begin_create_or_update("rg", "u", upload()).result()
        ask = {"access": "Read", "durationInSeconds": 60}
        assert code(refused(azure.compute.disks.begin_grant_access, "rg", "u", ask)) == "OperationNotAllowed"

    def test_a_disk_that_denies_all_access_has_no_signature(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        seeds.disk(sim, "rg", "d")
        azure.compute.disks.begin_update("rg", "d", {"properties": {"networkAccessPolicy": "DenyAll"}}).result()
        error = refused(azure.compute.disks.begin_grant_access, "rg", "d", {"access": "Read", "durationInSeconds": 60})
        assert error.status_code == 409 and "DenyAll" in str(error)

    @pytest.mark.parametrize("seconds", [0, 60 * 24 * 3600 + 1])
    def test_how_long_a_signature_may_live(self, sim: AzureSim, azure: Clients, refused: Refused, seconds: int) -> None:
        seeds.disk(sim, "rg", "d")
        ask = {"access": "Read", "durationInSeconds": seconds}
        assert code(refused(azure.compute.disks.begin_grant_access, "rg", "d", ask)) == "InvalidParameter"

    def test_a_disk_with_an_active_signature_is_neither_deleted_nor_resized(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        seeds.disk(sim, "rg", "d")
        azure.compute.disks.begin_grant_access("rg", "d", {"access": "Read", "durationInSeconds": 60}).result()
        assert code(refused(azure.compute.disks.begin_delete, "rg", "d")) == "OperationNotAllowed"
        bigger = {"properties": {"diskSizeGB": 4}}
        assert (
            code(refused(azure.compute.disks.begin_update, "rg", "d", bigger))
            == "ChangeDiskSizeWhileActiveSasNotAllowed"
        )
        azure.compute.disks.begin_revoke_access("rg", "d").result()
        azure.compute.disks.begin_update("rg", "d", bigger).result()
        assert azure.compute.disks.get("rg", "d").disk_size_gb == 4
        azure.compute.disks.begin_delete("rg", "d").result()
        azure.compute.disks.begin_delete("rg", "d").result()  # 204: deleting what is gone is no error


class TestCopiesAndTags:
    def test_a_copy_holds_the_same_bytes_and_may_be_larger(self, sim: AzureSim, azure: Clients) -> None:
        source = seeds.disk(sim, "rg", "d", b"S" * SIZE)
        body = empty(1)
        body["properties"]["creationData"] = {"createOption": "Copy", "sourceResourceId": source}
        azure.compute.disks.begin_create_or_update("rg", "copy", body).result()
        state = compute.compute(sim)
        assert state.read("copy", 0, SIZE + MIB) == b"S" * SIZE + bytes(MIB)
        assert state.disk_path("copy").stat().st_size == 1024 * MIB

    def test_tags_are_replaced_by_a_patch_and_found_by_a_list(self, sim: AzureSim, azure: Clients) -> None:
        seeds.disk(sim, "rg", "d", tags={"farshore-run": "one"})
        azure.compute.disks.begin_update("rg", "d", {"tags": {"farshore-run": "two", "x": "y"}}).result()
        listed = azure.resources.resources.list_by_resource_group(
            "rg", filter="tagName eq 'farshore-run' and tagValue eq 'two'"
        )
        assert [(one.name, one.tags) for one in listed] == [("d", {"farshore-run": "two", "x": "y"})]

    def test_lists_come_in_pages(self, sim: AzureSim, azure: Clients) -> None:
        sim.page_size = 2
        for number in range(5):
            seeds.disk(sim, "rg", f"d{number}")
        pages = [list(page) for page in azure.compute.disks.list_by_resource_group("rg").by_page()]
        assert [len(page) for page in pages] == [2, 2, 1]
        assert len(list(azure.compute.disks.list())) == 5

    def test_a_group_takes_its_disks_with_it(self, sim: AzureSim, azure: Clients) -> None:
        seeds.disk(sim, "rg", "d")
        path = compute.compute(sim).disk_path("d")
        azure.resources.resource_groups.begin_delete("rg").result()
        assert not path.exists() and not list(azure.compute.disks.list())
