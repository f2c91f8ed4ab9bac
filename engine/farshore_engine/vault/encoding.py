"""How references to blocks and nodes look in memory and in a spool's journal: one numpy record for each."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks.content import DIGEST_SIZE
from farshore_engine.vault.names import PackId

# Where an encrypted record is and what its content must hash to. `length` 0 means a hole: nothing is stored, the
# content is zeros and the digest is 32 zero bytes. Little-endian and packed, so that `tobytes` can go to a journal.
REF = np.dtype(
    [
        ("claim", "<u8"),
        ("random", "<u8"),
        ("offset", "<u4"),
        ("length", "<u4"),
        ("digest", "u1", (DIGEST_SIZE,)),
    ]
)
# A REF and the number of the block on its disk that it is the content of.
BLOCK_REF = np.dtype([("index", "<u8"), ("ref", REF)])

Refs = npt.NDArray[Any]  # of dtype REF
BlockRefs = npt.NDArray[Any]  # of dtype BLOCK_REF


@dataclass(frozen=True, slots=True)
class Ref:
    """One REF as a value, for nodes and roots; never a hole."""

    pack: PackId
    offset: int
    length: int
    digest: bytes

    @classmethod
    def of(cls, record: Any) -> Ref | None:
        """Return the value of a scalar of dtype REF, None for a hole."""
        if int(record["length"]) == 0:
            return None
        return cls(
            PackId(int(record["claim"]), int(record["random"])),
            int(record["offset"]),
            int(record["length"]),
            record["digest"].tobytes(),
        )

    def record(self) -> Refs:
        """Return the value as an array of shape () and dtype REF."""
        array = np.zeros((), REF)
        array["claim"], array["random"] = self.pack.claim, self.pack.random
        array["offset"], array["length"] = self.offset, self.length
        array["digest"] = np.frombuffer(self.digest, np.uint8)
        return array


def refs_from_bytes(data: bytes) -> BlockRefs:
    """Return the block references that `tobytes` of such an array gave; raises ValueError on a broken length."""
    return np.frombuffer(data, BLOCK_REF).copy()


def holes(indexes: npt.NDArray[np.integer]) -> BlockRefs:
    """Return references that make the given blocks holes."""
    refs = np.zeros(indexes.size, BLOCK_REF)
    refs["index"] = indexes
    return refs


def in_packs(refs: Refs, packs: Set[PackId]) -> npt.NDArray[np.bool_]:
    """Return which references (of dtype REF, any number) are of records in one of the packs; holes are in none."""
    found = np.isin(refs["random"], np.fromiter((pack.random for pack in packs), np.uint64, len(packs)))
    found &= refs["length"] != 0
    for at in np.flatnonzero(found):  # random alone could be another pack's, however unlikely
        found[at] = PackId(int(refs["claim"][at]), int(refs["random"][at])) in packs
    return found
