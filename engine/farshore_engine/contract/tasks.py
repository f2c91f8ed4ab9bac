"""Tasks: one step for one appliance each. The operator makes them; the appliance claims, repeats and reports them.

Every task is idempotent: it may be carried out again after a crash and must find what it made before.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from farshore_engine.contract.assignment import MachineAssignment, Source, VaultAccess
from farshore_engine.contract.model import Model, Status
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import Check


class TaskKind(StrEnum):
    """What an appliance can be asked to do."""

    PREFLIGHT = "Preflight"  # run all preflight checks of a machine, change nothing
    COMMIT_SPOOL = "CommitSpool"  # commit what is complete in the spool as a point ("Latest")
    SELECT_POINT = "SelectPoint"  # resolve a point selector in the vault and pin the point for the run
    SHUTDOWN_SOURCE = "ShutdownSource"  # power the source machine off over SSH
    FENCE = "Fence"  # write a fence record: no older epoch extends the chain
    HYDRATE = "Hydrate"  # write the point's disks on this host
    START_MACHINE = "StartMachine"  # boot the recovered machine from the hydrated disks
    PROBE_MACHINE = "ProbeMachine"  # ask the recovered machine from outside for an answer
    CLEAN_UP = "CleanUp"  # stop the machine, remove its disks, release the pin, verify that nothing is left


class TaskPhase(StrEnum):
    """Where a task is; Succeeded and Failed are final."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class TaskInput(Model):
    """The input of a task; which fields are used depends on its kind (see `TaskKind`)."""

    machine_id: str = ""
    """Identity of the machine in the vault, <namespace>.<name>."""
    selector: str = ""
    """SelectPoint: which recovery point, as in FailoverPlan.recoveryPoint."""
    point: str = ""
    """Hydrate, StartMachine: name of the recovery point."""
    pin: str = ""
    """SelectPoint, CleanUp: name of the pin that keeps the point, the run's name."""
    epoch: int = 0
    """Fence: the new epoch; no older one extends the chain afterwards."""
    writer: str = ""
    """Fence: who fences."""
    machine_name: str = ""
    """Name of the recovered machine on its host; the same for every repetition of the task."""
    network: str = ""
    """StartMachine: network to join; isolated for a drill."""
    memory_mib: int | None = None
    """StartMachine: memory in MiB; absent for what the source had."""
    cpus: int | None = None
    """StartMachine: number of CPUs; absent for what the source had."""
    probe_timeout_seconds: int = 300
    """ProbeMachine: seconds to wait for an answer."""
    keep_machine: bool = False
    """CleanUp: release the pin only, and leave the machine running."""


class TaskResult(Status):
    """What a task found or made; which fields are set depends on its kind."""

    checks: tuple[Check, ...] = ()
    """Preflight: the checklist."""
    point: RecoveryPoint | None = None
    """SelectPoint, CommitSpool: the recovery point."""
    slot: int | None = None
    """Fence: slot of the fence record in the chain."""
    bytes_moved: int | None = None
    """Hydrate: bytes read from the vault."""
    disk_bytes: int | None = None
    """Hydrate: bytes of all disks."""
    disks_verified: bool | None = None
    """Hydrate: the disks were read back and equal the point's digests."""
    disk_paths: tuple[str, ...] = ()
    """Hydrate: where the disks are on the host."""
    machine_kind: str = ""
    """StartMachine: qemu or namespace."""
    address: str = ""
    """StartMachine: address of the recovered machine."""
    port: int | None = None
    """StartMachine: port that the probe asks."""
    evidence: str = ""
    """ProbeMachine: what the machine answered."""
    removed: tuple[str, ...] = ()
    """CleanUp: what was removed."""
    confirmed: bool | None = None
    """ShutdownSource: the machine no longer answers."""


class TaskReport(Status):
    """`status` of a Task, owned by its process server."""

    phase: TaskPhase
    """Pending, Running, Succeeded or Failed; the last two are final."""
    message: str = ""
    """What is going on, or what went wrong and where."""
    remedy: str = ""
    """What a person should do next; empty when nothing is to be done."""
    attempts: int = 0
    """How often the task was begun."""
    percent: int | None = None
    """Whole percent done, 0 to 100, where it can be told."""
    started_at: datetime | None = None
    """When the first attempt began."""
    finished_at: datetime | None = None
    """When the task ended."""
    result: TaskResult | None = None
    """What the task found or made."""


class TaskAssignment(Model):
    """A task of this appliance with what it needs resolved: the vault, and the source where it logs in there."""

    name: str
    kind: TaskKind
    run: str
    input: TaskInput
    vault: VaultAccess | None = None
    source: Source | None = None
    machine: MachineAssignment | None = None  # if the machine is also assigned here
    deadline: datetime | None = None
    report: TaskReport | None = None  # what was reported before, for a restart

    def describe(self) -> dict[str, Any]:
        """Return what may be logged: no secret."""
        return {"task": self.name, "kind": self.kind.value, "run": self.run, "machine": self.input.machine_id}
