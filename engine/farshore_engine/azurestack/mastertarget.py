"""The process server's own machine at the Hub: disks of others are attached to it, written to, and detached again.

A disk's device is found by its LUN, as the udev rules of Microsoft's agent for Linux name it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farshore_engine.azurestack.machine import AttachedDisk, Machine
from farshore_engine.azurestack.machines import Machines
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.machines.commands import run_json

LINKS = ("/dev/disk/azure/scsi1/lun{lun}", "/dev/disk/azure/data/by-lun/{lun}")
"""Source: 66-azure-storage.rules of the Azure Linux agent; those of azure-vm-utils."""
CONTROLLERS = ("f8b3781b-1e82-4818-a1c3-63d806ec15bb", "f8b3781c-1e82-4818-a1c3-63d806ec15bb")
"""Devices on the VM bus that data disks hang on. Source: as above."""
MOST_LUNS = 64
APPEARS = 60.0  # seconds that a device may take from the Hub's word to its appearance here
BLKFLSBUF = 0x1261
KEPT = ("lun", "name", "createOption", "caching", "writeAcceleratorEnabled", "vhd")
_LOCK = threading.Lock()
"""The list of a machine's disks is read, changed and written: two tasks at once would lose a disk."""


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of this host's interfaces."""
    found = run_json(["ip", "-json", "address", "show", "scope", "global"]) or []
    return tuple(
        str(one["local"]) for link in found for one in link.get("addr_info") or [] if one.get("family") == "inet"
    )


def device_of(disk: AttachedDisk, links: Sequence[str] = LINKS) -> Path | None:
    """Return the block device of the data disk that is attached to this host at `disk.lun`, None before it appears.

    Args:
        links: where udev rules put links to the devices, with `{lun}`; without any, the bus is looked at.
    """
    for link in links:
        path = Path(link.format(lun=disk.lun))
        if path.exists():
            return path.resolve()
    if links is not LINKS:
        return None
    for block in sorted(Path("/sys/block").glob("sd*")):
        place = (block / "device").resolve()
        if place.name.endswith(f":{disk.lun}") and any(one in str(place) for one in CONTROLLERS):
            return Path("/dev") / block.name
    return None


@dataclass(frozen=True)
class Host:
    """This host, as it finds itself at the Hub. `machine` is the name of its machine there, empty to go by address.

    `device` gives the device of a disk that is attached at its LUN, None while there is none.
    """

    machine: str = ""
    addresses: Callable[[], Sequence[str]] = own_addresses
    device: Callable[[AttachedDisk], Path | None] = device_of
    appears: float = APPEARS


class MasterTarget:
    """Attaches disks to this host's own machine. What is attached already stays; what is not is detached by nobody."""

    def __init__(self, machines: Machines, host: Host) -> None:
        """Nothing is asked yet."""
        self._machines = machines
        self._host = host

    def own(self) -> Machine:
        """Return this host's machine at the Hub.

        Raises:
            StopFault: the site's subscription has none with this host's name or addresses.
        """
        name, addresses = self._host.machine, tuple(self._host.addresses())
        found = self._machines.find(name) if name else self._machines.at(addresses) if addresses else None
        if found is None:
            raise StopFault(
                f"the process server is no machine of subscription {self._machines.site.subscription}: none "
                + (f"is named {name}" if name else f"has one of its addresses {', '.join(addresses) or '(none)'}"),
                "Run a process server of this site as a machine of its subscription, or name its machine with "
                "--cloud-machine",
                reason="NotAtTheHub",
            )
        return found

    def attach(self, disks: Sequence[AttachedDisk]) -> dict[str, Path]:
        """Attach managed disks and return their devices by the disks' ids; those that are attached are left as is.

        Raises:
            WaitFault: a device has not appeared, or the Hub is busy.
            StopFault: the Hub refuses, as when the machine takes no more disks.
        """
        with _LOCK:
            own = self.own()
            at = {disk.id.lower(): disk for disk in own.disks if not disk.system}
            missing = [disk for disk in disks if disk.id.lower() not in at]
            if missing:
                free = iter(sorted(set(range(MOST_LUNS)) - {disk.lun for disk in own.disks}))
                added = [(next(free), disk) for disk in missing]
                entries = [
                    {"lun": lun, "createOption": "Attach", "caching": "None", "managedDisk": {"id": disk.id}}
                    for lun, disk in added
                ]
                self._write(own, [*_entries(own), *entries])
                at |= {disk.id.lower(): AttachedDisk(disk.name, lun, disk.id) for lun, disk in added}
        return {disk.id: self._device(at[disk.id.lower()]) for disk in disks}

    def detach(self, disks: Sequence[AttachedDisk]) -> None:
        """Flush and detach those of the disks that are attached here."""
        gone = {disk.id.lower() for disk in disks if disk.id}
        with _LOCK:
            own = self.own()
            mine = [disk for disk in own.disks if disk.id.lower() in gone]
            if not mine:
                return
            for disk in mine:
                if (device := self._host.device(disk)) is not None:
                    _flush(device)
            left = [one for one in _entries(own) if one.get("managedDisk", {}).get("id", "").lower() not in gone]
            self._write(own, left)

    def _write(self, own: Machine, entries: list[dict[str, Any]]) -> None:
        self._machines.manager.patch(own.id, {"properties": {"storageProfile": {"dataDisks": entries}}})

    def _device(self, disk: AttachedDisk) -> Path:
        deadline = time.monotonic() + self._host.appears
        while (device := self._host.device(disk)) is None:
            if time.monotonic() >= deadline:
                raise WaitFault(
                    f"disk {disk.name} is attached to this host at LUN {disk.lun}, and no device has appeared",
                    "Rescan the SCSI bus: echo '- - -' into /sys/class/scsi_host/host*/scan",
                    reason="DeviceMissing",
                )
            time.sleep(0.5)
        return device


def _entries(machine: Machine) -> list[dict[str, Any]]:
    """Return the data disks of a machine as they are written back to it unchanged."""
    found = (machine.body.get("properties") or {}).get("storageProfile", {}).get("dataDisks") or []
    entries = []
    for one in found:
        entry = {name: one[name] for name in KEPT if one.get(name) is not None}
        if managed := (one.get("managedDisk") or {}).get("id"):
            entry["managedDisk"] = {"id": managed}
        entries.append(entry)
    return entries


def _flush(device: Path) -> None:
    """Let nothing of a device stay in this host's memory."""
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        if stat.S_ISBLK(os.fstat(descriptor).st_mode):
            fcntl.ioctl(descriptor, BLKFLSBUF)
    finally:
        os.close(descriptor)
