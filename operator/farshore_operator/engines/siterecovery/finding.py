"""Which replicated item is whose: ours by name, and those that were made before by their address."""

from __future__ import annotations

from collections.abc import Sequence

from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.facts import Item


def find(items: Sequence[Item], machine_id: str, address: str) -> Item | None:
    """Return a machine's item: that of our name, else one of its address that was made before it was ours to name.

    A machine that was switched to the modernized experience has two for a while; the one that it left comes last.
    """
    own = [one for one in items if one.name.lower() == naming.item(machine_id)]
    same = [one for one in items if address and one.address == address]
    found = sorted({one.id: one for one in (*own, *same)}.values(), key=lambda one: bool(one.switched_to))
    return found[0] if found else None
