"""A recovery point as a page blob that Azure makes a managed disk from: a fixed VHD, its zeros never sent.

Where it stands is in the blob's own metadata, written when the pages that it speaks of are durable, so any appliance
continues what another began. A lease keeps two from writing at once; whoever lost it, writes nothing any more.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError
from azure.storage.blob import BlobClient, BlobLeaseClient, BlobProperties

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.hydrate.progress import ImageState, parse_state
from farshore_engine.hydrate.raw import state_of, update_state
from farshore_engine.hydrate.vhd import FOOTER_SIZE, Footer, virtual_size
from farshore_engine.hydrate.windows import (
    THREADS,
    Progress,
    Report,
    Work,
    changed_blocks,
    silent,
    whole_disk,
    write_windows,
)
from farshore_engine.vault.azure_store import AzureBlobStore, error_code
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, checked_name

PAGE = 512  # bytes
PUT = 4 << 20  # bytes; Put Page takes no more
CLEAR = 1 << 30  # bytes of one request that clears
LEASE_SECONDS = 60
METADATA = "farshore"
LEASES = (
    "LeaseAlreadyPresent",
    "LeaseLost",
    "LeaseIdMissing",
    "LeaseIdMismatchWithBlobOperation",
    "LeaseNotPresentWithBlobOperation",
)


class PageBlobContainer(AzureBlobStore):
    """The container that disks are written to; made with `connect` or `from_connection_string`."""

    def disk(self, name: str, owner: str, *, lease_seconds: int = LEASE_SECONDS) -> PageBlob:
        """Return the page blob of that name; nothing is asked yet.

        Args:
            name: of the blob, usually ending in `.vhd`.
            owner: who writes: the same one, restarted, continues at once; another waits for the lease to expire.
            lease_seconds: 15 to 60.
        """
        return PageBlob(self, self._container.get_blob_client(checked_name(name)), owner, lease_seconds)

    def get_properties(self, blob: BlobClient) -> BlobProperties:
        """Return what the service knows of a blob; raises ObjectNotFound or Fault."""
        found: BlobProperties = self._retried(
            f"look at {blob.blob_name}", lambda _: blob.get_blob_properties(), blob.blob_name
        )
        return found

    def ask(self, what: str, request: Callable[[], Any]) -> Any:
        """Make a repeatable request, again and again while the service is away; raises Fault."""

        def attempt(_: int) -> Any:
            try:
                return request()
            except HttpResponseError as error:
                if error_code(error) in LEASES:
                    raise _taken(what) from error
                raise

        return self._retried(what, attempt)

    def make(self, request: Callable[[], Any]) -> None:
        """Make a create-only request; raises AlreadyExists."""

        def attempt(_: int) -> None:
            try:
                request()
            except (ResourceExistsError, ResourceModifiedError) as error:
                raise AlreadyExists("") from error

        self._retried("make a page blob", attempt)


class PageBlob:
    """One page blob, as a `Target`. `size` is that of the VHD's disk, without its footer; all sizes in bytes."""

    def __init__(self, container: PageBlobContainer, blob: BlobClient, owner: str, lease_seconds: int) -> None:
        """See `PageBlobContainer.disk`."""
        self._container = container
        self._blob = blob
        self._lease_seconds = lease_seconds
        self._lease_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"farshore:{owner}:{blob.blob_name}"))
        self._lease: BlobLeaseClient | None = None
        self.name: str = blob.blob_name
        self.size = self.disk_size = 0
        self.blank = False  # known to hold zeros only

    def ask(self, verb: str, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of the client, under the lease if it is held; raises Fault."""
        held = {"lease": self._lease_id} if self._lease is not None else {}
        return self._container.ask(f"{verb} {self.name}", lambda: request(*arguments, **options, **held))

    @contextmanager
    def opened(self, size: int) -> Iterator[ImageState | None]:
        """Make the blob for a disk of `size` bytes if there is none, and keep others from writing to it.

        Gives what is on record of its content, None for nothing.

        Raises:
            WaitFault: somebody else writes to it, or the service is away.
            StopFault: access is refused, or no page blob is that large.
        """
        self.disk_size, self.size = size, virtual_size(size)
        self.blank = self._make()
        lease = BlobLeaseClient(self._blob, self._lease_id)
        self.ask("lease", lease.acquire, self._lease_seconds)
        self._lease = lease
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(lease, ended), name="lease", daemon=True)
        thread.start()
        try:
            yield self._state()
        finally:
            ended.set()
            thread.join()
            self._lease = None
            with contextlib.suppress(Fault):  # it expires by itself
                self.ask("release", lease.release)

    def write(self, block: int, data: memoryview) -> None:
        """See Target."""
        offset = block * BLOCK_SIZE
        view = data[: max(0, self.disk_size - offset)]
        for at in range(0, len(view), PUT):
            part = bytes(view[at : at + PUT])
            part = part.ljust(-(-len(part) // PAGE) * PAGE, b"\0")
            self.ask("write", self._blob.upload_page, part, offset=offset + at, length=len(part))

    def clear(self, first: int, count: int) -> None:
        """See Target."""
        self.clear_bytes(first * BLOCK_SIZE, min((first + count) * BLOCK_SIZE, self.size))

    def clear_bytes(self, begin: int, end: int) -> None:
        """Make the bytes [begin, end) zeros; both are on pages' bounds."""
        for at in range(begin, end, CLEAR):
            self.ask("clear", self._blob.clear_page, offset=at, length=min(CLEAR, end - at))

    def look(self) -> BlobProperties | None:
        """Return what the service knows of the blob, None if there is none; needs no lease."""
        try:
            found: BlobProperties = self._container.get_properties(self._blob)
        except ObjectNotFound:
            return None
        return found

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the blob, its footer included; needs no lease."""
        data: bytes = self.ask(
            "read", lambda: self._blob.download_blob(offset=offset, length=length, max_concurrency=1).readall()
        )
        return data

    def sync(self) -> None:
        """Do nothing: what was acknowledged is durable."""

    def save(self, state: ImageState, **marks: str) -> None:
        """Put on record how far it is, with marks of the caller's in place of those that were there."""
        self.ask("mark", self._blob.set_blob_metadata, {METADATA: json.dumps(asdict(state)), **marks})

    def resize(self) -> None:
        """Give the blob the size of its disk and footer; what comes in addition is zeros, the old footer included."""
        there = int(self.ask("look at", self._blob.get_blob_properties).size)
        if there >= FOOTER_SIZE:
            self.clear_bytes(there - FOOTER_SIZE, there)
        if there != self.size + FOOTER_SIZE:
            self.ask("resize", self._blob.resize_blob, self.size + FOOTER_SIZE)

    def finish(self, footer: Footer) -> None:
        """Write the footer, which makes a VHD of it."""
        self.ask("write", self._blob.upload_page, footer.encode(), offset=self.size, length=FOOTER_SIZE)

    def _make(self) -> bool:
        """Make the blob; return whether it is new."""
        size, missing = self.size + FOOTER_SIZE, {"If-None-Match": "*"}  # the client has no option for it here
        try:
            self._container.make(lambda: self._blob.create_page_blob(size, headers=missing))
        except AlreadyExists:
            return False
        return True

    def _state(self) -> ImageState | None:
        return state_in(self.ask("look at", self._blob.get_blob_properties))

    def _renew(self, lease: BlobLeaseClient, ended: threading.Event) -> None:
        while not ended.wait(self._lease_seconds / 4):
            with contextlib.suppress(Fault):  # whether it is lost, the next write finds out
                self._container.ask(f"renew the lease of {self.name}", lease.renew)


def state_in(properties: BlobProperties) -> ImageState | None:
    """Return what is on record of a blob's content, None for nothing."""
    metadata = properties.metadata or {}
    return parse_state(metadata[METADATA]) if METADATA in metadata else None


def hydrate_page_blob(
    reader: PointReader, disk: str, blob: PageBlob, *, threads: int = THREADS, report: Report = silent
) -> Progress:
    """Write a disk of the point to a page blob, as a fixed VHD; an interrupted run is continued.

    What the blob held before is replaced. While it is incomplete it has no footer, so nobody takes it for a disk.

    Raises:
        PointSpoiled: something in the vault is damaged; the blob stays incomplete.
        WaitFault: the vault or the account is away, or somebody else writes to the blob; call again.
        StopFault: access is refused, or the disk is too large.
    """
    wanted = state_of(reader, disk)
    with blob.opened(wanted.size) as before:
        state = before if before is not None and before.same_work(wanted) else wanted
        if state.complete:
            return Progress(state.size, state.size)
        if state.blocks == 0:
            blob.save(wanted)  # first: what is on record must be true at every moment
            if not blob.blank:
                blob.resize()
                blob.clear_bytes(0, blob.size)
        work = Work(reader, disk, blob, blob.save, threads, report)
        done = write_windows(work, state, whole_disk(reader.map(disk), clear=False))
        return _finished(reader, disk, blob, state, done)


def update_page_blob(
    base: PointReader,
    reader: PointReader,
    disk: str,
    blob: PageBlob,
    *,
    threads: int = THREADS,
    report: Report = silent,
) -> Progress:
    """Move a page blob that holds a disk of the point `base` to the point of `reader`, sending only what differs.

    Raises:
        StopFault: the blob holds something else.
        PointSpoiled, WaitFault: as for `hydrate_page_blob`.
    """
    with blob.opened(reader.disk(disk).size_bytes) as before:
        state = update_state(before, base, reader, disk, blob.name)
        if state.complete:
            return Progress(state.size, state.size)
        blob.save(state)
        if state.blocks == 0:  # nothing of the new point is on record, so what a cut spoils is written again
            blob.resize()
        work = Work(reader, disk, blob, blob.save, threads, report)
        done = write_windows(work, state, changed_blocks(base, reader, disk))
        blob.clear_bytes(-(-state.size // PAGE) * PAGE, blob.size)  # where the disk was larger
        return _finished(reader, disk, blob, state, done)


def _finished(reader: PointReader, disk: str, blob: PageBlob, state: ImageState, done: Progress) -> Progress:
    manifest = reader.point.manifest
    blob.finish(Footer.of(state.size, manifest.name, disk, manifest.time))
    blob.save(replace(state, complete=True))
    return done


def _taken(what: str) -> WaitFault:
    return WaitFault(
        f"cannot {what}: somebody else writes to the blob, or did until a moment ago",
        "Wait until the other is done, or its lease has expired",
        reason="BlobInUse",
        retry_after=15,
    )
