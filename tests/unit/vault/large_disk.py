"""A disk of 1 TiB in a vault of some megabytes: maps are those of a full disk along one path, blocks are not there.

`tests/bench/vault_rates.py` can time `open_a_point` (the row "open a point of a 1 TiB disk"); `test_cost.py` counts.
"""

from __future__ import annotations

import numpy as np
from tests.unit.vault.rig import KEK, Rig

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.vault.encoding import BLOCK_REF, BlockRefs, Refs
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.store import ObjectStore
from farshore_engine.vault.writer import DiskFields, PointFields

TIB = 1 << 40
FULL_MIDDLE = 65536  # blocks below one node of level 1
PACK_BLOCKS = 128  # of the made-up packs that the references name


def path_of_a_full_disk() -> BlockRefs:
    """Return references that fill every node on the way to blocks [0, 65536): the root, one middle node, its leaves."""
    places = np.concatenate([np.arange(FULL_MIDDLE), np.arange(1, 256) * FULL_MIDDLE])
    refs = np.zeros(places.size, BLOCK_REF)
    random = np.random.default_rng(1)
    refs["index"] = places
    refs["ref"]["claim"] = 1
    refs["ref"]["random"] = 1 + np.arange(places.size) // PACK_BLOCKS
    refs["ref"]["offset"] = 40 + (np.arange(places.size) % PACK_BLOCKS) * 65552
    refs["ref"]["length"] = 65552
    refs["ref"]["digest"] = random.integers(0, 256, (places.size, 32), np.uint8)
    return refs


def commit(rig: Rig) -> RecoveryPoint:
    """Commit a point of one disk of 1 TiB."""
    disks = (DiskFields("sda", "/dev/sda", TIB),)
    return rig.writer.commit(PointFields(rig.clock(), Consistency.CRASH, disks, MachineDescription(hostname="db")))


def with_a_large_disk(store: ObjectStore) -> tuple[Rig, RecoveryPoint]:
    """Return a machine whose newest point has a disk of 1 TiB."""
    rig = Rig(store)
    rig.writer.resume("sda", path_of_a_full_disk())
    return rig, commit(rig)


def change(rig: Rig, blocks: list[int]) -> None:
    """Write incompressible content to blocks."""
    data = np.random.default_rng(len(blocks)).bytes(len(blocks) * BLOCK_SIZE)
    rig.writer.add("sda", np.array(sorted(blocks), np.int64), data)


def open_a_point(store: ObjectStore, machine: str, name: str, block: int = 300) -> Refs:
    """Do all that it takes until the first block of a point can be fetched, as somebody who has only store and key."""
    vault = MachineVault.open(store, KEK, machine)
    try:
        return PointReader(vault, vault.find(name)).lookup("sda", block, 1)
    finally:
        vault.close()
