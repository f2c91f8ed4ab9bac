"""A store that loses what it acknowledged breaks its promise. It must show before a point is built on what is gone."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.names import MachineNames, PackId
from farshore_engine.vault.store import ObjectNotFound, ObjectStore

LOOKED_UP = 64  # packs of a claim up to which each is asked for; listing is cheaper for more
THREADS = 8


class StoreLost(WaitFault):
    """Objects that the store had acknowledged are gone. What lies on them comes again once the chain is opened anew."""

    def __init__(self, machine: str, what: str) -> None:
        super().__init__(
            f"the storage of the vault lost data of {machine} that it had acknowledged: {what}",
            "Farshore sends the data again by itself; find out why the storage lost it, and run `farshore vault check`",
            reason="StoreLostData",
        )


def missing_packs(store: ObjectStore, names: MachineNames, packs: Iterable[PackId]) -> frozenset[PackId]:
    """Return those of the packs that are not in the store."""
    claims: dict[int, set[PackId]] = {}
    for pack in packs:
        claims.setdefault(pack.claim, set()).add(pack)
    doubtful: list[PackId] = []
    for claim, wanted in claims.items():
        if len(wanted) > LOOKED_UP:
            listed = set(store.list(f"{names.packs}{claim:012d}-"))
            wanted = {pack for pack in wanted if names.pack(pack) not in listed}
        doubtful += wanted

    def gone(pack: PackId) -> bool:
        try:
            store.head(names.pack(pack))
        except ObjectNotFound:
            return True
        return False

    if len(doubtful) <= 1:
        return frozenset(pack for pack in doubtful if gone(pack))
    with ThreadPoolExecutor(THREADS, "vault-proof") as pool:
        return frozenset(pack for pack, lost in zip(doubtful, pool.map(gone, doubtful), strict=True) if lost)
