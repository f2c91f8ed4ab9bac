"""Is the newest point whole? Asked before another one is built on it, because a store may have lost what came last.

Only what it added to the point before it is looked at: it costs what changed, not what the disks hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks.grid import block_count
from farshore_engine.vault.blockmap import BlockMap
from farshore_engine.vault.durability import missing_packs
from farshore_engine.vault.encoding import Refs
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.mapcheck import DiskWalk
from farshore_engine.vault.names import PackId
from farshore_engine.vault.pack import PACK_MAX


class _Collected:
    """Notes the packs that a walk asks for."""

    def __init__(self) -> None:
        self.packs: set[PackId] = set()

    def sizes(self, refs: Refs) -> npt.NDArray[np.int64]:
        """See mapcheck.Packs; every pack is as large as it can be."""
        for claim, random in np.unique(refs[["claim", "random"]]).tolist():
            self.packs.add(PackId(int(claim), int(random)))
        return np.full(refs.size, PACK_MAX, np.int64)


@dataclass(frozen=True, slots=True)
class Damage:
    """What the newest point misses of what it added, by disk.

    Attributes:
        disks: those whose map cannot be read: only a full copy heals them.
        packs: for each other disk the packs that are not there; what it has in them must come again.
    """

    disks: frozenset[str]
    packs: dict[str, frozenset[PackId]]


def newest_damage(vault: MachineVault, base: StoredPoint | None = None) -> Damage:
    """Return what the newest point misses of what it added.

    With `base`, an older point, all of that one is looked at: it may have been that for which a store lost something.

    Raises:
        WaitFault: the store is away.
    """
    points = (base,) if base is not None else vault.catalogue(newest=2).points
    if not points:
        return Damage(frozenset(), {})
    newest, earlier = points[-1], points[0] if len(points) > 1 else None
    unread: set[str] = set()
    reached: dict[str, set[PackId]] = {}
    for disk in newest.manifest.disks:
        found = _Collected()
        walk = DiskWalk(vault.access, disk.id, found, {}, lambda disk, refs: None, _map(vault, earlier, disk.id))
        if walk.walk(_map(vault, newest, disk.id)):
            unread.add(disk.id)
        reached[disk.id] = found.packs
    lost = missing_packs(vault.access.store, vault.access.names, set().union(*reached.values()))
    packs = {disk: lost & found for disk, found in reached.items() if disk not in unread and lost & found}
    return Damage(frozenset(unread), packs)


def _map(vault: MachineVault, point: StoredPoint | None, disk: str) -> BlockMap:
    found = point.manifest.disk(disk) if point is not None else None
    if found is None:
        return BlockMap(disk, 0, None, vault.nodes)
    return BlockMap(disk, block_count(found.size_bytes), found.root.ref() if found.root else None, vault.nodes)
