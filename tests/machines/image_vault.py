"""A vault that holds a point of given disk images: what replication leaves, without a source machine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from farshore_engine.blocks.content import zero_blocks
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

PIECE = 128 * BLOCK_SIZE


def put_images(vault: MachineVault, images: Mapping[str, Path], description: MachineDescription) -> RecoveryPoint:
    """Make a point of the machine: `images` are the raw files of its disks, by the disks' ids."""
    chain = vault.claim(writer="test", epoch=1, reason="test")
    sink = PackUploader(vault.access.store, vault.access.names, threads=2)
    try:
        writer = PointWriter(vault, chain, sink)
        for disk, image in images.items():
            with image.open("rb") as file:
                first = 0
                while data := file.read(PIECE):
                    used = np.flatnonzero(~zero_blocks(data))
                    parts = [data[at * BLOCK_SIZE : (at + 1) * BLOCK_SIZE] for at in used.tolist()]
                    if parts:
                        writer.add(disk, used + first, b"".join(parts))
                    first += len(data) // BLOCK_SIZE
        disks = tuple(DiskFields(disk, disk, image.stat().st_size) for disk, image in images.items())
        return writer.commit(PointFields(datetime.now(UTC), Consistency.CRASH, disks, description))
    finally:
        sink.close()
