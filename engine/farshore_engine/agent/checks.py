"""Facts about this machine that a preflight needs and that only the machine itself can tell. Nothing is changed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from farshore_engine.agent import VERSION
from farshore_engine.agent.description import memory_bytes
from farshore_engine.agent.disks import find_disks
from farshore_engine.agent.ledger import Ledger
from farshore_engine.agent.mounts import current_mounts, current_swaps, devices_on, file_systems
from farshore_engine.agent.signatures import FREEZABLE
from farshore_engine.agent.tracker.probe import start_best
from farshore_engine.blocks.grid import block_count


def facts() -> dict[str, Any]:
    """Return the facts as JSON: sizes in bytes, the clock in seconds since the epoch."""
    disks = find_disks()
    mounts = current_mounts()
    return {
        "agentVersion": VERSION,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "root": os.geteuid() == 0,
        "tracker": _tracker(),
        "disks": [
            {
                "id": disk.id,
                "name": disk.name,
                "path": disk.path,
                "sizeBytes": disk.size,
                "fileSystems": [
                    {"mountPoint": m.point, "kind": m.kind, "freezable": m.kind in FREEZABLE}
                    for m in file_systems(devices_on(disk.name), mounts)
                ],
            }
            for disk in disks
        ],
        "memoryBytes": memory_bytes(),
        "memoryAvailableBytes": _available_memory(),
        "freeBytes": {place: _free(place) for place in ("/opt", "/var/lib", "/run", "/tmp")},
        "swap": [{"path": swap.path, "file": swap.is_file} for swap in current_swaps()],
        "clock": time.time(),
    }


def _tracker() -> dict[str, str]:
    """Start a tracker for the disks that are there and stop it again: the surest probe."""
    disks = tuple(disk.tracked for disk in find_disks())
    ledger = Ledger({disk.id: block_count(disk.size) for disk in disks})
    with tempfile.TemporaryDirectory(prefix="farshore-checks-") as scratch:
        try:
            choice = start_best(disks, Path(scratch), "checks", ledger)
        except OSError as error:
            return {"name": "", "reason": str(error)}
        choice.tracker.stop()
    return {"name": choice.tracker.name, "reason": choice.reason}


def _available_memory() -> int:
    match = re.search(r"(?m)^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(match[1]) * 1024 if match else 0


def _free(place: str) -> int:
    """Return free bytes of the file system that would hold `place`."""
    path = Path(place)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
