"""Whether the machines that this process server would recover could be recovered now: found out by trying.

It opens the newest point of each with the vault's key as it is given here, and compares what the machine needs with
what this host has, all the time. So a key that was lost, a full disk or a missing program is known before the night in
which it counts.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from farshore_engine.azure.readiness import check_machine
from farshore_engine.contract.assignment import RecoveryTarget
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.replication import Check, CheckResult, Obstacle, RecoveryReport
from farshore_engine.contract.site import CloudProvider
from farshore_engine.machines.directory import machine_names
from farshore_engine.machines.qemu_command import QEMU
from farshore_engine.machines.runtime import LEAST_MEMORY_MIB, MachineRuntime
from farshore_engine.vault.stores import open_machine

log = structlog.get_logger(__name__)

AGAIN_GOOD = 1800.0  # seconds after which a machine that could be opened is tried again
AGAIN_CLOUD = 300.0  # one that would be recovered in a cloud, where others change things too
AGAIN_BAD = 60.0  # seconds after which another one is
PACE = 0.5  # seconds between two machines: thousands of them must not keep the store busy
MOST_OBSTACLES = 200
IN_CLOUDS: dict[CloudProvider, Callable[[RecoveryTarget, MachineDescription, int], tuple[Check, ...]]] = {
    CloudProvider.AZURE: check_machine
}
"""Who looks what a cloud lacks for a machine with so many disks."""
NOT_YET = ("NoMachine", "NoVault")  # nothing was replicated yet, which the machine's own status says
GIB = 1 << 30


@dataclass(frozen=True)
class Findings:
    """What was found out about a machine.

    Attributes:
        fault: why its newest point could not be opened; None if it could.
        disk_bytes: what its disks take at most.
        memory_bytes: what it had.
        bootable: whether it boots from its own disk.
        opened: whether there was a point, and it could be opened.
        checks: what the cloud lacks for it, where it would be recovered in one.
    """

    fault: Fault | None = None
    disk_bytes: int = 0
    memory_bytes: int = 0
    bootable: bool = False
    opened: bool = False
    checks: tuple[Check, ...] = ()


class RecoverySite:
    """Watches over the machines that may have to be recovered here. Thread-safe.

    Args:
        runtime: the recovered machines of this host.
        disks: where their disks are hydrated.
    """

    def __init__(
        self, runtime: MachineRuntime, disks: Path, look: Callable[[RecoveryTarget], Findings] | None = None
    ) -> None:
        """Nothing is tried before there is a target; `look` tries one."""
        self._runtime = runtime
        self._disks = disks
        self._look = look or look_at
        self._lock = threading.Lock()
        self._targets: dict[str, RecoveryTarget] = {}
        self._found: dict[str, tuple[float, Findings]] = {}
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def take(self, targets: Sequence[RecoveryTarget]) -> None:
        """Take over which machines there are; one whose vault or key changed is tried again at once."""
        with self._lock:
            fresh = {target.machine_id: target for target in targets}
            self._found = {
                name: found for name, found in self._found.items() if self._targets.get(name) == fresh.get(name)
            }
            self._targets = fresh
            if fresh and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="recovery-site", daemon=True)
                self._thread.start()
        self._wake.set()

    def report(self) -> RecoveryReport:
        """Return what this host has, and what is in the way of which machine."""
        free = shutil.disk_usage(self._disks).free // GIB * GIB if self._disks.exists() else 0
        memory = _memory_free() // GIB * GIB
        qemu = shutil.which(QEMU) is not None
        with self._lock:
            found = [(self._targets[name], known) for name, (_, known) in self._found.items() if name in self._targets]
        in_the_way = [
            obstacle for target, known in found for obstacle in obstacles(target, known, free, memory, qemu=qemu)
        ]
        in_the_way.sort(key=lambda one: (not one.hard, one.machine_id, one.reason))
        return RecoveryReport(
            disk_free_bytes=free,
            memory_free_bytes=memory,
            qemu=qemu,
            machines=tuple(machine_names(self._runtime.run_dir)),
            opened=sum(1 for _, known in found if known.opened),
            obstacles=tuple(in_the_way[:MOST_OBSTACLES]),
        )

    def stop(self) -> None:
        """End; a try that is under way is not waited for."""
        self._stopped = True
        self._wake.set()

    def _work(self) -> None:
        while not self._stopped:
            target = self._due(time.monotonic())
            if target is None:
                self._wake.wait(PACE * 10)
                self._wake.clear()
                continue
            try:
                found = self._look(target)
            except Exception as error:  # the outermost loop of this thread: one machine must not end the watch
                log.error("a machine could not be looked at", machine=target.machine_id, exc_info=True)
                found = Findings(StopFault(f"internal error: {type(error).__name__}", reason="Internal"))
            with self._lock:
                if self._targets.get(target.machine_id) == target:
                    self._found[target.machine_id] = (time.monotonic(), found)
            if not self._stopped:
                time.sleep(PACE)

    def _due(self, now: float) -> RecoveryTarget | None:
        """Return the machine that has waited longest beyond its time; None if none is due."""
        with self._lock:
            late = [(now - self._next(name), name) for name in self._targets]
            worst = max(late, default=None)
            return self._targets[worst[1]] if worst is not None and worst[0] >= 0 else None

    def _next(self, name: str) -> float:
        if name not in self._found:
            return float("-inf")
        at, known = self._found[name]
        if known.checks and known.fault is None:
            return at + AGAIN_CLOUD
        return at + (AGAIN_GOOD if known.opened and known.fault is None else AGAIN_BAD)


def look_at(target: RecoveryTarget) -> Findings:
    """Open the newest point of a machine, and read what the machine needs."""
    try:
        vault = open_machine(target.vault, target.machine_id)
        try:
            point = vault.newest()
        finally:
            vault.close()
    except Fault as fault:
        return Findings() if fault.reason in NOT_YET else Findings(fault)
    if point is None:
        return Findings()
    described: MachineDescription = point.manifest.machine
    look = IN_CLOUDS.get(target.site.provider) if target.site is not None else None
    return Findings(
        checks=look(target, described, len(point.manifest.disks)) if look is not None else (),
        disk_bytes=sum(disk.size_bytes for disk in point.manifest.disks),
        memory_bytes=described.memory_bytes,
        bootable=any(disk.bootable and disk.replicated for disk in described.disks),
        opened=True,
    )


def obstacles(target: RecoveryTarget, found: Findings, free: int, memory: int, *, qemu: bool) -> list[Obstacle]:
    """Return what is in the way of a machine on a host with so many bytes free on disk and in memory."""
    name = target.machine_id
    if found.fault is not None:
        text = f"its newest point cannot be opened at the recovery site: {found.fault}"
        hard = isinstance(found.fault, StopFault)  # a store that is away for the moment may be back when it counts
        return [Obstacle(machine_id=name, reason="NotReadable", message=text, hard=hard)]
    found_here = [
        Obstacle(machine_id=name, reason=one.name, message=_told(one), hard=True)
        for one in found.checks
        if one.result is CheckResult.ERROR
    ]
    cloud = target.site is not None
    if found.bootable and not qemu and not cloud:
        text = f"it boots from its own disk, and {QEMU} is not installed at the recovery site: install qemu-system-x86"
        found_here.append(Obstacle(machine_id=name, reason="NoQEMU", message=text, hard=True))
    if found.disk_bytes > free:
        text = (
            f"its disks may take {_gib(found.disk_bytes)} GiB, and {_gib(free)} GiB are free at the recovery site: "
            "make room where the process server keeps its state"
        )
        found_here.append(Obstacle(machine_id=name, reason="NoRoom", message=text, hard=False))
    wanted = (target.memory_mib or max(found.memory_bytes >> 20, LEAST_MEMORY_MIB)) << 20
    if found.bootable and wanted > memory and not cloud:
        text = (
            f"it gets {_gib(wanted)} GiB of memory, and {_gib(memory)} GiB are free at the recovery site: add memory, "
            "or set spec.target.memory"
        )
        found_here.append(Obstacle(machine_id=name, reason="NoMemory", message=text, hard=False))
    return found_here


def _told(check: Check) -> str:
    return f"{check.message}: {check.remedy}" if check.remedy else check.message


def _memory_free() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _gib(count: int) -> str:
    return f"{count / GIB:.1f}"
