"""Crypto-erase: destroy every wrap of a machine's data key, so that none of its points opens any more, for anybody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.keydocument import Erasure
from farshore_engine.vault.keyring import erase_keys
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.pins import list_pins


def erase_machine(vault: MachineVault, *, by: str, reason: str, writer: str, clock: Callable[[], datetime]) -> Erasure:
    """Erase a machine: fence whoever writes its chain, then replace key.json. It can be killed anywhere and repeated.

    Args:
        vault: the machine, open.
        by: who erases it, for the record.
        reason: why, for the record; may be empty.
        writer: the name under which the chain is fenced.
        clock: gives the time.

    Raises:
        StopFault: a point is pinned by a run, drill or export, or is locked against deletion.
        WaitFault: the store is away; repeat it.
    """
    machine, now = vault.access.names.machine, clock()
    pins = sorted({name for names in list_pins(vault.access).values() for name in names})
    if pins:
        raise StopFault(
            f"points of {machine} are held by {', '.join(pins)}: it is not erased",
            "Let the runs, drills and exports end, or unpin the points",
            reason="Pinned",
        )
    catalogue = vault.catalogue()
    locked = max((p.manifest.locked_until for p in catalogue.points if p.manifest.locked_until), default=None)
    if locked is not None and locked > now:
        raise StopFault(
            f"points of {machine} are locked against deletion until {locked:%Y-%m-%d %H:%M UTC}: it is not erased",
            "Wait until then; what is locked cannot be erased by anybody, which is what the lock is for",
            reason="Locked",
        )
    vault.claim(writer=writer, epoch=catalogue.epoch + 1, reason=f"erased by {by}", clock=clock)
    return erase_keys(vault.access.store, vault.access.names, by, reason, clock)
