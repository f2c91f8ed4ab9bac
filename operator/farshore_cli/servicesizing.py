"""What protecting a machine with Azure Site Recovery takes, beside the link: its servers, storage and licences. Pure.

The tables are Microsoft's ("Support matrix for disaster recovery of VMware VMs and physical servers to Azure", "Plan
capacity and scaling"), in its units: GB of 10**9 bytes. Prices are the reader's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from farshore_cli.sizing import DAY, Sizing

GB, MB = 10**9, 10**6
SERVERS = ((500 * GB, 8, 16, 300), (1000 * GB, 12, 18, 600), (2000 * GB, 16, 32, 1000))
"""Of a process server: bytes that change in a day, processors, GB of memory, GB of cache."""
DISKS = ((2 * MB, "standard"), (8 * MB, "premium P10 or P15"), (20 * MB, "premium P20 to P50"))
"""Of a target disk: bytes a second that may change, at 16 KB a write or more, and the disk that takes them."""
MACHINE = 54 * MB
"""Bytes a second that one machine may change at its busiest."""


@dataclass(frozen=True)
class ServiceSizing:
    """The answer. Sizes in bytes; what no table has is None.

    Attributes:
        day: that change in a day, which the cache storage account takes in.
        processors, memory_gb, cache_gb: of a process server or appliance that serves this machine alone.
        share: of one process server at its largest that the machine takes.
        disk: the least target disk, if all changes are on one.
        target: of the target disks, whole, whatever is on them.
        points: of what changed within the retention.
        licences: machines that are paid for by the month.
    """

    day: int
    processors: int | None
    memory_gb: int | None
    cache_gb: int | None
    share: float
    disk: str | None
    target: int
    points: int
    cost_month: float | None
    licences: int = 1
    notes: tuple[str, ...] = ()


def service_size(
    found: Sizing, disk_bytes: int, keep_all: timedelta, price_machine: float | None, gib_month: float | None
) -> ServiceSizing:
    """Return what Site Recovery takes for a machine that changes as was measured.

    Args:
        disk_bytes: of all replicated disks.
        keep_all: how long recovery points are kept.
        price_machine: of a protected machine for a month; None if it is not known.
        gib_month: of a GiB of managed disk for a month; None if it is not known.
    """
    day = round(found.average * DAY)
    server = next((row for row in SERVERS if day <= row[0]), None)
    disk = next((name for limit, name in DISKS if found.busiest <= limit), None)
    points = round(found.average * keep_all.total_seconds())
    cost = None
    if price_machine is not None or gib_month is not None:
        cost = (price_machine or 0.0) + (disk_bytes + points) / (1 << 30) * (gib_month or 0.0)
    return ServiceSizing(
        day=day,
        processors=server[1] if server else None,
        memory_gb=server[2] if server else None,
        cache_gb=server[3] if server else None,
        share=day / SERVERS[-1][0],
        disk=disk,
        target=disk_bytes,
        points=points,
        cost_month=cost,
        notes=_notes(found, server is None, disk is None),
    )


def _notes(found: Sizing, too_much: bool, no_disk: bool) -> tuple[str, ...]:
    notes = []
    if found.busiest > MACHINE:
        notes.append("the machine changes faster than Site Recovery takes of one (54 MB/s): health error 78188")
    elif no_disk:
        notes.append("if all changes are on one disk, none takes them (20 MB/s): spread them, or exclude a disk")
    if too_much:
        notes.append("more than one process server takes (2 TB a day): register another one")
    return tuple(notes)
