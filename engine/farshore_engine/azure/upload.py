"""Direct upload of a staged disk into its managed disk: only pages that are not zero, in parallel, resumable.

A disk is written in windows from the front. When all pages of a window are acknowledged, a note beside the staged disk
says so; what continues after a kill begins behind it. The note names the managed disk by its unique id, and goes when
the staged disk is written to again: pages of two versions of a disk are never mixed. The footer comes last, and the end
of the access makes a disk of it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from azure.core.exceptions import AzureError

from farshore_engine.azure.cloud import Cloud, Tell, plain
from farshore_engine.azure.disks import UPLOADING, CloudDisk, create_disk, discard_disk, find_disk, grant_write, revoke
from farshore_engine.azure.faults import code_of, fault_of
from farshore_engine.azure.place import Place
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.hydrate.image import translated
from farshore_engine.hydrate.progress import write_note
from farshore_engine.hydrate.vhd import Footer

PAGE = 512  # bytes
PUT = 4 << 20  # bytes of one request, at most
GAP = 128  # zero pages that are sent along rather than ending a request
WINDOW = 256 << 20  # bytes between two notes
THREADS = 8
ACCESS_SECONDS = 3600  # life of a signature; it is renewed when it has expired
RENEWALS = 5  # renewals without any page written in between, after which it is given up
SUFFIX = ".upload.json"
EXPIRED = ("AuthenticationFailed", "InvalidAuthenticationInfo", "AuthorizationFailure")
Report = Callable[[int, int], None]
"""(bytes dealt with, bytes written)"""


@dataclass(frozen=True)
class Uploaded:
    """What an upload did: the managed disk's resource id, and the bytes that were sent now."""

    id: str
    sent: int = 0


def upload(cloud: Cloud, place: Place, disk: CloudDisk, footer: Footer, report: Report, tell: Tell) -> Uploaded:
    """Make the managed disk of a staged one, or find it made, or go on with what an earlier try began.

    Raises:
        WaitFault: Azure is away or busy; call again.
        StopFault: it refuses, or what has the disk's name is not ours.
    """
    found = find_disk(cloud, place, disk.name)
    if found is not None and plain(found.disk_state) not in UPLOADING:
        return Uploaded(_complete(found, disk))
    done = _noted(disk.image, found)
    if found is not None and done is None:
        # What was written to it is unknown, or was of another version of the staged disk.
        discard_disk(cloud, place.group, disk.name, plain(found.disk_state), tell)
        found = None
    if found is None:
        found = create_disk(cloud, place, disk, tell)
        done = 0
        _note(disk.image, found, 0)
    assert done is not None
    with _Blob(cloud, place.group, disk.name, tell) as blob:
        sent = _send(blob, disk, found, done, report)
        blob.put(disk.size, footer.encode())
    revoke(cloud, place.group, disk.name, tell)
    ended = find_disk(cloud, place, disk.name)
    if ended is None or plain(ended.disk_state) in UPLOADING:
        raise WaitFault(f"the upload of disk {disk.name} does not end", "It is tried again", reason="UploadOpen")
    forget_upload(disk.image)
    return Uploaded(str(ended.id), sent)


def forget_upload(image: Path) -> None:
    """Forget what was uploaded of a staged disk: it is about to be written to, or not needed any more."""
    _notes(image).unlink(missing_ok=True)


def data_runs(data: Any) -> Iterator[tuple[int, int]]:
    """Return (begin, end) in bytes of what is not zero, on pages' bounds, with short gaps sent along.

    Args:
        data: uint8 array, a whole number of pages.
    """
    used = np.flatnonzero(data.reshape(-1, PAGE).any(axis=1))
    if not used.size:
        return
    breaks = np.flatnonzero(np.diff(used) > GAP)
    firsts, lasts = np.r_[used[0], used[breaks + 1]], np.r_[used[breaks], used[-1]]
    for first, last in zip(firsts, lasts, strict=True):
        yield int(first) * PAGE, (int(last) + 1) * PAGE


