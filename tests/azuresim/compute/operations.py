"""How operations on disks run: their URLs, and one at a time."""

from __future__ import annotations

from typing import Any

from tests.azuresim.arm.call import Call, Later
from tests.azuresim.arm.refusals import conflict
from tests.azuresim.arm.store import Resource


def later(call: Call, finish: Any, disk: Resource, **more: Any) -> Later:
    """An operation of the disk provider, which has URLs of its own."""
    path = f"/subscriptions/{call.sim.subscription}/providers/Microsoft.Compute/locations/{disk.body['location']}"
    status = path + "/DiskOperations/{operation}"
    return Later(finish, disk.id, status_path=status, result_path=status + "?monitor=true", **more)


def idle(call: Call, disk: Resource, same: Any = None) -> None:
    """[inf] A disk takes one change at a time; a repeated PUT of what is being made is let through."""
    if call.sim.operations.pending(disk.id) and not (same and disk.properties["provisioningState"] == "Creating"):
        raise conflict(f"Another operation on disk {disk.name} is in progress. Please retry the request later.")
