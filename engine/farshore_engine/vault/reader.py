"""Reading points: blocks of a disk, verified, from the vault alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes, block_count
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.crypto import Place
from farshore_engine.vault.decoder import Buffer, RecordSpoiled, Span, plan_spans
from farshore_engine.vault.encoding import BlockRefs, Refs
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.nodestore import MapSpoiled
from farshore_engine.vault.records import PointDisk


class PointSpoiled(StopFault):
    """Blocks of a point cannot be restored, because an object in the vault is damaged or missing."""

    def __init__(self, machine: str, point: str, disk: str, blocks: tuple[int, int], why: str) -> None:
        first, count = blocks
        what = f"block {first}" if count == 1 else f"blocks {first} to {first + count - 1}"
        super().__init__(
            f"the point {point} of {machine} is damaged at {what} of disk {disk}: {why}",
            "Choose another recovery point; points that do not need the damaged object are not affected",
            reason="PointDamaged",
        )
        self.point = point
        self.disk = disk
        self.first = first
        self.count = count


@dataclass(frozen=True)
class PointReader:
    """Reads the disks of one point. Thread-safe."""

    vault: MachineVault
    point: StoredPoint

    @property
    def disks(self) -> tuple[PointDisk, ...]:
        """The disks of the point."""
        return self.point.manifest.disks

    def disk(self, disk: str) -> PointDisk:
        """Return the disk with this id; raises StopFault if the point has none."""
        found = self.point.manifest.disk(disk)
        if found is None:
            raise StopFault(
                f"the point {self.point.manifest.name} has no disk {disk}",
                f"Its disks are {', '.join(d.id for d in self.disks) or 'none'}",
                reason="NoSuchDisk",
            )
        return found

    def map(self, disk: str) -> BlockMap:
        """Return the block map of a disk."""
        found = self.disk(disk)
        root = found.root.ref() if found.root is not None else None
        return BlockMap(disk, block_count(found.size_bytes), root, self.vault.nodes)

    def read_blocks(self, disk: str, first: int, count: int) -> bytearray:
        """Return the bytes of blocks [first, first + count), cut at the disk's end; holes are zeros.

        Raises:
            PointSpoiled: a record does not verify; nothing is returned.
            WaitFault: the store is away.
        """
        size = self.disk(disk).size_bytes
        count = max(0, min(count, block_count(size) - first))
        refs = self.lookup(disk, first, count)
        result = bytearray(count * BLOCK_SIZE)
        for span in plan_spans(refs):
            for position, plain in self.load(disk, np.arange(first, first + count), refs, span):
                result[position * BLOCK_SIZE : (position + 1) * BLOCK_SIZE] = plain
        del result[max(0, size - first * BLOCK_SIZE) :]
        return result

    def lookup(self, disk: str, first: int, count: int) -> Refs:
        """Return the references of blocks [first, first + count); raises PointSpoiled."""
        try:
            return self.map(disk).lookup(first, count)
        except MapSpoiled as error:
            raise self.spoiled_map(error) from error

    def load(self, disk: str, indexes: Indexes, refs: Refs, span: Span) -> list[tuple[int, Buffer]]:
        """Return (position in `refs`, block of BLOCK_SIZE bytes) of the records of one span, all verified.

        Raises:
            PointSpoiled: for the first one that does not verify.
        """
        decoder = self.vault.decoder
        place = Place(self.vault.access.keys.machine, disk)
        try:
            cipher, data = decoder.load(span)
            blocks = decoder.open_blocks(span, cipher, data, refs, lambda at: place.block(int(indexes[at])))
            return list(zip(span.positions, blocks, strict=True))
        except RecordSpoiled as error:
            lost = [int(indexes[at]) for at in span.positions if error.lost or error.offset == int(refs[at]["offset"])]
            raise self._spoiled(disk, (min(lost), max(lost) - min(lost) + 1), str(error)) from error

    def spoiled_map(self, error: MapSpoiled) -> PointSpoiled:
        """Say what a damaged map means for this point."""
        blocks = block_count(self.disk(error.disk).size_bytes)
        return self._spoiled(error.disk, (error.first, min(error.count, blocks - error.first)), str(error))

    def _spoiled(self, disk: str, blocks: tuple[int, int], why: str) -> PointSpoiled:
        return PointSpoiled(self.vault.access.keys.machine, self.point.manifest.name, disk, blocks, why)


def split_refs(block_refs: BlockRefs) -> tuple[Indexes, Refs]:
    """Return the numbers and the references of an array of block references."""
    return block_refs["index"].astype(np.int64), np.ascontiguousarray(block_refs["ref"])