def _send(blob: _Blob, disk: CloudDisk, found: Any, done: int, report: Report) -> int:
    """Send everything from byte `done` on; returns how many bytes that were."""
    sent = 0
    with translated(disk.image), disk.image.open("rb") as file, ThreadPoolExecutor(THREADS, "upload") as pool:
        length = os.fstat(file.fileno()).st_size
        for begin in range(done, disk.size, WINDOW):
            end = min(begin + WINDOW, disk.size)
            sent += _window(blob, file.fileno(), pool, begin, min(end, length))
            _note(disk.image, found, end)
            report(end, sent)
    return sent


def _window(blob: _Blob, descriptor: int, pool: ThreadPoolExecutor, begin: int, end: int) -> int:
    chunks = [pool.submit(_chunk, blob, descriptor, at, end) for at in _chunks(descriptor, begin, end)]
    try:
        waiting: set[Future[int]] = set(chunks)
        while waiting:
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
            blob.tell()
            if any(one.exception() is not None for one in done):
                break
        return sum(one.result() for one in chunks if one.done() or not one.cancel())
    finally:
        for one in chunks:
            one.cancel()
        wait([one for one in chunks if not one.cancelled()])


def _chunks(descriptor: int, begin: int, end: int) -> Iterator[int]:
    """Return where the requests' ranges begin that may hold something: holes of the file do not."""
    for at in range(begin, end, PUT):
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole up to the file's end
        if data < min(at + PUT, end):
            yield at


def _chunk(blob: _Blob, descriptor: int, at: int, end: int) -> int:
    raw = os.pread(descriptor, min(PUT, end - at), at)
    data = np.frombuffer(raw.ljust(-(-len(raw) // PAGE) * PAGE, b"\0"), np.uint8)
    sent = 0
    for first, last in data_runs(data):
        blob.put(at + first, data[first:last].tobytes())
        sent += last - first
    return sent


@dataclass
class _Blob:
    """The managed disk's bytes while it is uploaded to, through a signature that is renewed. Thread-safe."""

    cloud: Cloud
    group: str
    name: str
    tell: Tell
    _client: Any = None
    _made: list[Any] = field(default_factory=list)
    _generation: int = 0
    _futile: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> _Blob:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._made:
            one.close()

    def put(self, offset: int, data: bytes) -> None:
        """Write pages."""
        while True:
            client, generation = self._access()
            try:
                client.upload_page(data, offset=offset, length=len(data))
            except AzureError as error:
                if code_of(error) not in EXPIRED:
                    raise fault_of(f"write disk {self.name}", error) from None
                self._renew(generation)
            else:
                self._futile = 0
                return

    def _access(self) -> tuple[Any, int]:
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client, self._generation

    def _renew(self, generation: int) -> None:
        with self._lock:
            if generation != self._generation:
                return  # another thread has
            self._futile += 1
            if self._futile > RENEWALS:
                raise StopFault(
                    f"disk {self.name} cannot be written: each new signature is refused",
                    "Check the clock of this host, and that the network may reach the disk's storage account",
                    reason="SignatureRefused",
                )
            self._client = self._open()  # the old one is open until the end: other threads may be about to use it
            self._generation += 1

    def _open(self) -> Any:
        from azure.storage.blob import BlobClient

        url = grant_write(self.cloud, self.group, self.name, ACCESS_SECONDS)
        # The client would wait 15 seconds before it tries a second time.
        options: dict[str, Any] = {**self.cloud.options, "initial_backoff": 1, "increment_base": 2}
        made = BlobClient.from_blob_url(url, **options)
        self._made.append(made)
        return made


def _complete(found: Any, disk: CloudDisk) -> str:
    if int(found.disk_size_bytes or disk.size) != disk.size:
        raise StopFault(
            f"disk {disk.name} has {found.disk_size_bytes} bytes, and {disk.size} are wanted",
            "Clean the run up, and start anew",
            reason="DiskDiffers",
        )
    return str(found.id)


def _notes(image: Path) -> Path:
    return image.with_name(image.name + SUFFIX)


def _note(image: Path, found: Any, done: int) -> None:
    write_note(_notes(image), {"disk": str(found.unique_id), "bytes": done})


def _noted(image: Path, found: Any) -> int | None:
    """Return how many bytes from the front are in the managed disk; None where that is not known."""
    try:
        noted = json.loads(_notes(image).read_text())
    except (FileNotFoundError, ValueError):
        return None
    known = found is not None and isinstance(noted, dict) and noted.get("disk") == str(found.unique_id)
    return int(noted["bytes"]) if known else None
