"""A file system in memory that forgets, when the power fails, what was not synced: data, lengths and names.

It offers what a process server's spool uses: something like `pathlib.Path`, and some functions of `os`.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import itertools
import os
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.world import World

_numbers = itertools.count(1 << 20)  # no real descriptor is as high


@dataclass(eq=False)
class File:
    """Content as the kernel shows it, content as it was synced last, and the writes since."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    since: list[tuple[int, bytes]] = field(default_factory=list)  # offset -1: cut to the length that the bytes tell


class FileSystem:
    """The disk of one host."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.names: dict[str, File] = {}
        self.durable: dict[str, File] = {}
        self.directories: set[str] = {"/"}
        self._open: dict[int, tuple[File | None, str]] = {}
        self._places: dict[int, int] = {}

    def root(self) -> Path:
        return Path(self, "/")

    # -- what the functions of os do -------------------------------------------------------------------------------

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        self.world.give_way()
        if flags & os.O_DIRECTORY or path.text in self.directories:
            file = None
        else:
            file = self.names.get(path.text)
            if file is None:
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(errno.ENOENT, "no such file", path.text)
                file = self.names[path.text] = File()
            elif flags & os.O_CREAT and flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, "it is there", path.text)
            elif flags & os.O_TRUNC:
                self._cut(file, 0)
        number = next(_numbers)
        self._open[number] = (file, path.text)
        return number

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        self.world.give_way()
        file = self._file(descriptor)
        content = bytes(data)
        if len(content) > 512 and self.world.chance.random() < 0.1:
            content = content[: self.world.chance.randrange(1, len(content))]  # a short write
        if len(file.data) < offset:
            file.data.extend(bytes(offset - len(file.data)))
        file.data[offset : offset + len(content)] = content
        file.since.append((offset, content))
        return len(content)

    def write(self, descriptor: int, data: Any) -> int:
        count = self.pwrite(descriptor, data, self._places.get(descriptor, 0))
        self._places[descriptor] = self._places.get(descriptor, 0) + count
        return count

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        self.world.give_way()
        return bytes(self._file(descriptor).data[offset : offset + length])

    def ftruncate(self, descriptor: int, length: int) -> None:
        self.world.give_way()
        self._cut(self._file(descriptor), length)

    def sync(self, descriptor: int) -> None:
        self.world.give_way()
        file, name = self._open[descriptor]
        if file is not None:
            file.synced, file.since = bytes(file.data), []
            return
        inside = name.rstrip("/") + "/"
        for path in {p for p in (*self.names, *self.durable) if p.startswith(inside) and "/" not in p[len(inside) :]}:
            if path in self.names:
                self.durable[path] = self.names[path]
            else:
                self.durable.pop(path, None)

    def unlink(self, name: str) -> None:
        self.world.give_way()
        if name not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        del self.names[name]

    def _file(self, descriptor: int) -> File:
        file = self._open[descriptor][0]
        assert file is not None
        return file

    def _cut(self, file: File, length: int) -> None:
        del file.data[length:]
        file.data.extend(bytes(length - len(file.data)))
        file.since.append((-1, length.to_bytes(8, "big")))

    # -- faults ----------------------------------------------------------------------------------------------------

    def lose_power(self) -> None:
        """Forget a part of what was not synced; the world's chance says which."""
        chance = self.world.chance
        before, self._open = dict(self.names), {}
        after = dict(self.durable)
        for name in sorted({*before, *after}):
            if before.get(name) is not after.get(name) and chance.random() < 0.5:  # the change got through
                after.pop(name, None)
                if name in before:
                    after[name] = before[name]
        for file in {id(f): f for f in (*before.values(), *after.values())}.values():
            self._forget(file)
        self.names, self.durable = after, dict(after)

    def _forget(self, file: File) -> None:
        chance = self.world.chance
        data = bytearray(file.synced)
        for offset, content in file.since:
            fate = chance.random()
            if offset < 0:
                if fate < 0.5:
                    length = int.from_bytes(content, "big")
                    del data[length:]
                    data.extend(bytes(length - len(data)))
            elif fate < 0.6:  # all of it, a part, or only its length arrived
                part = content if fate < 0.3 else content[: chance.randrange(len(content) + 1)]
                if fate > 0.5:
                    part = bytes(len(part))
                if len(data) < offset:
                    data.extend(bytes(offset - len(data)))
                data[offset : offset + len(part)] = part
        file.data, file.synced, file.since = data, bytes(data), []

    def remove_all(self, below: str) -> None:
        """Remove a directory with everything in it, durably: a person did it."""
        for name in [n for n in self.names if n.startswith(below)]:
            del self.names[name]
        for name in [n for n in self.durable if n.startswith(below)]:
            del self.durable[name]


