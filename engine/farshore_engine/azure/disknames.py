"""Tells the disks of a machine in Azure from their tags, where the note of who made them is gone with its host.

Azure gives disks serial numbers of its own, so an agent is told its disks by what is on them. Without that every disk
would be copied anew when the machine is protected where it runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from farshore_engine.azure.cloud import Cloud
from farshore_engine.azure.network import group_of
from farshore_engine.azure.place import CONTENT, DISK, MACHINE, NAME, OWNER, US
from farshore_engine.azure.tasks.scene import NOTE, noted
from farshore_engine.contract.assignment import RecoveryTarget
from farshore_engine.contract.faults import StopFault
from farshore_engine.processserver.identity import write_private

KIND = "microsoft.compute/disks"


def learn_disks(cloud: Cloud, target: RecoveryTarget, address: str, machines_dir: Path) -> bool:
    """Note what the tags of the machine's disks tell, as if the machine had been made here; False if they tell nothing.

    Args:
        address: of the machine, by which `disk_names` finds the note.

    Raises:
        WaitFault: Azure is away or busy.
        StopFault: it refuses.
    """
    found = [one for one in _disks(cloud, target) if (one.tags or {}).get(CONTENT)]
    names: dict[str, set[str]] = {}
    for one in found:
        names.setdefault(one.tags[CONTENT], set()).add(str(one.tags.get(DISK, "")))
    disks = {name: ids.pop() for name, ids in names.items() if len(ids) == 1}
    if not disks:
        return False
    directory = machines_dir / target.name
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = {"group": group_of(str(found[0].id)), **noted(directory), "address": address, "disks": disks}
    write_private(directory / NOTE, json.dumps(known).encode())
    return True


def _disks(cloud: Cloud, target: RecoveryTarget) -> list[Any]:
    """Return what carries the tags of the machine's disks, in the subscription or, failing that, where it should be."""
    wanted = (US, target.machine_id, target.name)
    tagged = f"tagName eq '{MACHINE}' and tagValue eq '{target.machine_id}'"
    try:
        every = cloud.all("list what the machine has", lambda: cloud.resources.resources.list(filter=tagged))
    except StopFault:
        group = (target.target.resource_group if target.target else "") or cloud.site.resource_group
        every = cloud.all("list disks", lambda: cloud.compute.disks.list_by_resource_group(group))
    return [
        one
        for one in every
        if str(one.type).lower() == KIND
        and tuple((one.tags or {}).get(tag) for tag in (OWNER, MACHINE, NAME)) == wanted
    ]
