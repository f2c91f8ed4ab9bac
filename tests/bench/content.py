"""What is on the disks of the bench, and how it changes: made anew from seeds, so that nothing has to be kept."""

from __future__ import annotations

import mmap
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from farshore_engine.agent import syscalls
from farshore_engine.blocks.grid import BLOCK_SIZE

PIECE = 8 << 20
FILES = ("/usr/lib", "/usr/share", "/usr/bin")
SMALLEST = 4096  # bytes; smaller files would make the bench wait for the file system that they come from


def half_compressible(seed: int, size: int) -> bytes:
    """Return bytes of which half are random and half repeat, alternating each 512; `size` is a multiple of 1024."""
    rows = np.random.default_rng(seed).integers(0, 256, (size // 1024, 1024), dtype=np.uint8)
    rows[:, 512:] = rows[:, :1]
    return rows.tobytes()


def half_pieces(size: int) -> Iterator[bytes]:
    """Yield `size` bytes of half-compressible content."""
    for at in range(0, size, PIECE):
        yield half_compressible(at + 1, min(PIECE, size - at))


def random_pieces(size: int) -> Iterator[bytes]:
    """Yield `size` bytes that no program makes smaller."""
    for at in range(0, size, PIECE):
        yield np.random.default_rng(at + 2).bytes(min(PIECE, size - at))


def sparse_pieces(size: int, every: int) -> Iterator[bytes]:
    """Yield `size` bytes of zeros, but for each `every`-th piece of 8 MiB, which is half-compressible."""
    for number, at in enumerate(range(0, size, PIECE)):
        length = min(PIECE, size - at)
        yield half_compressible(at + 3, length) if number % every == 0 else bytes(length)


def copy_files(folder: Path, size: int) -> None:
    """Copy this host's own files to a mounted file system, until they are `size` bytes together."""
    for path in _files():
        length = path.stat().st_size
        if length > size:
            continue
        target = folder / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        size -= length
        if size < SMALLEST:
            break
    os.sync()


def _files() -> Iterator[Path]:
    for root in FILES:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and path.stat().st_size >= SMALLEST:
                    yield path


def fill(device: str, pieces: Iterator[bytes]) -> None:
    """Write the pieces to a new device from its beginning, past the page cache; zeros are there already."""
    zeros = bytes(PIECE)
    with _Direct(device) as target:
        at = 0
        for piece in pieces:
            if piece != zeros[: len(piece)]:
                target.write(at, piece)
            at += len(piece)


def change(device: str, seed: int, share: float) -> int:
    """Overwrite a share of the device's 64 KiB blocks, chosen at random, and return the bytes of these blocks."""
    with _Direct(device) as target:
        blocks = target.size // BLOCK_SIZE
        chosen = sorted(random.Random(seed).sample(range(blocks), max(1, round(blocks * share))))
        for number in chosen:
            target.write(number * BLOCK_SIZE, half_compressible(seed << 32 | number, BLOCK_SIZE))
        return len(chosen) * BLOCK_SIZE


class _Direct:
    """A device that is written with O_DIRECT."""

    def __init__(self, device: str) -> None:
        self._fd = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        self._buffer = mmap.mmap(-1, PIECE)
        self.size = syscalls.device_size(self._fd)

    def __enter__(self) -> _Direct:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._fd)
        os.close(self._fd)
        self._buffer.close()

    def write(self, offset: int, data: bytes) -> None:
        self._buffer[: len(data)] = data
        with memoryview(self._buffer) as view:
            assert os.pwrite(self._fd, view[: len(data)], offset) == len(data), "short write to the disk of the bench"
