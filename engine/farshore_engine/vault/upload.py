"""Uploading packs straight to the vault by several threads; a spool uses it too, with a loader that reads its file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, runtime_checkable

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.durability import StoreLost, missing_packs
from farshore_engine.vault.names import MachineNames, PackId
from farshore_engine.vault.pack import SealedPack
from farshore_engine.vault.store import AlreadyExists, ObjectStore

Load = Callable[[], bytes | memoryview | Path]


@runtime_checkable
class FileStore(Protocol):
    """What a store may offer besides: to take over a file that lies beside it instead of a copy of its content."""

    def put_file(self, name: str, path: Path) -> None:
        """Store the content of `path` under `name`, create-only, with the guarantees and errors of `ObjectStore.put`.

        The file's content is durable and its bytes are never written again; its name may go at any time afterwards.
        Raises OSError when the file itself cannot be read.
        """
        ...


class PackUploader:
    """A `PackSink` that puts packs into the store. At most `depth` packs wait or are on their way.

    A pack whose upload failed is kept and tried again by the next `drain`, which raises the fault if it fails again.
    A `drain` looks whether the packs put since the one before are there, and raises StoreLost if not.
    """

    def __init__(
        self,
        store: ObjectStore,
        names: MachineNames,
        *,
        threads: int = 4,
        depth: int = 6,
        uploaded: Callable[[PackId], None] | None = None,
    ) -> None:
        """Upload with `threads` threads; `uploaded(pack)` is called in one of them once a pack is durable."""
        self._store = store
        self._names = names
        self._pool = ThreadPoolExecutor(threads, "vault-upload")
        self._places = threading.Semaphore(max(depth, threads))
        self._state = threading.Condition()
        self._running = 0
        self._failed: dict[PackId, tuple[Load, BaseException]] = {}
        self._uploaded = uploaded
        self._unproven: set[PackId] = set()  # put since the last drain

    @property
    def takes_files(self) -> bool:
        """Whether the store takes over files, so that nobody needs their content in memory."""
        return isinstance(self._store, FileStore)

    def accept(self, pack: SealedPack) -> None:
        """See PackSink; blocks while `depth` packs are on their way."""
        self.submit(pack.id, lambda: pack.data)

    def submit(self, pack: PackId, load: Load) -> None:
        """Upload the pack whose content `load()` returns when its turn comes.

        Where that is a path, the file is durable and nobody writes to it any more.
        """
        self._places.acquire()
        with self._state:
            try:
                future = self._pool.submit(self._put, pack, load)
            except RuntimeError:  # closed meanwhile: it counts as not uploaded
                self._failed[pack] = (load, _abandoned(pack))
                self._places.release()
                return
            self._running += 1
        future.add_done_callback(lambda done: self._finished(pack, load, done))

    def drain(self) -> None:
        """See PackSink."""
        with self._state:
            again, self._failed = self._failed, {}
        for pack, (load, _) in again.items():
            self.submit(pack, load)
        with self._state:
            self._state.wait_for(lambda: self._running == 0)
            for _, error in self._failed.values():
                raise error
            unproven = frozenset(self._unproven)
        self._prove(unproven)

    def _prove(self, packs: frozenset[PackId]) -> None:
        """See that what the store acknowledged is there, before a point says so: an emulator that was killed, or a
        restored or rolled back account, has lost what came last."""
        lost = missing_packs(self._store, self._names, packs)
        with self._state:
            self._unproven -= packs
        if lost:
            raise StoreLost(self._names.machine, f"{len(lost)} packs, among them {min(lost)}")

    def retry(self) -> None:
        """Submit packs whose upload failed again, without waiting; raises one of their faults, if there are any."""
        with self._state:
            again, self._failed = self._failed, {}
        for pack, (load, _) in again.items():
            self.submit(pack, load)
        for _, error in again.values():
            raise error

    def close(self, *, abandon: bool = False) -> None:
        """Wait for what is on its way and stop the threads; with `abandon`, leave out what waits for its turn.

        What was left out counts as failed: a `drain` that runs meanwhile raises.
        """
        self._pool.shutdown(cancel_futures=abandon)

    def _put(self, pack: PackId, load: Load) -> None:
        content = load()
        name = self._names.pack(pack)
        try:
            if isinstance(content, Path) and isinstance(self._store, FileStore):
                self._store.put_file(name, content)
            else:
                self._store.put(name, _bytes_of(content), create_only=True)
        except AlreadyExists:
            if self._store.get(name)[0] != _bytes_of(content):  # that an earlier process put it is fine, else it is not
                raise
        with self._state:
            self._unproven.add(pack)
        if self._uploaded is not None:
            self._uploaded(pack)

    def _finished(self, pack: PackId, load: Load, future: Future[None]) -> None:
        error = _abandoned(pack) if future.cancelled() else future.exception()
        self._places.release()
        with self._state:
            self._running -= 1
            if error is not None:
                self._failed[pack] = (load, error)
            self._state.notify_all()


def _bytes_of(content: bytes | memoryview | Path) -> bytes | memoryview:
    return content.read_bytes() if isinstance(content, Path) else content


def _abandoned(pack: PackId) -> WaitFault:
    return WaitFault(f"pack {pack} was not uploaded: the uploader was closed", reason="Closed")
