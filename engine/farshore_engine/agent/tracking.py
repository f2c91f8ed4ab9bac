"""What is tracked, and how tracking goes on without a gap when a disk comes, goes or grows."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.agent.disks import Disk
from farshore_engine.agent.ledger import Ledger
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.parts import Identity
from farshore_engine.agent.tracker.interface import TrackedDisk
from farshore_engine.agent.tracker.probe import Choice
from farshore_engine.blocks.grid import block_count

TOGETHER = frozenset({"tracefs"})  # trackers of which two may watch a disk at the same time

log = logging.getLogger(LOGGER_NAME)

Start = Callable[[tuple[TrackedDisk, ...], Ledger], Choice]


@dataclass(frozen=True, slots=True)
class Tracking:
    """The machine's disks, those of them that are protected, and what watches and remembers their writes."""

    disks: list[Disk]
    ledger: Ledger
    choice: Choice
    identity: Identity

    @property
    def protected(self) -> list[Disk]:
        """Return the disks that are replicated."""
        return [disk for disk in self.disks if disk.replicated]


def begin(disks: list[Disk], clear_before_read: bool, machine_id: str, start: Start) -> Tracking:
    """Begin to track; raises OSError when no tracker works."""
    protected = [disk for disk in disks if disk.replicated]
    ledger = Ledger({d.id: block_count(d.size) for d in protected}, clear_before_read)
    choice = start(tuple(d.tracked for d in protected), ledger)
    return Tracking(disks, ledger, choice, Identity(machine_id, uuid.uuid4().hex, boot_id()))


def go_on(before: Tracking, disks: list[Disk], start: Start) -> Tracking:
    """Track another set of disks; what is known of those that stayed is kept, and they are never unwatched.

    A tracker that cannot run beside another of its kind is stopped first: then all disks are to be compared.
    """
    old = {disk.id: disk for disk in before.protected}
    protected = [disk for disk in disks if disk.replicated]
    ledger = before.ledger
    resized = frozenset(d.id for d in protected if d.id in old and d.size != old[d.id].size)
    together = before.choice.tracker.name in TOGETHER
    if not together:
        before.choice.tracker.stop()
    ledger.fit({d.id: block_count(d.size) for d in protected}, resized)
    choice = start(tuple(d.tracked for d in protected), ledger)
    if together:
        before.choice.tracker.barrier()
        before.choice.tracker.stop()
    for disk in protected:
        if disk.id in old and not _same(disk, old[disk.id]):
            ledger.lost(disk.id, f"the disk {disk.name} was away for a while")
        elif disk.id in old and not together:
            ledger.lost(disk.id, "tracking began anew because the machine's disks changed")
    told = {"now": [d.id for d in protected], "before": list(old), "resized": sorted(resized)}
    log.warning("another set of disks is tracked", extra={"fields": told})
    return Tracking(disks, ledger, choice, before.identity)


def _same(disk: Disk, before: Disk) -> bool:
    return (disk.name, disk.major, disk.minor, disk.presence) == (
        before.name, before.major, before.minor, before.presence,
    )  # fmt: skip


def boot_id() -> str:
    """Return the kernel's name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
