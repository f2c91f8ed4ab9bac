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
    selector: str = ""  # SelectPoint: as in FailoverPlan.recoveryPoint
    point: str = ""  # Hydrate, StartMachine
    pin: str = ""  # SelectPoint, CleanUp: name of the pin, the run's name
    epoch: int = 0  # Fence: the new epoch
    writer: str = ""  # Fence: who fences
    machine_name: str = ""  # the recovered machine's name on this host; deterministic for a run and machine
    network: str = ""  # StartMachine: the network to join; isolated for a drill
    memory_mib: int | None = None
    cpus: int | None = None
    probe_timeout_seconds: int = 300
    keep_machine: bool = False  # CleanUp: only release the pin


class TaskResult(Status):
    """What a task found or made; which fields are set depends on its kind."""

    checks: tuple[Check, ...] = ()
    point: RecoveryPoint | None = None
    slot: int | None = None
    bytes_moved: int | None = None  # bytes read from the vault
    disk_bytes: int | None = None  # size of the disks
    disks_verified: bool | None = None  # read back from this host's disks and equal to the point's digests
    disk_paths: tuple[str, ...] = ()
    machine_kind: str = ""  # qemu | namespace
    address: str = ""
    port: int | None = None
    evidence: str = ""  # what the probe saw
    removed: tuple[str, ...] = ()  # CleanUp: what was removed
    confirmed: bool | None = None  # ShutdownSource: the machine no longer answers


class TaskReport(Status):
    """`status` of a Task, owned by its process server."""

    phase: TaskPhase
    message: str = ""
    remedy: str = ""
    attempts: int = 0
    percent: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: TaskResult | None = None


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
