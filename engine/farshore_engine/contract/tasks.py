"""Tasks: one step for one appliance each. The operator makes them; the appliance claims, repeats and reports them.

Every task is idempotent: it may be carried out again after a crash and must find what it made before.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from farshore_engine.contract.assignment import (
    DatabaseLogin,
    MachineAssignment,
    ReplicaAccess,
    Source,
    VaultAccess,
)
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.model import Model, Status
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import Check
from farshore_engine.contract.site import CloudSite, CloudTarget


class TaskKind(StrEnum):
    """What an appliance can be asked to do."""

    PREFLIGHT = "Preflight"  # run all preflight checks of a machine, change nothing
    COMMIT_SPOOL = "CommitSpool"  # commit what is complete in the spool as a point ("Latest")
    SELECT_POINT = "SelectPoint"  # resolve a point selector in the vault and pin the point for the run
    SHUTDOWN_SOURCE = "ShutdownSource"  # power the source machine off over SSH
    FENCE = "Fence"  # write a fence record: no older epoch extends the chain
    HYDRATE = "Hydrate"  # write the point's disks on this host
    START_MACHINE = "StartMachine"  # boot the recovered machine from the hydrated disks
    PROBE_MACHINE = "ProbeMachine"  # ask the recovered machine from outside for answers
    CLEAN_UP = "CleanUp"  # stop the machine, remove its disks, release the pin, verify that nothing is left
    FINAL_POINT = "FinalPoint"  # stop services, freeze, commit the last point, power off while still frozen
    START_SOURCE = "StartSource"  # start the machine where it was, through its site's provider
    WRITE_BACK = "WriteBack"  # write a point onto the machine's own disks at this site, only the blocks that differ
    PREPARE_GUEST = "PrepareGuest"  # fit hydrated or written disks to the place where they will run, offline
    WRITE_REPORT = "WriteReport"  # put a signed report of a run into the vault
    DELETE_POINTS = "DeletePoints"  # delete all points but the pinned, the locked and the newest, after a commit
    UPLOAD_DISKS = "UploadDisks"  # make managed disks of the disks that were hydrated and prepared on this host
    TEST_FAILOVER = "TestFailover"  # Site Recovery: make a test machine from a point
    FAILOVER = "Failover"  # Site Recovery: switch the source off, if asked to, and make the machine from a point
    CHANGE_POINT = "ChangePoint"  # Site Recovery: make the machine anew from another point
    COMMIT = "Commit"  # Site Recovery: declare a failover final, which deletes its points
    NOTE = "Note"  # do nothing but leave the step in the vault's journal of the run: what the operator did itself
    READ_JOURNAL = "ReadJournal"  # tell what the vault knows of a machine's runs, for a fresh control plane


class ProbeKind(StrEnum):
    """How a recovered machine is asked."""

    TCP = "Tcp"
    HTTP = "Http"
    SSH = "Ssh"
    SQL = "Sql"


class TaskPhase(StrEnum):
    """Where a task is; Succeeded and Failed are final."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ProbeSpec(Model):
    """One question to a recovered machine from outside; which fields are used depends on `kind`."""

    name: str
    """Name of the probe, shown with its answer."""
    kind: ProbeKind
    """Tcp, Http, Ssh or Sql."""
    port: int
    """TCP port."""
    path: str = ""
    """Http: path that is asked for."""
    status: int = 200
    """Http: status that it must answer."""
    tls: bool = False
    """Http, Sql: whether to speak TLS; the certificate is not verified."""
    command: tuple[str, ...] = ()
    """Ssh: command that must end with 0; empty for the server's greeting only."""
    query: str = ""
    """Sql: query that must return at least one row."""
    database: str = ""
    """Sql: name of the database."""
    engine: str = ""
    """Sql: postgresql or mysql."""
    credentials_secret: str = ""
    """Sql: name of the Secret with username and password; empty for neither."""
    timeout_seconds: int = 300
    """Seconds that the machine may take from its start until it answers."""


class ProbeResult(Status):
    """What a probe was answered."""

    name: str
    """Name of the probe."""
    passed: bool
    """Whether it was answered as it should be."""
    answer: str = ""
    """What came back, or why nothing did."""
    seconds: float | None = None
    """Seconds from the machine's start to the answer."""


class NetworkSettings(Model):
    """What a recovered machine's network interface gets. Without an address it asks DHCP, or, on a process server's own
    host, where nobody answers that, gets a free one of the network that it joins."""

    address: str = ""
    """Address with its prefix length, such as 10.1.0.4/24; empty for DHCP."""
    gateway: str = ""
    """Default gateway; empty for none."""
    dns: tuple[str, ...] = ()
    """Name servers."""


