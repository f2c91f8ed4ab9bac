"""What a process server says of itself and of each machine: `status.replication`, and its own status."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from farshore_engine.contract.model import Status
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.points import GroupCut, RecoveryPoint


class State(StrEnum):
    """Where the replication of one machine is."""

    WAITING = "Waiting"  # something that it refers to is not there yet; nothing was begun
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
    """Name of the check in CamelCase, stable across versions, such as SSHLogin or RouteToDataPort."""
    result: CheckResult
    """Passed, Warning, Error, or Skipped when an earlier error makes the check pointless. Only errors block."""
    message: str
    """What was found, with the values that were seen."""
    remedy: str = ""
    """What to do about it; empty when nothing is to be done."""


class Disk(Status):
    """A replicated disk; size in bytes."""

    id: str
    """Name of the disk in the vault, stable across reboots of the machine."""
    name: str
    """Name in the machine, such as /dev/sda."""
    size_bytes: int
    """Size in bytes."""


class AgentReport(Status):
    """The agent as last seen. `host_key` is the machine's SSH host key, pinned on first use."""

    version: str = ""
    """Version of the agent in the machine."""
    host_key: str = ""
    """SSH host key of the machine (type and base64), pinned on first use."""
    tracker: str = ""
    """How writes are tracked: tracefs, blktrace or compare."""
    tracker_reason: str = ""
    """Why this way was chosen over a better one; empty for the best one."""
    connected: bool = False
    """Whether the agent is connected to the process server now."""
    last_seen: datetime | None = None
    """When the agent was last heard of."""
    certificate_request: str = ""
    """Certificate request in PEM; the operator signs it for this machine and no other."""


class TransferProgress(Status):
    """How far a copy is. `rate` in bytes per second; `eta_seconds` None while it cannot be told."""

    bytes_total: int
    """Bytes to pass over."""
    bytes_done: int
    """Bytes passed over so far."""
    percent: int
    """Whole percent done, 0 to 100."""
    rate: int = 0
    """Bytes per second, averaged over the last seconds."""
    eta_seconds: int | None = None
    """Seconds left at this rate; absent while it cannot be told."""


class GroupReport(Status):
    """What the machine's consistency group is doing."""

    name: str
    """Name of the group."""
    members: tuple[str, ...] = ()
    """Machine ids of the members that are cut together now; paused and stopped ones are left out."""
    last_cut: GroupCut | None = None
    """The newest cut that this machine was in."""
    held_up_by: tuple[str, ...] = ()
    """Machine ids of the members that stand in the way of a cut."""
    message: str = ""
    """What stands in the way; empty when nothing does. Until it is gone, each machine takes points alone."""


class KeyReport(Status):
    """Which key-encryption keys open the machine's data, as its process server saw when it opened the vault."""

    current: str
    """Name of the key that the vault names now."""
    wrapped: bool
    """Whether that key opens the machine's data."""
    previous: tuple[str, ...] = ()
    """Names of the other keys that open the machine's data too."""
    needed: tuple[str, ...] = ()
    """Those of the vault's previous keys that this machine still needs; empty once the rotation is done here."""
    message: str = ""
    """Why the current key does not open the machine's data yet; empty when it does."""


class Churn(Status):
    """How fast programs write on the machine, and how fast that leaves it."""

    written_rate: int = 0
    """Bytes per second of distinct 64 KiB blocks that programs write, over the last interval between points or, when
    copying takes rounds, over the last round; 0 while unknown."""
    sent_rate: int = 0
    """Bytes per second at which such blocks were last sent; 0 while no round took long enough to tell."""
    outruns_link: bool = False
    """Whether the last recovery point was given up because more is written than can be sent."""


