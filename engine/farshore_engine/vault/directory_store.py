"""The store on a directory: for benchmarks, air-gapped sites, and tests that need no service.

Content is written to a temporary file, flushed, and then linked (create-only) or renamed into place, and the
directory is flushed, so that what was acknowledged survives a power cut. It must be a local file system or one with
working links, locks and fsync.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.vault.newfile import create_file
from farshore_engine.vault.store import (
    WHOLE_MAX,
    AlreadyExists,
    ObjectNotFound,
    ObjectTooLarge,
    Version,
    VersionMismatch,
    checked_name,
)

TEMPORARY = ".tmp"
LOCKS = ".locks"
LOCK_FILES = 64
LEFT_BEHIND = 3600.0  # seconds after which no put is still at it
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)  # another file system, or one without links


class DirectoryStore:
    """An `ObjectStore` on a directory, which several processes of one host may use at once."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        """Open the store; a directory that is not there is made by the first put, so that reading changes nothing.

        `durable=False` leaves out fsync, for benchmarks of the rest only.
        """
        self._root = root
        self._durable = durable
        self._known: set[Path] = set()
        self._known_lock = threading.Lock()
        self._counter = itertools.count()
        self._session = secrets.token_hex(8)
        self._swept = False
        with _translated(f"open the vault directory {root}"):
            if root.exists() and not root.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        """See ObjectStore."""
        path = self._path(name)
        with _translated(f"write {name} below {self._root}"):
            temporary = self._write(data)
            try:
                self._make_parents(path.parent)
                if create_only:
                    os.link(temporary, path)
                else:
                    with self._locked(name):
                        temporary.replace(path)
            except FileExistsError as error:
                raise AlreadyExists(name) from error
            finally:
                temporary.unlink(missing_ok=True)
            self._sync(path.parent)
        return _version(data)

    def put_file(self, name: str, path: Path) -> None:
        """See FileStore: links the file where file systems allow it, so that its bytes are written only once."""
        target = self._path(name)
        with path.open("rb", buffering=0) as content, _translated(f"write {name} below {self._root}"):
            self._make_parents(target.parent)
            try:
                os.link(path, target)
            except FileExistsError as error:
                self._sync(target.parent)  # a crash may have come between link and sync
                raise AlreadyExists(name) from error
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                self.put(name, content.readall(), create_only=True)
                return
            self._sync(target.parent)

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        """See ObjectStore; the version is a hash of the content, so equal content is the same version."""
        path = self._path(name)
        with _translated(f"replace {name} below {self._root}"):
            temporary = self._write(data)
            try:
                with self._locked(name):
                    if not path.is_file() or _version(path.read_bytes()) != version:
                        raise VersionMismatch(name)
                    temporary.replace(path)
                    self._sync(path.parent)
            finally:
                temporary.unlink(missing_ok=True)
        return _version(data)

    def get(self, name: str) -> tuple[bytes, Version]:
        """See ObjectStore."""
        path = self._path(name)
        with _translated(f"read {name} below {self._root}", name):
            if (size := path.stat().st_size) > WHOLE_MAX:
                raise ObjectTooLarge(name, size)
            data = path.read_bytes()
        return data, _version(data)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ObjectStore."""
        path = self._path(name)
        with _translated(f"read {name} below {self._root}", name):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)

    def head(self, name: str) -> int:
        """See ObjectStore."""
        path = self._path(name)
        with _translated(f"look up {name} below {self._root}", name):
            return path.stat().st_size

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore; the names below the prefix's directory are held in memory."""
        base = self._root / prefix.rpartition("/")[0]
        names = []
        with _translated(f"list {prefix} below {self._root}"):
            for folder, folders, files in os.walk(base):
                if folder == str(self._root):
                    folders[:] = [f for f in folders if f not in (TEMPORARY, LOCKS)]
                inside = Path(folder).relative_to(self._root).as_posix()
                names += [
                    name for file in files if (name := file if inside == "." else f"{inside}/{file}").startswith(prefix)
                ]
        yield from sorted(names)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See ObjectStore; an object that vanishes meanwhile is left out."""
        for name in self.list(prefix):
            with contextlib.suppress(ObjectNotFound):
                yield name, self.head(name)

    def folders(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        head, _, tail = prefix.rpartition("/")
        found = []
        with _translated(f"list {prefix} below {self._root}"):
            base = self._root / head
            for entry in os.scandir(base) if base.is_dir() else ():
                inner = entry.name not in (TEMPORARY, LOCKS) or base != self._root
                if inner and entry.is_dir() and entry.name.startswith(tail) and _holds_a_file(Path(entry.path)):
                    found.append(entry.name[len(tail) :])
        yield from sorted(found)

    def delete(self, name: str) -> None:
        """See ObjectStore."""
        path = self._path(name)
        with _translated(f"delete {name} below {self._root}"), self._locked(name):
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                self._sync(path.parent)

    def _path(self, name: str) -> Path:
        return self._root / checked_name(name)

    def _write(self, data: bytes | bytearray | memoryview) -> Path:
        path = self._own_folder(TEMPORARY) / f"{self._session}-{next(self._counter)}"
        create_file(path, data, os.fsync if self._durable else None)
        if not self._swept:
            self._swept = True
            self._remove_left_behind(path)
        return path

    def _remove_left_behind(self, fresh: Path) -> None:
        """Remove what processes that were killed left half written. `fresh` tells the file system's own time."""
        with contextlib.suppress(OSError):  # it is only about space
            oldest = fresh.stat().st_mtime - LEFT_BEHIND
            for entry in os.scandir(fresh.parent):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        Path(entry.path).unlink()

    def _own_folder(self, name: str) -> Path:
        """Return a directory for the store's own files, made when it is first needed."""
        folder = self._root / name
        if folder not in self._known:
            folder.mkdir(parents=True, exist_ok=True)
            with self._known_lock:
                self._known.add(folder)
        return folder

    def _make_parents(self, folder: Path) -> None:
        with self._known_lock:
            missing = []
            while folder not in self._known and folder != self._root:
                missing.append(folder)
                folder = folder.parent
            for path in reversed(missing):
                path.mkdir(parents=True, exist_ok=True)
                self._sync(path.parent)
                self._known.add(path)

    def _sync(self, folder: Path) -> None:
        if not self._durable:
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        place = blake3(name.encode()).digest()[0] % LOCK_FILES
        descriptor = os.open(self._own_folder(LOCKS) / f"{place:02d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _holds_a_file(folder: Path) -> bool:
    return any(files for _, _, files in os.walk(folder))


def _version(data: bytes | bytearray | memoryview) -> Version:
    return str(blake3(data).hexdigest())


@contextlib.contextmanager
def _translated(what: str, name: str | None = None) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        if name is not None:
            raise ObjectNotFound(name) from error
        raise _fault(what, error) from error
    except OSError as error:
        raise _fault(what, error) from error


def _fault(what: str, error: OSError) -> Fault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WaitFault(
            f"cannot {what}: no space left", "Free space on the vault's file system or enlarge it", reason="VaultFull"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StopFault(
            f"cannot {what}: {error.strerror}", "Give the process write access to the directory", reason="VaultRefused"
        )
    return WaitFault(
        f"cannot {what}: {error.strerror or error}", "Check the directory's disk", reason="VaultUnreachable"
    )
