"""Pins: a run, drill or export holds a point, and prune honours it, without a lock between the two.

Whoever pins writes the pin first and then reads the slot; prune writes its tombstone first and then lists the pins. So
at least one of them sees the other, however they interleave and wherever one of them dies.
"""

from __future__ import annotations

import json

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.chain import Access, read_slot
from farshore_engine.vault.names import SLOT_DIGITS
from farshore_engine.vault.records import RecordKind


def pin_point(access: Access, slot: int, pin: str, note: str = "") -> None:
    """Pin the point in `slot` under the name `pin`; pinning twice is fine.

    Raises:
        StopFault: the point is being pruned, was pruned, or is damaged; then the pin is taken back.
    """
    name = access.names.pin(slot, pin)
    access.store.put(name, json.dumps({"name": pin, "note": note}).encode())
    found = read_slot(access, slot)
    if found.record is not None and found.record.header.kind is RecordKind.POINT:
        return
    access.store.delete(name)
    why = found.damage if found.record is None else "retention has given it up"
    raise StopFault(
        f"the point in slot {slot} of {access.names.machine} cannot be pinned: {why}",
        "Choose another recovery point; `farshore points` lists them",
        reason="PointGone",
    )


def unpin_point(access: Access, slot: int, pin: str) -> None:
    """Release a pin; one that is not there is fine."""
    access.store.delete(access.names.pin(slot, pin))


def list_pins(access: Access) -> dict[int, tuple[str, ...]]:
    """Return the names of the pins for each slot that has any."""
    prefix = access.names.pins
    pins: dict[int, tuple[str, ...]] = {}
    for name in access.store.list(prefix):
        slot, _, pin = name[len(prefix) :].partition("/")
        if len(slot) == SLOT_DIGITS and slot.isascii() and slot.isdigit() and pin:
            pins[int(slot)] = (*pins.get(int(slot), ()), pin)
    return pins
