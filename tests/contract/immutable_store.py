"""A store that holds locked objects against everybody, in the two ways that stores do.

`refuse`: overwriting or deleting a locked object fails, as under a policy of a container.
`versions`: as Azure Blob Storage with version-level immutability: both are carried out on the name, and the locked
version stays behind; a version is deleted only when its lock has ended.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from tests.contract.derived import Derived

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.store import (
    AlreadyExists,
    LockedVersion,
    ObjectLocked,
    ObjectNotFound,
    Version,
    VersionMismatch,
    checked_name,
)


class Way(StrEnum):
    REFUSE = "refuse"
    VERSIONS = "versions"


@dataclass
class _Content:
    version: Version
    data: bytes
    until: datetime | None = None
    final: bool = False


class ImmutableStore(Derived):
    def __init__(self, way: Way, clock: Callable[[], datetime]) -> None:
        self.way = way
        self.clock = clock
        self.versions: dict[str, list[_Content]] = {}
        self.current: dict[str, _Content] = {}
        self.lock_calls = 0
        self._lock = threading.RLock()
        self._numbers = itertools.count()

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        with self._lock:
            if create_only and checked_name(name) in self.current:
                raise AlreadyExists(name)
            return self._write(name, data)

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        with self._lock:
            if self._found(name, VersionMismatch).version != version:
                raise VersionMismatch(name)
            return self._write(name, data)

    def get(self, name: str) -> tuple[bytes, Version]:
        with self._lock:
            found = self._found(name, ObjectNotFound)
            return found.data, found.version

    def list(self, prefix: str) -> Iterator[str]:
        with self._lock:
            names = sorted(name for name in self.current if name.startswith(prefix))
        yield from names

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        for name in self.list(prefix):
            yield name, self.head(name)

    def delete(self, name: str) -> None:
        with self._lock:
            found = self.current.get(checked_name(name))
            if found is None:
                return
            self._must_be_free(name, found)
            del self.current[name]

    def lock(self, name: str, until: datetime, *, final: bool) -> None:
        with self._lock:
            self.lock_calls += 1
            found = self._found(name, ObjectNotFound)
            if until <= self.clock():
                raise StopFault(f"{name}: a lock must end in the future")
            if found.until is not None and until < found.until and found.final:
                raise ObjectLocked(name)
            found.until, found.final = until.astimezone(UTC), found.final or final

    def locks(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        for name in list(self.list(prefix)):
            if (until := self.current[name].until) is not None:
                yield name, until

    def locked_versions(self, prefix: str) -> Iterator[LockedVersion]:
        with self._lock:
            found = [
                LockedVersion(name, one.version, one.until, self.current.get(name) is one)
                for name in sorted(self.versions)
                if name.startswith(prefix)
                for one in self.versions[name]
                if one.until is not None
            ]
        yield from found

    def get_version(self, version: LockedVersion) -> bytes:
        with self._lock:
            for one in self.versions.get(version.name, []):
                if one.version == version.version:
                    return one.data
        raise ObjectNotFound(version.name)

    def delete_version(self, name: str, version: Version) -> None:
        """What an account that keeps versions lets whoever may delete do; nothing of ours calls it."""
        with self._lock:
            for one in self.versions.get(name, []):
                if one.version == version:
                    if one.until is not None and one.until > self.clock():
                        raise ObjectLocked(name)
                    self.versions[name].remove(one)
                    return

    def _found(self, name: str, missing: type[Exception]) -> _Content:
        found = self.current.get(checked_name(name))
        if found is None:
            raise missing(name)
        return found

    def _write(self, name: str, data: bytes | bytearray | memoryview) -> Version:
        if (found := self.current.get(checked_name(name))) is not None:
            self._must_be_free(name, found)
        fresh = _Content(str(next(self._numbers)), bytes(data))
        self.versions.setdefault(name, []).append(fresh)
        self.current[name] = fresh
        return fresh.version

    def _must_be_free(self, name: str, found: _Content) -> None:
        if self.way is Way.REFUSE and found.until is not None and found.until > self.clock():
            raise ObjectLocked(name, found.until.isoformat())
