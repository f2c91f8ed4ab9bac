"""What a site at a Hub needs before a machine is protected there, or comes home to it: asked, nothing is changed."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from farshore_engine.azurestack.machines import Machines
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.replication import Check, CheckResult

NEEDED = (
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Compute/virtualMachines/delete",
    "Microsoft.Compute/virtualMachines/start/action",
    "Microsoft.Compute/virtualMachines/powerOff/action",
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/disks/read",
    "Microsoft.Compute/disks/write",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/networkInterfaces/join/action",
)
"""Actions of the way home."""


def check_site(manager: ResourceManager) -> tuple[Check, ...]:
    """Return the checklist of a site at a Hub; the first thing that is refused skips what hangs on it."""
    site = manager.site
    group = f"/subscriptions/{site.subscription}/resourceGroups/{site.resource_group}"
    checks: list[Check] = []
    try:
        manager.find(f"/subscriptions/{site.subscription}")
        checks.append(_passed("HubLogin", f"{manager.endpoint} takes the login of site {site.name}"))
        found = manager.find(group)
        if found is None:
            raise _missing_group(site.resource_group)
        checks.append(_passed("ResourceGroup", f"{site.resource_group} is in region {found.get('location')}"))
        checks.append(_permitted(list(manager.all(f"{group}/providers/Microsoft.Authorization/permissions")), group))
        machines = Machines(manager).all()
        checks.append(_passed("Machines", f"{len(machines)} machines can be seen"))
    except Fault as fault:
        name = fault.reason if isinstance(fault, StopFault) else "HubUnreachable"
        checks.append(Check(name=name, result=CheckResult.ERROR, message=fault.message, remedy=fault.remedy))
    return tuple(checks)


def _permitted(permissions: Sequence[Mapping[str, Any]], group: str) -> Check:
    """Source: Permissions_ListForResourceGroup; NotActions take away from the Actions of the same entry only."""
    missing = [action for action in NEEDED if not any(_permits(one, action) for one in permissions)]
    if not missing:
        return _passed("Permissions", "the principal may do all that a failback needs")
    return Check(
        name="Permissions",
        result=CheckResult.ERROR,
        message=f"the principal may not: {', '.join(missing)}",
        remedy=f"Give it the role Contributor on {group}",
    )


def _permits(permission: Mapping[str, Any], action: str) -> bool:
    return _any(permission.get("actions"), action) and not _any(permission.get("notActions"), action)


def _any(patterns: Any, action: str) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), str(one).lower()) for one in patterns or ())


def _missing_group(name: str) -> StopFault:
    return StopFault(
        f"there is no resource group {name}", "Correct spec.azureStackHub.resourceGroup", reason="HubNotFound"
    )


def _passed(name: str, message: str) -> Check:
    return Check(name=name, result=CheckResult.PASSED, message=message)