class ReplicationReport(Status):
    """`status.replication` of a ProtectedVM, owned by the process server that is assigned to it."""

    process_server: str
    """Process server that wrote this report."""
    epoch: int
    """Epoch of the assignment under which it was written."""
    state: State
    """Where the replication is."""
    message: str = ""
    """What is going on, or what went wrong and where."""
    remedy: str = ""
    """What a person should do next; empty when nothing is to be done."""
    reason: str = ""
    """CamelCase reason of the state, for conditions and events."""
    checks: tuple[Check, ...] = ()
    """The preflight checklist, as last run."""
    agent: AgentReport | None = None
    """The agent as last seen."""
    disks: tuple[Disk, ...] = ()
    """The replicated disks."""
    progress: TransferProgress | None = None
    """Progress of the first copy or of a resync; absent otherwise."""
    churn: Churn | None = None
    """How fast the machine's disks change, beside what the link takes; absent before the first recovery point."""
    resync_reason: str = ""
    """Why the disks are compared again; empty when they are not."""
    last_point: RecoveryPoint | None = None
    """The newest recovery point."""
    last_app_consistent_point: RecoveryPoint | None = None
    """The newest application-consistent recovery point."""
    oldest_point: RecoveryPoint | None = None
    """The oldest recovery point that is kept."""
    recent_points: tuple[RecoveryPoint, ...] = ()
    """The latest five recovery points, newest first; `farshore points` lists all."""
    point_count: int = 0
    """Number of recovery points in the vault."""
    initial_bytes: int = 0
    """Bytes of disk that the first copy passed over."""
    initial_seconds: float = 0.0
    """Seconds that the first copy took."""
    group: GroupReport | None = None
    """The machine's consistency group; absent if it has none."""
    keys: KeyReport | None = None
    """Which key-encryption keys open the machine's data; absent until its vault was opened."""
    vault_epoch: int = 0
    """Epoch at the head of the chain in the vault; above `epoch` when this assignment is stale."""
    updated_at: datetime | None = None
    """When this report was written."""
    operation: Operation | None = None
    """What was begun at Azure Site Recovery for the machine and is not seen to be over."""


class SpoolReport(Status):
    """Use of the spool in bytes."""

    used_bytes: int
    """Bytes in the spool that are not yet in the vault."""
    size_bytes: int
    """Bytes that the spool may use."""


class Obstacle(Status):
    """What is in the way of recovering a machine on this appliance, seen from there."""

    machine_id: str
    """Identity of the machine in the vault."""
    reason: str
    """CamelCase word."""
    message: str
    """What is in the way, and what to do about it."""
    hard: bool
    """Whether a failover would surely fail."""


class WarmReplica(Status):
    """A machine's warm replica at its recovery site: page blobs that follow its newest point."""

    machine_id: str
    """Identity of the machine in the vault."""
    point: str = ""
    """Recovery point that the replica holds; empty until it holds one."""
    point_time: datetime | None = None
    """Instant of that point's freeze, in UTC."""
    bytes_behind: int | None = None
    """Bytes of blocks in which the newest point differed when that was last looked at; a failover moves them."""
    updated_at: datetime | None = None
    """When the replica was last found to hold what it should."""
    message: str = ""
    """What is going on, or what is in the way."""
    remedy: str = ""
    """What a person should do next; empty when nothing is to be done."""


class RecoveryReport(Status):
    """What an appliance has for recovering machines on its own host, and what it found out by trying."""

    disk_free_bytes: int = 0
    """Bytes that are free where disks are hydrated, in whole GiB."""
    memory_free_bytes: int = 0
    """Bytes of memory that are free for machines, in whole GiB."""
    qemu: bool = False
    """Whether QEMU is installed, which a machine with a boot loader needs."""
    machines: tuple[str, ...] = ()
    """Names of the recovered machines that are there now, running or not."""
    opened: int = 0
    """Number of machines whose newest point could be opened with the vault's key."""
    obstacles: tuple[Obstacle, ...] = ()
    """What is in the way of recovering a machine here, at most 200."""
    replicas: tuple[WarmReplica, ...] = ()
    """The warm replicas that it keeps, at most 200."""


class ApplianceReport(Status):
    """`status.appliance` of a ProcessServer, written by the appliance itself."""

    version: str
    """Version of the process server."""
    address: str
    """Address at which agents reach the data port."""
    data_port: int
    """TCP port that receives replication data."""
    last_contact: datetime
    """When the appliance last wrote this report, by its own clock."""
    clock_skew_seconds: float
    """Seconds that its clock is ahead of the API server's (negative: behind)."""
    spool: SpoolReport
    """Use of the spool."""
    throughput: int = 0
    """Bytes per second received from agents, averaged over the last minute."""
    machines: int = 0
    """Number of machines that it serves."""
    certificate_request: str = ""
    """Certificate request in PEM for the data port."""
    certificate_expires: datetime | None = None
    """When the data port's certificate expires."""
    public_key: str = ""
    """X25519 public key in base64, to which the operator seals the token of its ServiceAccount."""
    can_run_machines: bool = False
    """Whether it can recover machines on its own host (site provider `local`)."""
    recovery: RecoveryReport | None = None
    """What it has for recovering machines; absent where it cannot."""
    refreshed: str = ""
    """The last refresh request that was carried out (annotation farshore.dev/refresh)."""
