"""A store in memory, for tests that make thousands of vaults. It passes the same suite as the real ones."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

from tests.contract.derived import Derived

from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, Version, VersionMismatch, checked_name


class MemoryStore(Derived):
    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, Version]] = {}
        self._lock = threading.Lock()
        self._versions = itertools.count()

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        with self._lock:
            if create_only and checked_name(name) in self.objects:
                raise AlreadyExists(name)
            return self._set(name, data)

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        with self._lock:
            if self.objects.get(checked_name(name), (b"", None))[1] != version:
                raise VersionMismatch(name)
            return self._set(name, data)

    def get(self, name: str) -> tuple[bytes, Version]:
        with self._lock:
            try:
                return self.objects[checked_name(name)]
            except KeyError as error:
                raise ObjectNotFound(name) from error

    def list(self, prefix: str) -> Iterator[str]:
        with self._lock:
            names = sorted(n for n in self.objects if n.startswith(prefix))
        yield from names

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._lock:
            found = sorted((n, len(data)) for n, (data, _) in self.objects.items() if n.startswith(prefix))
        yield from found

    def delete(self, name: str) -> None:
        with self._lock:
            self.objects.pop(checked_name(name), None)

    def _set(self, name: str, data: bytes | bytearray | memoryview) -> Version:
        version = str(next(self._versions))
        self.objects[checked_name(name)] = (bytes(data), version)
        return version
