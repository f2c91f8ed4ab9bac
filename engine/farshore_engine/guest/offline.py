"""The disks of a machine that is off, attached for as long as they are prepared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.tasks import GuestPreparation
from farshore_engine.guest.tree import NOTE
from farshore_engine.machines import loop
from farshore_engine.machines.filesystems import MOUNTABLE, file_systems, probe_tag
from farshore_engine.machines.spec import DiskFile

SECONDS = 600.0
NOT_PREPARED = ("LVM2_member", "crypto_LUKS", "linux_raid_member", "zfs_member", "ntfs")


@dataclass(frozen=True)
class Prepared:
    """What was changed, what is to be known, and whether the guest has the network settings that were wanted."""

    changes: tuple[str, ...]
    notes: tuple[str, ...]
    network: bool


def prepare_disks(disks: Sequence[DiskFile], description: MachineDescription, wanted: GuestPreparation) -> Prepared:
    """Prepare the system on these disks, which nobody else may use.

    Raises:
        StopFault: a disk is in use, or the host cannot mount.
        WaitFault: it took too long.
    """
    said: list[str] = []
    with ExitStack() as stack:
        systems = []
        places = _places(description)
        for disk in disks:
            if loop.detach(disk.path):  # left by a try that was killed
                raise StopFault(f"the disk {disk.path} is in use", "Detach it (losetup -d)", reason="DiskInUse")
            device = loop.attach(disk.path, sector_bytes=disk.sector_bytes)
            stack.callback(loop.detach, disk.path)
            for node in loop.nodes_of(device):
                kind, uuid = probe_tag(node, "TYPE"), probe_tag(node, "UUID")
                if kind in MOUNTABLE:
                    systems.append({"node": node, "kind": kind, "mount_point": places.get(uuid.lower(), "")})
                elif kind in NOT_PREPARED:
                    where = disk.name or disk.path.name
                    said.append(f"disk {where} holds {kind}, which is not looked into: left alone")
        found = _run({"systems": systems, "preparation": wanted.model_dump(mode="json")})
    lines = found["lines"]
    changes = tuple(line for line in lines if not line.startswith(NOTE))
    notes = (*said, *(line.removeprefix(NOTE) for line in lines if line.startswith(NOTE)))
    return Prepared(changes, notes, bool(found["network"]))


def _places(description: MachineDescription) -> dict[str, str]:
    """Where file systems were mounted, by UUID."""
    return {
        system.uuid.lower(): system.mount_point
        for disk in description.disks
        for _, system in file_systems(disk)
        if system.uuid and system.mount_point.startswith("/")
    }


def _run(plan: dict[str, object]) -> dict[str, Any]:
    command = [sys.executable, "-m", "farshore_engine.guest.prepare"]
    try:
        done = subprocess.run(
            command, input=json.dumps(plan), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise WaitFault("the guest's disks were not prepared in time", reason="Late") from late
    if done.returncode != 0:
        raise StopFault(
            f"the guest's disks could not be prepared: {done.stderr.strip()[-600:]}",
            "Look at the disk by hand, or choose another recovery point",
            reason="GuestNotPrepared",
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