class Path:
    """What a spool uses of pathlib.Path."""

    def __init__(self, files: FileSystem, text: str) -> None:
        self.files = files
        self.text = text

    def __truediv__(self, name: object) -> Path:
        return Path(self.files, f"{self.text.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and other.text == self.text

    def __lt__(self, other: Path) -> bool:
        return self.text < other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> Path:
        return Path(self.files, self.text.rpartition("/")[0] or "/")

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        self.files.directories.add(self.text)

    def iterdir(self) -> Iterator[Path]:
        inside = self.text.rstrip("/") + "/"
        found = sorted(n for n in self.files.names if n.startswith(inside) and "/" not in n[len(inside) :])
        for name in found:
            yield Path(self.files, name)

    def glob(self, pattern: str) -> Iterator[Path]:
        return (path for path in self.iterdir() if fnmatch.fnmatch(path.name, pattern))

    def exists(self) -> bool:
        return self.text in self.files.names or self.text in self.files.directories

    def stat(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(st_size=len(self._file().data))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self.files.unlink(self.text)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: Path) -> Path:
        self.files.world.give_way()
        self.files.names[target.text] = self.files.names.pop(self.text)
        return target

    replace = rename

    def read_bytes(self) -> bytes:
        self.files.world.give_way()
        return bytes(self._file().data)

    def open(self, mode: str = "r") -> Opened:
        if mode != "rb":
            raise NotImplementedError(mode)
        return Opened(self.read_bytes())

    def _file(self) -> File:
        try:
            return self.files.names[self.text]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.text) from None


class Opened(io.BytesIO):
    """A file opened for reading; its number is only good for `fstat`."""

    def fileno(self) -> int:
        return -len(self.getbuffer()) - 2


def simulated_os() -> types.ModuleType:
    """Return a module like os whose functions work on simulated paths and descriptors too."""
    fake = types.ModuleType("os")
    fake.__dict__.update({k: v for k, v in vars(os).items() if not k.startswith("__")})
    on: dict[int, FileSystem] = {}

    def opened(path: Any, flags: int, mode: int = 0o777, **others: Any) -> int:
        if not isinstance(path, Path):
            return os.open(path, flags, mode, **others)
        number = path.files.open(path, flags, mode)
        on[number] = path.files
        return number

    def either(real: Any, simulated: Any) -> Any:
        def call(descriptor: int, *arguments: Any) -> Any:
            files = on.get(descriptor)
            return real(descriptor, *arguments) if files is None else simulated(files, descriptor, *arguments)

        return call

    fake.__dict__.update(
        open=opened,
        fstat=lambda d: types.SimpleNamespace(st_size=-d - 2) if d < 0 else os.fstat(d),
        close=either(os.close, FileSystem.close),
        write=either(os.write, FileSystem.write),
        pwrite=either(os.pwrite, FileSystem.pwrite),
        pread=either(os.pread, FileSystem.pread),
        ftruncate=either(os.ftruncate, FileSystem.ftruncate),
        fsync=either(os.fsync, FileSystem.sync),
        fdatasync=either(os.fdatasync, FileSystem.sync),
    )
    return fake
