"""Which packs a machine has in the store and how large they are, in 32 bytes for each: a vault may hold millions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from farshore_engine.vault.chain import Access
from farshore_engine.vault.encoding import Refs
from farshore_engine.vault.names import PackId
from farshore_engine.vault.store import ObjectNotFound

MISSING = -1
KEY = np.dtype([("claim", ">u8"), ("random", ">u8")])  # big-endian, so that bytes sort as numbers


class PackIndex:
    """The packs as listed. A pack that the list did not have is looked up once by name, in case the list was old.

    Attributes:
        unknown: names below `packs/` that are no packs.
    """

    def __init__(self, access: Access) -> None:
        """List the packs of a machine; raises the store's faults."""
        self._access = access
        self.unknown: list[str] = []
        self._late: dict[PackId, int] = {}
        keys, sizes = bytearray(), bytearray()
        prefix = access.names.packs
        for name, size in access.store.sizes(prefix):
            try:
                pack = PackId.parse(name[len(prefix) :])
            except ValueError:
                self.unknown.append(name)
                continue
            keys += pack.claim.to_bytes(8, "big") + pack.random.to_bytes(8, "big")
            sizes += size.to_bytes(8, "little")
        # Names are listed in the order of their digits, which is that of the keys.
        self._keys = np.frombuffer(bytes(keys), "S16")
        self._sizes = np.frombuffer(bytes(sizes), "<i8")
        self._used = np.zeros(self._keys.size, bool)

    def __len__(self) -> int:
        """Return how many packs were listed."""
        return int(self._keys.size)

    def sizes(self, refs: Refs) -> npt.NDArray[np.int64]:
        """Return the size in bytes of the pack of each reference, MISSING where there is none; they count as used."""
        wanted = np.empty(refs.size, KEY)
        wanted["claim"], wanted["random"] = refs["claim"], refs["random"]
        keys = wanted.view("S16")
        found = np.full(refs.size, MISSING, np.int64)
        if self._keys.size:
            at = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
            there = self._keys[at] == keys
            found[there] = self._sizes[at[there]]
            self._used[at[there]] = True
        for claim, random in {(int(c), int(r)) for c, r in wanted[found == MISSING].tolist()}:
            size = self._look_up(PackId(claim, random))
            found[(refs["claim"] == claim) & (refs["random"] == random)] = size
        return found

    def unused(self) -> tuple[int, int]:
        """Return how many packs no reference that was asked for is in, and their bytes."""
        return int((~self._used).sum()), int(self._sizes[~self._used].sum())

    def highest_claim(self) -> int:
        """Return the highest claim that made a pack, 0 if there is none."""
        return int(self._keys.view(KEY)["claim"].max()) if self._keys.size else 0

    def _look_up(self, pack: PackId) -> int:
        if pack not in self._late:
            try:
                self._late[pack] = self._access.store.head(self._access.names.pack(pack))
            except ObjectNotFound:
                self._late[pack] = MISSING
        return self._late[pack]
