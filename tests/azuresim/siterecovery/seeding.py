"""Machines that somebody protected before a test begins: what an import finds."""

from __future__ import annotations

import uuid
from dataclasses import replace

from tests.azuresim.siterecovery.policies import policy_id
from tests.azuresim.siterecovery.service import SiteRecovery
from tests.azuresim.siterecovery.state import (
    CLASSIC,
    Fabric,
    Item,
    Mapping,
    Phase,
    Policy,
    Protectable,
    Target,
    Vault,
    container_id,
)  # fmt: skip
from tests.azuresim.siterecovery.world import SourceMachine

SETTINGS = {
    CLASSIC: {
        "recoveryPointThresholdInMinutes": 15, "recoveryPointHistory": 1440, "crashConsistentFrequencyInMinutes": 5,
        "appConsistentFrequencyInMinutes": 60, "multiVmSyncStatus": "Disabled",
    },
    "InMageRcm": {
        "recoveryPointHistoryInMinutes": 1440, "crashConsistentFrequencyInMinutes": 5,
        "appConsistentFrequencyInMinutes": 0,
        "enableMultiVmSync": "false",
    },
}  # fmt: skip


def protected(
    service: SiteRecovery, vault: Vault, fabric: Fabric, machine: SourceMachine, target: Target, *,
    policy: str = "24-hours",
    name: str = "",
) -> Item:  # fmt: skip
    """A protected machine of this fabric, with a first recovery point. `target.log_storage` and `disk_types` are filled
    for all its disks when they have the key "" or are empty."""
    container = next(iter(fabric.containers.values()))
    vault.policies.setdefault(policy.lower(), Policy(policy, fabric.provider, dict(SETTINGS[fabric.provider])))
    container.mappings.setdefault(policy.lower(), Mapping(policy, policy_id(vault, policy), fabric.provider))
    disks = [one.id for one in machine.disks]
    storage = target.log_storage.get("", "")
    target = replace(
        target, vm_name=target.vm_name or machine.name, log_storage=dict.fromkeys(disks, storage),
        disk_types={one: target.disk_types.get(one, "Standard_LRS") for one in disks},
    )  # fmt: skip
    protectable = ""
    if fabric.provider == CLASSIC:
        found = Protectable(str(uuid.uuid4()), machine.name, machine.ip, machine.os_type.upper(), machine)
        container.protectables[found.name] = found
        protectable = f"{container_id(vault, fabric, container)}/replicationProtectableItems/{found.name}"
    else:
        service.add_to_appliance(fabric, machine)
    item = Item(
        name or str(uuid.uuid4()), machine.name, fabric.provider, policy_id(vault, policy), protectable, machine,
        target, vault,
        fabric, container, Phase.SYNCING, disk_ids=disks, process_server=fabric.servers[0].id,
        master_target=fabric.servers[0].id,
    )  # fmt: skip
    machine.agent_installed = True
    container.items[item.name.lower()] = item
    if fabric.provider == CLASSIC:
        found.item_id = item.id
    item.last_data = service.clock.now()
    service.synced(item)
    service.grow(item)
    return item
