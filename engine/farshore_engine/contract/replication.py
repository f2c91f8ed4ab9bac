"""What a process server says of itself and of each machine: `status.replication`, and its own status."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from farshore_engine.contract.model import Status
from farshore_engine.contract.points import RecoveryPoint


class State(StrEnum):
    """Where the replication of one machine is."""

    PREFLIGHT = "Preflight"  # the checks run, nothing in the machine was touched
    INSTALLING = "Installing"  # the agent is being pushed
    WAITING_FOR_AGENT = "WaitingForAgent"  # installed, it has not dialled yet, or is away
    INITIAL = "InitialReplication"  # the first full copy
    RESYNC = "Resync"  # digests are compared after a gap in tracking
    REPLICATING = "Replicating"  # points are taken at the policy's frequency
    PAUSED = "Paused"
    STOPPED = "Stopped"  # failed over: this epoch takes no further point
    UNINSTALLED = "Uninstalled"
    BLOCKED = "Blocked"  # it needs a person: message and remedy say why


class CheckResult(StrEnum):
    """The outcome of one preflight check; only errors block."""

    PASSED = "Passed"
    WARNING = "Warning"
    ERROR = "Error"
    SKIPPED = "Skipped"  # an earlier error makes it pointless


class Check(Status):
    """One line of the preflight checklist. `name` is CamelCase and stable, such as `SSHLogin` or `RouteToDataPort`."""

    name: str
    result: CheckResult
    message: str
    remedy: str = ""


class Disk(Status):
    """A replicated disk; size in bytes."""

    id: str
    name: str
    size_bytes: int


class AgentReport(Status):
    """The agent as last seen. `host_key` is the machine's SSH host key, pinned on first use."""

    version: str = ""
    host_key: str = ""
    tracker: str = ""
    tracker_reason: str = ""
    connected: bool = False
    last_seen: datetime | None = None
    certificate_request: str = ""  # PEM; the operator signs it for this machine and no other


class TransferProgress(Status):
    """How far a copy is. `rate` in bytes per second; `eta_seconds` None while it cannot be told."""

    bytes_total: int
    bytes_done: int
    percent: int
    rate: int = 0
    eta_seconds: int | None = None


class ReplicationReport(Status):
    """`status.replication` of a ProtectedVM, owned by the process server that is assigned to it."""

    process_server: str
    epoch: int
    state: State
    message: str = ""
    remedy: str = ""
    reason: str = ""
    checks: tuple[Check, ...] = ()
    agent: AgentReport | None = None
    disks: tuple[Disk, ...] = ()
    progress: TransferProgress | None = None
    resync_reason: str = ""
    last_point: RecoveryPoint | None = None
    last_app_consistent_point: RecoveryPoint | None = None
    oldest_point: RecoveryPoint | None = None
    recent_points: tuple[RecoveryPoint, ...] = ()  # the latest five, newest first
    point_count: int = 0
    initial_bytes: int = 0  # bytes of disk that the first copy passed over
    initial_seconds: float = 0.0
    vault_epoch: int = 0  # the epoch at the head of the chain; above `epoch` when this assignment is stale
    updated_at: datetime | None = None


class SpoolReport(Status):
    """Use of the spool in bytes."""

    used_bytes: int
    size_bytes: int


class ApplianceReport(Status):
    """`status.appliance` of a ProcessServer, written by the appliance itself."""

    version: str
    address: str  # where agents reach the data port
    data_port: int
    last_contact: datetime
    clock_skew_seconds: float
    spool: SpoolReport
    throughput: int = 0  # bytes per second received from agents, averaged over the last minute
    machines: int = 0
    certificate_request: str = ""  # PEM, for its own data-port certificate
    certificate_expires: datetime | None = None
    public_key: str = ""  # base64 X25519 key to which the operator seals the ServiceAccount token
    can_run_machines: bool = False  # QEMU and namespaces are there, so a `local` site can recover here
    refreshed: str = ""  # echo of the last refresh request that was carried out
