"""What is in the spool but not yet in a committed point: for each disk, which block now refers to what.

Arrays in chunks instead of dictionaries: a first copy keeps millions of blocks pending (64 bytes for each).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from farshore_engine.vault.encoding import BLOCK_REF, REF, BlockRefs, Refs

CHUNK = 4096  # blocks


class PendingDisk:
    """The pending references of one disk; the latest reference of a block wins."""

    def __init__(self) -> None:
        self._refs: dict[int, npt.NDArray[Any]] = {}
        self._present: dict[int, npt.NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        """Return how many blocks are pending."""
        return sum(int(p.sum()) for p in self._present.values())

    def put(self, refs: BlockRefs) -> None:
        """Let blocks refer to new contents. Within `refs` a later entry of the same block wins."""
        numbers = refs["index"].astype(np.int64)
        for chunk in np.unique(numbers // CHUNK):
            mine = numbers // CHUNK == chunk
            key = int(chunk)
            if key not in self._refs:
                self._refs[key] = np.zeros(CHUNK, REF)
                self._present[key] = np.zeros(CHUNK, np.bool_)
            places = numbers[mine] - key * CHUNK
            self._refs[key][places] = refs["ref"][mine]
            self._present[key][places] = True

    def overlay(self, numbers: npt.NDArray[np.int64], refs: Refs) -> None:
        """Replace in `refs`, as long as `numbers`, the references of those blocks that are pending here."""
        for chunk in np.unique(numbers // CHUNK):
            present = self._present.get(int(chunk))
            if present is None:
                continue
            rows = np.flatnonzero(numbers // CHUNK == chunk)
            places = numbers[rows] - int(chunk) * CHUNK
            known = present[places]
            refs[rows[known]] = self._refs[int(chunk)][places[known]]

    def refs(self, blocks: int) -> BlockRefs:
        """Return all references to blocks below `blocks`, ascending (a disk that shrank has nothing behind its end)."""
        parts = []
        for key in sorted(self._refs):
            places = np.flatnonzero(self._present[key])
            part = np.zeros(places.size, BLOCK_REF)
            part["index"] = places + key * CHUNK
            part["ref"] = self._refs[key][places]
            parts.append(part[part["index"] < blocks])
        return np.concatenate(parts) if parts else np.zeros(0, BLOCK_REF)


class PendingBlocks:
    """The pending references of all disks of one generation."""

    def __init__(self) -> None:
        self._disks: dict[str, PendingDisk] = {}

    @property
    def disks(self) -> tuple[str, ...]:
        """The disks of which anything is pending."""
        return tuple(d for d, pending in self._disks.items() if len(pending))

    def disk(self, disk: str) -> PendingDisk:
        """Return the references of a disk, none at first."""
        return self._disks.setdefault(disk, PendingDisk())

    def put(self, disk: str, refs: BlockRefs) -> None:
        """Let blocks of a disk refer to new contents."""
        self.disk(disk).put(refs)

    def overlay(self, disk: str, numbers: npt.NDArray[np.int64], refs: Refs) -> None:
        """Replace in `refs` the references of those blocks that are pending here."""
        if disk in self._disks:
            self._disks[disk].overlay(numbers, refs)

    @property
    def empty(self) -> bool:
        """Whether nothing is pending."""
        return not self.disks
