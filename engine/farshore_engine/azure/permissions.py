"""Which actions a principal has at a scope, and which of those that recovery needs it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

NEEDED = (
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Compute/virtualMachines/delete",
    "Microsoft.Compute/virtualMachines/start/action",
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Compute/disks/read",
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/disks/delete",
    "Microsoft.Compute/disks/beginGetAccess/action",
    "Microsoft.Compute/disks/endGetAccess/action",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/networkInterfaces/delete",
    "Microsoft.Network/networkInterfaces/join/action",
)
"""What is done in the resource group of recovered machines."""
DRILLS = (
    "Microsoft.Network/virtualNetworks/write",
    "Microsoft.Network/virtualNetworks/delete",
    "Microsoft.Network/networkSecurityGroups/write",
    "Microsoft.Network/networkSecurityGroups/delete",
    "Microsoft.Network/networkSecurityGroups/join/action",
)
"""What drills need in addition that have a network of their own."""
JOIN = ("Microsoft.Network/virtualNetworks/read", "Microsoft.Network/virtualNetworks/subnets/join/action")
"""What is needed on the virtual network."""


def lacking(permissions: Iterable[Any], needed: Iterable[str]) -> tuple[str, ...]:
    """Return the needed actions that none of the permissions (SDK objects) gives, by their order."""
    known = list(permissions)
    return tuple(action for action in needed if not any(_gives(one, action) for one in known))


def _gives(permission: Any, action: str) -> bool:
    return _among(permission.actions, action) and not _among(permission.not_actions, action)


def _among(patterns: Iterable[str] | None, action: str) -> bool:
    return any(
        re.fullmatch(re.escape(one).replace(r"\*", ".*"), action, re.IGNORECASE) is not None for one in patterns or ()
    )
