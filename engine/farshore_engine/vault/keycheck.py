"""Whether a vault can be opened with its key: the key itself, the vault's format, and the machines' data keys."""

from __future__ import annotations

import secrets

from pydantic import SecretBytes

from farshore_engine.checklist import Checklist
from farshore_engine.contract.assignment import KeyVaultAccess, PreviousKey
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.crypto import KEY_SIZE
from farshore_engine.vault.keydocument import ErasedKey
from farshore_engine.vault.keyring import KeyRing, KeyWrapper, read_document, unwrap
from farshore_engine.vault.machine import check_vault
from farshore_engine.vault.names import MachineNames, checked_prefix, machines_folder
from farshore_engine.vault.store import ObjectStore
from farshore_engine.vault.stores import ring_of

MOST = 20  # machines whose data key is tried
NOBODY = "farshore-doctor.probe"


def check_key(
    found: Checklist, key: SecretBytes | KeyVaultAccess, previous: tuple[PreviousKey, ...] = ()
) -> KeyRing | None:
    """Add what is to be said of the key-encryption keys, and return them; None if the current one is of no use."""
    rings: list[KeyRing] = []

    def look() -> str:
        ring = ring_of(key, previous)
        said = try_key(ring.current)
        rings.append(ring)
        return said

    found.need("Key", look)
    return rings[0] if rings else None


def try_key(key: KeyWrapper) -> str:
    """Wrap and unwrap a random value, which leaves nothing; raises Fault where the key does not."""
    plain = secrets.token_bytes(KEY_SIZE)
    if key.unwrap(key.wrap(plain, NOBODY), NOBODY) != plain:
        raise StopFault("the key does not open what it closed", "Give another key", reason="BadKey")
    return f"the key ({key.label()}) wraps and unwraps; it was tried on a random value, and nothing was stored"


def check_opening(found: Checklist, store: ObjectStore, prefix: str, ring: KeyRing | None) -> None:
    """Add whether there is a vault whose format is known, and whether the keys open the machines' data keys."""
    start = checked_prefix(prefix)
    new = False

    def look() -> str:
        nonlocal new
        try:
            check_vault(store, start)
        except StopFault as fault:
            if fault.reason != "NoVault":
                raise
            new = True
            return "there is no vault yet: the first machine makes it"
        return "the vault's format is known"

    good = found.need("Format", look)
    if not good or new or ring is None:
        because = "there is no vault yet" if new else "there is no key" if good else "the vault cannot be read"
        found.skip(("DataKeys",), because)
        return
    found.need("DataKeys", lambda: _data_keys(store, start, ring))


def _data_keys(store: ObjectStore, prefix: str, ring: KeyRing) -> str:
    machines = list(store.folders(machines_folder(prefix)))
    wrong, opened, erased = [], 0, 0
    for machine in machines[:MOST]:
        try:
            unwrap(read_document(store, MachineNames(machine, prefix))[0], ring)
            opened += 1
        except ErasedKey:
            erased += 1
        except StopFault as fault:
            wrong.append(fault)
    if wrong:
        raise StopFault(
            f"{len(wrong)} of {len(machines[:MOST])} machines cannot be opened: {wrong[0].message}",
            wrong[0].remedy,
            reason=wrong[0].reason,
        )
    rest = f", of {len(machines)} the first {MOST}" if len(machines) > MOST else ""
    gone = f" ({erased} were erased)" if erased else ""
    return f"the keys open {opened} machines{gone}{rest}" if machines else "no machine is in the vault yet"
