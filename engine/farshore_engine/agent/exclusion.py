"""Finds the blocks that hold nothing but swapped-out memory: they are not replicated.

Only blocks that lie wholly inside a swap area are left out, and never its first one, which holds the header that
mkswap wrote and that the recovered machine needs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from farshore_engine.agent import syscalls
from farshore_engine.agent.disks import Disk
from farshore_engine.agent.mounts import Swap, current_swaps, device_number
from farshore_engine.blocks import bitmap
from farshore_engine.blocks.bitmap import Bits
from farshore_engine.blocks.grid import BLOCK_SIZE, block_count


def swap_blocks(disk: Disk, swaps: list[Swap] | None = None) -> Bits:
    """Return the blocks of the disk that are swap, now."""
    bits = bitmap.empty(block_count(disk.size))
    ranges = partition_ranges(disk)
    for swap in current_swaps() if swaps is None else swaps:
        with suppress(OSError):  # an area that cannot be looked at is replicated
            _exclude(bits, swap, ranges)
    return bits


def partition_ranges(disk: Disk, sys_block: Path = Path("/sys/block")) -> dict[str, tuple[int, int]]:
    """Return "major:minor" → (offset, length) in bytes of the disk itself and of its partitions."""
    ranges = {f"{disk.major}:{disk.minor}": (0, disk.size)}
    for marker in (sys_block / disk.name).glob("*/partition"):
        directory = marker.parent
        number = (directory / "dev").read_text().strip()
        start, size = (int((directory / name).read_text()) * 512 for name in ("start", "size"))
        ranges[number] = (start, size)
    return ranges


def _exclude(bits: Bits, swap: Swap, ranges: dict[str, tuple[int, int]]) -> None:
    if not swap.is_file:
        number = device_number(swap.path)
        if number in ranges:
            start, length = ranges[number]
            _leave_out(bits, start + BLOCK_SIZE, start + length)
        return
    fd = os.open(swap.path, os.O_RDONLY)
    try:
        status = os.fstat(fd)
        place = ranges.get(f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}")
        if place is None:
            return
        for index, (physical, length) in enumerate(syscalls.file_extents(fd)):
            start = place[0] + physical
            _leave_out(bits, start + (BLOCK_SIZE if index == 0 else 0), start + length)
    finally:
        os.close(fd)


def _leave_out(bits: Bits, start: int, end: int) -> None:
    """Set the blocks that lie wholly inside the bytes [start, end)."""
    first, stop = -(-start // BLOCK_SIZE), end // BLOCK_SIZE
    if stop > first:
        bitmap.mark_run(bits, first, stop - first)