class GuestPreparation(Model):
    """What is changed offline on the disks of a machine before it starts in another place."""

    network: NetworkSettings | None = None
    """Network settings; absent to leave them."""
    restore_network: bool = False
    """Put back the network settings that an earlier preparation changed, as when a machine goes home."""
    detach_agent: bool = True
    """Take the agent's identity away, so that it cannot write to the old chain."""
    azure: bool = False
    """Serial console and drivers that Azure needs."""


class RunEntry(Model):
    """What a task belongs to, for the journal in the vault."""

    run: str
    """Name of the run."""
    step: str
    """Name of the step."""
    spec: str
    """The run's frozen spec, JSON."""


class JournalledStep(Status):
    """A step that ended, as the journal has it."""

    step: str
    """Name of the step."""
    phase: TaskPhase
    """Succeeded or Failed."""
    message: str = ""
    """What was said of it."""
    at: datetime
    """When it ended."""
    result: str = ""
    """The task's result, JSON."""


class JournalledRun(Status):
    """A run, as the vault's journal has it."""

    run: str
    """Name of the run."""
    spec: str
    """Its frozen spec, JSON."""
    begun_at: datetime
    """When its first task began."""
    steps: tuple[JournalledStep, ...] = ()
    """Steps that ended, oldest first."""


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
    replaces: str = ""
    """Hydrate: run that made the machine of this name; it is stopped, and its disks are moved to the point."""
    keep_machine: bool = False
    """CleanUp: release the pin only, and leave the machine running."""
    source_machine: str = ""
    """FinalPoint, StartSource, WriteBack: name of the machine at the provider of the site where the task runs."""
    freeze_seconds: int = 300
    """FinalPoint: how long the machine may stay frozen until its power-off is confirmed; then it is thawed."""
    probes: tuple[ProbeSpec, ...] = ()
    """ProbeMachine: what is asked; none for one question to the SSH server."""
    preparation: GuestPreparation | None = None
    """PrepareGuest: what is changed."""
    target: CloudTarget | None = None
    """UploadDisks, StartMachine and others at a site in a cloud: what the machine becomes there; absent elsewhere."""
    journal: RunEntry | None = None
    """What to write into the journal of the machine's runs when the task begins and ends; absent for nothing."""
    report: str = ""
    """WriteReport: the report, JSON."""
    shutdown: bool = False
    """Failover: whether the source machine is switched off first; the failover goes on if that does not work."""
    notes: str = ""
    """CleanUp: what is noted of the drill."""


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
    """CleanUp: what was removed, by the attempt that ended well; an earlier one may have removed more."""
    looked_for: tuple[str, ...] = ()
    """CleanUp: what was looked for afterwards and is not there."""
    confirmed: bool | None = None
    """ShutdownSource, FinalPoint: the machine no longer answers."""
    bytes_written: int | None = None
    """WriteBack, Hydrate: bytes of blocks that differed and were written."""
    changes: tuple[str, ...] = ()
    """PrepareGuest: each change that was made."""
    probes: tuple[ProbeResult, ...] = ()
    """ProbeMachine: what each probe was answered."""
    runs: tuple[JournalledRun, ...] = ()
    """ReadJournal: the machine's runs, oldest first."""
    vault_epoch: int | None = None
    """ReadJournal: epoch at the head of the machine's chain; absent when the vault has nothing of it."""
    host_key: str = ""
    """StartMachine, ProbeMachine: SSH host key of the recovered machine (type and base64), where it has one."""
    report_name: str = ""
    """WriteReport: name of the report in the vault."""


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
    operation: Operation | None = None
    """What was begun at Azure Site Recovery for the task."""


class TaskAssignment(Model):
    """A task of this appliance with what it needs resolved: the vault, and the source where it logs in there."""

    name: str
    kind: TaskKind
    run: str
    input: TaskInput
    vault: VaultAccess | None = None
    source: Source | None = None
    site: CloudSite | None = None  # where this process server is, if that is a cloud
    replica: ReplicaAccess | None = None  # where that site keeps warm replicas, if it does
    database_logins: dict[str, DatabaseLogin] = Field(default_factory=dict)  # ProbeMachine: by the name of the Secret
    machine: MachineAssignment | None = None  # if the machine is also assigned here
    deadline: datetime | None = None
    report: TaskReport | None = None  # what was reported before, for a restart

    def describe(self) -> dict[str, Any]:
        """Return what may be logged: no secret."""
        return {"task": self.name, "kind": self.kind.value, "run": self.run, "machine": self.input.machine_id}


class TaskFailed(StopFault):
    """A task that failed and found something all the same, which its report keeps: what probes were answered."""

    def __init__(self, message: str, remedy: str = "", *, reason: str, result: TaskResult) -> None:
        super().__init__(message, remedy, reason=reason)
        self.result = result
