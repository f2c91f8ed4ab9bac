"""The port to where objects live. Everything that the vault promises rests on the guarantees stated here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from farshore_engine.contract.faults import StopFault

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
MAX_NAME = 512
WHOLE_MAX = 64 << 20  # bytes of an object that is read in one piece

Version = str  # opaque; changes whenever the content of an object changes


class ObjectNotFound(Exception):
    """No object has that name."""


class AlreadyExists(Exception):
    """A create-only put met an object of that name."""


class VersionMismatch(Exception):
    """A conditional put met another version, or no object."""


class ObjectTooLarge(StopFault):
    """An object that is read in one piece is larger than any that Farshore writes: somebody else put it there."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(
            f"{name} has {size} bytes, and no object of a vault has more than {WHOLE_MAX}",
            "Restore it from a copy of the vault, and find out who wrote it",
            reason="ObjectTooLarge",
        )


class ObjectLocked(StopFault):
    """The object is held fast against deletion and change until some time."""

    def __init__(self, name: str, until: str = "") -> None:
        super().__init__(
            f"{name} is locked against deletion and change{f' until {until}' if until else ''}",
            "Wait until then; nobody can lift it before, which is what the lock is for",
            reason="Locked",
        )


class ObjectStore(Protocol):
    """A flat map from names to immutable byte strings.

    Guarantees, which the conformance suite checks on every implementation:

    - A put is atomic (a reader sees the old or the new content, never a part) and, once it has returned, durable.
    - Every operation that begins after another has returned sees its effect, listing included.
    - Of any number of create-only puts of a name, or of conditional puts on one version, at most one succeeds.
    - Retries are made inside, within a deadline. A create-only or conditional put whose answer was lost is
      recognised by reading back: it succeeds if the object holds exactly its content.
    - All methods are thread-safe.

    Every method raises WaitFault when the store cannot be reached or is throttled (the outcome of a put is then
    unknown: repeat it with the same content), and StopFault when it refuses (credential, container missing).
    """

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        """Store `data` under `name`; with `create_only`, raises AlreadyExists when the name is taken."""
        ...

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        """Replace the object if it still has `version`; raises VersionMismatch otherwise."""
        ...

    def get(self, name: str) -> tuple[bytes, Version]:
        """Return content and version; raises ObjectNotFound, and ObjectTooLarge for more than WHOLE_MAX bytes."""
        ...

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset` on, fewer only at the end; raises ObjectNotFound."""
        ...

    def head(self, name: str) -> int:
        """Return the object's size in bytes; raises ObjectNotFound."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the names that begin with `prefix`, in lexicographic order of their ASCII bytes."""
        ...

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the names that `list` yields, each with the object's size in bytes."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield, in order, what stands between `prefix` and the next slash in the names that begin with `prefix`."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object; one that is not there is fine."""
        ...


@dataclass(frozen=True, slots=True)
class LockedVersion:
    """One version of an object that is or was locked. `current`: whether reading the name gives this one."""

    name: str
    version: Version
    until: datetime
    current: bool


@runtime_checkable
class LockingStore(ObjectStore, Protocol):
    """A store that can hold objects against deletion and change by anybody, whatever credential he has.

    Overwriting or deleting a locked object either fails (ObjectLocked), or leaves the locked version behind.
    """

    def lock(self, name: str, until: datetime, *, final: bool) -> None:
        """Hold the object as it is now until then; it never shortens a lock.

        Args:
            name: the object.
            until: the end, with time zone.
            final: whether not even an administrator of the store may end it before.

        Raises:
            ObjectNotFound: there is no such object.
            StopFault: the store does not lock; the remedy says what to switch on.
        """
        ...

    def locks(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Yield the objects below `prefix` that are or were locked as they are now, and until when."""
        ...

    def locked_versions(self, prefix: str) -> Iterator[LockedVersion]:
        """Yield every version below `prefix` that is or was locked, by name, the oldest of each first."""
        ...

    def get_version(self, version: LockedVersion) -> bytes:
        """Return the content of a version; raises ObjectNotFound."""
        ...


def checked_name(name: str) -> str:
    """Return `name` if it is one: path segments of letters, digits, `.`, `_`, `-`, none starting with a dot.

    Raises:
        ValueError: it is not, which is a programming error, or somebody trying to leave the store.
    """
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        raise ValueError(f"not an object name: {name!r}")
    return name
