"""Page blobs of managed disks over HTTPS, as azure-storage-blob's BlobClient speaks to them with a SAS.

Source: REST reference of the Blob service: Put Page, Get Page Ranges, Get Blob, Get Blob Properties; error codes of
"Blob service error codes". Nothing else works with a disk's SAS ([inf]: a disk's blob can neither be replaced, resized,
leased, copied nor deleted through it).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import time
import uuid
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

from tests.azuresim.arm.call import Asked
from tests.azuresim.arm.faults import Kind
from tests.azuresim.arm.server import Connection, Server
from tests.azuresim.compute.diskfiles import FOOTER, Access, data_ranges, footer
from tests.azuresim.compute.state import compute
from tests.azuresim.sim import AzureSim

PAGE, MOST_PAGES = 512, 4 * 1024 * 1024
"""Bytes. Source: Put Page: ranges are aligned to 512 bytes, at most 4 MiB in one call."""
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
PUNCH = 0x01 | 0x02


class Refused(Exception):
    """The Blob service's refusal."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Blob:
    """A disk as a blob: its file, its length with the footer, and what the signature permits."""

    disk_id: str
    path: Path
    size: int
    uploading: bool
    access: Access


class BlobConnection(Connection):
    """One client of the data plane."""

    def _any(self) -> None:
        raw = self.read_body()
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        fault = self.sim.faults.strike("data", self.command, parts.path)
        status, lost = 0, fault is not None and fault.kind is Kind.LOSE_REQUEST
        try:
            if lost:
                return self.drop()
            if fault is not None and fault.kind is Kind.REFUSE and fault.error is not None:
                raise Refused(fault.error.status, fault.error.code, fault.error.message)
            status, headers, data = self._serve(parts.path, query, raw)
            length = None
        except Refused as refused:
            status, headers, data, length = refused.status, _refusal(refused), _error(refused), None
            if fault is not None and fault.error is not None:
                headers.update(fault.error.headers)
        finally:
            self.sim.record("data", Asked(self.command, parts.path, query, self.headers), None, status)
        if fault is not None and fault.kind is Kind.LOSE_RESPONSE:
            return self.drop()
        if "Content-Length" in headers:
            length = int(headers.pop("Content-Length"))
        common = {
            "x-ms-request-id": str(uuid.uuid4()), "x-ms-version": self.headers.get("x-ms-version", "2021-12-02"),
            "Server": "Windows-Azure-Blob/1.0",
        }  # fmt: skip
        self.send(status, {**common, **headers}, data, length)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any  # noqa: N815

    def version_string(self) -> str:
        return "azuresim"

    def _serve(self, path: str, query: dict[str, str], raw: bytes) -> tuple[int, dict[str, str], bytes]:
        blob, comp = self._blob(path, query), query.get("comp", "")
        if self.command == "PUT" and comp == "page":
            return self._put_page(blob, raw)
        if self.command == "GET" and comp == "pagelist":
            return self._ranges(blob, query)
        if self.command == "HEAD" and not comp:
            return 200, {**self._headers(blob), "Content-Length": str(blob.size)}, b""
        if self.command == "GET" and not comp:
            return self._read(blob)
        raise Refused(
            403, "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation."
        )

    def _blob(self, path: str, query: dict[str, str]) -> Blob:
        state = compute(self.sim)
        access = state.files.access.get(query.get("sig", ""))
        with self.sim.lock:
            disk_id = state.files.blobs.get(path)
            if access is None or disk_id is None or access.disk_id != disk_id or access.identifier != query.get("si"):
                raise Refused(
                    403, "AuthenticationFailed",
                    "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
                    "correctly including the signature.",
                )  # fmt: skip
            if time.time() > access.expires:
                raise Refused(
                    403, "AuthenticationFailed", "Server failed to authenticate the request: Signature not valid in "
                    "the "
                    f"specified time frame. Expiry [{formatdate(access.expires, usegmt=True)}].",
                )  # fmt: skip
            disk = self.sim.store.get(disk_id)
            if disk is None:
                raise Refused(404, "BlobNotFound", "The specified blob does not exist.")
            uploading = disk.properties["diskState"] == "ActiveUpload"
            return Blob(
                disk_id, state.files.path(disk_id), int(disk.properties["diskSizeBytes"]) + FOOTER, uploading, access
            )

    def _headers(self, blob: Blob) -> dict[str, str]:
        number = compute(self.sim).files.etags.get(blob.disk_id, 0)
        return {
            "ETag": f'"0x{number + 0x8D0000000000000:X}"',
            "Last-Modified": formatdate(blob.path.stat().st_mtime, usegmt=True),
            "x-ms-blob-type": "PageBlob", "x-ms-blob-sequence-number": "0", "Accept-Ranges": "bytes",
            "x-ms-lease-status": "locked" if not blob.uploading else "unlocked",
            "x-ms-lease-state": "leased" if not blob.uploading else "available", "x-ms-server-encrypted": "true",
            "Content-Type": "application/octet-stream", "x-ms-creation-time": formatdate(usegmt=True),
        }  # fmt: skip

    def _asked(self, size: int) -> tuple[int, int] | None:
        """(begin, end) in bytes, end excluded, of the range header."""
        given = self.headers.get("x-ms-range") or self.headers.get("Range")
        if not given:
            return None
        found = RANGE.fullmatch(given.strip())
        if found is None:
            raise Refused(
                400, "InvalidHeaderValue", "The value for one of the HTTP headers is not in the correct format."
            )
        begin, end = int(found[1]), int(found[2]) + 1 if found[2] else size
        return begin, end

    def _put_page(self, blob: Blob, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        if not blob.access.write:
            raise Refused(
                403,
                "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission.",
            )
        asked, kind = self._asked(blob.size), self.headers.get("x-ms-page-write", "").lower()
        if asked is None or kind not in ("update", "clear"):
            raise Refused(
                400, "MissingRequiredHeader", "An HTTP header that's mandatory for this request is not specified."
            )
        begin, end = asked
        if (
            begin % PAGE
            or end % PAGE
            or begin >= end
            or end > blob.size
            or (kind == "update" and end - begin > MOST_PAGES)
        ):
            raise Refused(416, "InvalidPageRange", "The page range specified is invalid.")
        if kind == "update" and len(raw) != end - begin:
            raise Refused(400, "InvalidHeaderValue", "The Content-Length does not match the range.")
        self._check_md5(raw)
        self._check_conditions(blob)
        with blob.path.open("r+b") as file:
            if kind == "update":
                os.pwrite(file.fileno(), raw, begin)
            else:
                _punch(file.fileno(), begin, end - begin)
        files = compute(self.sim).files
        files.etags[blob.disk_id] = files.etags.get(blob.disk_id, 0) + 1
        made = {
            name: value
            for name, value in self._headers(blob).items()
            if name in ("ETag", "Last-Modified", "x-ms-blob-sequence-number")
        }
        return 201, {**made, "x-ms-request-server-encrypted": "true"}, b""

    def _check_md5(self, raw: bytes) -> None:
        given = self.headers.get("Content-MD5")
        try:
            wrong = given is not None and base64.b64decode(given) != hashlib.md5(raw, usedforsecurity=False).digest()
        except binascii.Error:
            wrong = True
        if wrong:
            raise Refused(
                400,
                "Md5Mismatch",
                "The MD5 value specified in the request did not match with the MD5 value calculated by the server.",
            )

    def _check_conditions(self, blob: Blob) -> None:
        wanted = self.headers.get("If-Match")
        if wanted and wanted not in ("*", self._headers(blob)["ETag"]):
            raise Refused(
                412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met."
            )

    def _read(self, blob: Blob) -> tuple[int, dict[str, str], bytes]:
        asked = self._asked(blob.size)
        begin, end = asked or (0, blob.size)
        if begin >= blob.size:
            raise Refused(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
        end = min(end, blob.size)
        data = read(blob, begin, end)
        headers = self._headers(blob)
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{blob.size}"
            if self.headers.get("x-ms-range-get-content-md5", "").lower() == "true":
                if end - begin > MOST_PAGES:
                    raise Refused(400, "OutOfRangeQueryParameterValue", "Only ranges of up to 4 MiB have an MD5.")
                headers["Content-MD5"] = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        return (206 if asked else 200), headers, data

    def _ranges(self, blob: Blob, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        begin, end = self._asked(blob.size) or (0, blob.size)
        most, after = int(query.get("maxresults") or 10000), int(query.get("marker") or 0)
        with blob.path.open("rb") as file:
            found = data_ranges(file.fileno(), min(blob.size, os.fstat(file.fileno()).st_size))
        if not blob.uploading:
            found.append((blob.size - FOOTER, blob.size))
        inside = [(max(one, begin), min(last, end)) for one, last in found if last > begin and one < end]
        rest = [one for one in inside if one[0] >= after]
        listed = ElementTree.Element("PageList")
        for one, last in rest[:most]:
            entry = ElementTree.SubElement(listed, "PageRange")
            ElementTree.SubElement(entry, "Start").text = str(one)
            ElementTree.SubElement(entry, "End").text = str(last - 1)
        ElementTree.SubElement(listed, "NextMarker").text = str(rest[most][0]) if len(rest) > most else ""
        data = ElementTree.tostring(listed, encoding="utf-8", xml_declaration=True)
        return (
            200,
            {**self._headers(blob), "x-ms-blob-content-length": str(blob.size), "Content-Type": "application/xml"},
            data,
        )


def read(blob: Blob, begin: int, end: int) -> bytes:
    """Bytes of the blob; an exported disk's last 512 are a footer that is made here."""
    with blob.path.open("rb") as file:
        data = os.pread(file.fileno(), end - begin, begin)
    if blob.uploading or end <= blob.size - FOOTER:
        return data.ljust(end - begin, b"\0")
    body = data[: max(0, blob.size - FOOTER - begin)].ljust(max(0, blob.size - FOOTER - begin), b"\0")
    tail = footer(blob.size - FOOTER)
    return body + tail[max(0, begin - (blob.size - FOOTER)) : end - (blob.size - FOOTER)]


def _punch(descriptor: int, begin: int, length: int) -> None:
    """Clear pages: a hole where the file system can make one, zeros elsewhere."""
    whole = (begin + 4095) // 4096 * 4096, (begin + length) // 4096 * 4096
    if whole[0] >= whole[1]:
        os.pwrite(descriptor, bytes(length), begin)
        return
    os.pwrite(descriptor, bytes(whole[0] - begin), begin)
    os.pwrite(descriptor, bytes(begin + length - whole[1]), whole[1])
    _hole(descriptor, whole[0], whole[1] - whole[0])


def _hole(descriptor: int, begin: int, length: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    offset = ctypes.c_int64
    if libc.fallocate(descriptor, PUNCH, offset(begin), offset(length)) != 0:
        for at in range(begin, begin + length, 1 << 20):
            os.pwrite(descriptor, bytes(min(1 << 20, begin + length - at)), at)


def _refusal(refused: Refused) -> dict[str, str]:
    return {"x-ms-error-code": refused.code, "Content-Type": "application/xml"}


def _error(refused: Refused) -> bytes:
    root = ElementTree.Element("Error")
    ElementTree.SubElement(root, "Code").text = refused.code
    ElementTree.SubElement(root, "Message").text = refused.message
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def plug(sim: AzureSim) -> None:
    """Listen for the data plane; `sim.parts["blobs"].url` is its address."""
    server = Server(type("BlobBound", (BlobConnection,), {"sim": sim}), sim.tls)
    sim.parts["blobs"] = server
    sim.on_begin.append(server.thread.start)
    sim.on_stop.append(server.stop)
