"""What a vault holds: fabrics with their servers, policies, protected machines, jobs, events. State only, no rules."""

from __future__ import annotations

import enum
import hashlib
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.azuresim.siterecovery.world import Snapshot, SourceMachine

CLASSIC, MODERN, HYPERV = "InMageAzureV2", "InMageRcm", "HyperVReplicaAzure"
FABRIC_TYPE = {CLASSIC: "VMware", MODERN: "InMageRcm", HYPERV: "HyperVSite"}
AZURE = "Microsoft Azure"


class Phase(enum.Enum):
    """Where a machine stands. The value is Azure's `protectionState`.

    Known: Protected, UnplannedFailoverCommitPendingStatesBegin, PlannedFailover... [spec examples];
    InitialReplicationInProgress [doc: "Set up disaster recovery of VMware VMs to Azure with PowerShell"];
    UnplannedFailoverFailed [MIGRATE, with the operations that it allows]; UnprotectedStatesBegin [issue 13725 of
    hashicorp/terraform-provider-azurerm]; UnplannedFailoverCommitted [public walk-throughs of Azure to Azure].
    EnablingFailed, DisablingProtection, UnplannedFailoverInitiated are words of the sister service
    (ProtectedItemModelProperties of Microsoft.DataReplication) [inf here]. The rest is [inf].
    """

    ENABLING = "UnprotectedStatesBegin"
    ENABLE_FAILED = "EnablingFailed"
    SYNCING = "InitialReplicationInProgress"
    PROTECTED = "Protected"
    FAILING_OVER = "UnplannedFailoverInitiated"
    FAILOVER_FAILED = "UnplannedFailoverFailed"
    FAILOVER_CANCELLED = "UnplannedFailoverCancelled"
    COMMIT_PENDING = "UnplannedFailoverCommitPendingStatesBegin"
    COMMITTED = "UnplannedFailoverCommitted"
    DISABLING = "DisablingProtection"
    PLANNED_COMMIT_PENDING = "PlannedFailoverCommitRequired"
    PLANNED_COMMITTED = "PlannedFailoverStatesBegin"


class Drill(enum.Enum):
    """Where a test failover stands: `testFailoverState` and its description [spec examples]."""

    NONE = ("None", "None")
    RUNNING = ("TestFailoverInitiated", "Test failover in progress")  # [inf; the word is of Microsoft.DataReplication]
    WAITING = ("WaitingForCompletion", "Waiting for user input")
    CLEANED = ("MarkedForDeletion", "Cleaning up test environment")


@dataclass
class Server:
    """A process server, master target or appliance part. `heartbeat` None: it sends one all the time."""

    name: str
    ip: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()).upper())
    heartbeat: datetime | None = None
    version: str = "9.63.7187.1"
    errors: list[str] = field(default_factory=list)

    def suffer(self, code: str) -> None:
        if code not in self.errors:
            self.errors.append(code)


@dataclass
class Account:
    """A run-as account of the configuration server, numbered from 1 [doc: "Set up disaster recovery of VMware VMs to
    Azure with PowerShell"]; `visible_from`: 15 minutes after it was added, or a refresh."""

    name: str
    id: str
    visible_from: datetime | None = None


@dataclass
class Protectable:
    """A discovered machine."""

    name: str
    friendly: str
    ip: str
    os_type: str
    machine: SourceMachine | None
    item_id: str = ""
    readiness: list[str] = field(default_factory=list)


@dataclass
class Mapping:
    """A policy tied to a container."""

    name: str
    policy_id: str
    instance: str


@dataclass
class Container:
    name: str
    friendly: str
    protectables: dict[str, Protectable] = field(default_factory=dict)
    mappings: dict[str, Mapping] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)


@dataclass
class Fabric:
    """A configuration server (VMware), a modernized appliance's fabric (InMageRcm), or an example's Hyper-V site."""

    name: str
    friendly: str
    provider: str
    guid: str
    dra: str
    containers: dict[str, Container] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    ip: str = ""
    heartbeat: datetime | None = None
    """When the last one came; None while they come all the time."""
    certificate_days: int = 1095
    version: str = "9.63.7187.1"
    version_status: str = "UpToDate"
    errors: list[str] = field(default_factory=list)
    site_id: str = ""
    """ARM id of the ServerSite (modernized)."""

    @property
    def kind(self) -> str:
        return FABRIC_TYPE[self.provider]


@dataclass
class Policy:
    """`settings` are the provider's details, as the policy shows them (minutes)."""

    name: str
    provider: str
    settings: dict[str, Any]

    @property
    def crash_minutes(self) -> int:
        return int(self.settings.get("crashConsistentFrequencyInMinutes") or 5)

    @property
    def app_minutes(self) -> int:
        return int(self.settings.get("appConsistentFrequencyInMinutes") or 0)

    @property
    def retention_minutes(self) -> int:
        given = self.settings.get("recoveryPointHistory") or self.settings.get("recoveryPointHistoryInMinutes")
        return int(given or 1440)

    @property
    def threshold_minutes(self) -> int:
        return int(self.settings.get("recoveryPointThresholdInMinutes") or 0)


@dataclass
class Target:
    """What the machine becomes in Azure. `network` and `test_network` are ids; `sizes` by disk id."""

    group_id: str = ""
    network: str = ""
    subnet: str = ""
    test_network: str = ""
    test_subnet: str = ""
    vm_name: str = ""
    vm_size: str = ""
    availability_set: str = ""
    zone: str = ""
    static_ip: str = ""
    test_ip: str = ""
    disk_types: dict[str, str] = field(default_factory=dict)
    log_storage: dict[str, str] = field(default_factory=dict)
    storage_account: str = ""
    managed: bool = True
    license_type: str = ""
    rdp: str = "Never"
    tags: dict[str, str] = field(default_factory=dict)
    encryption_set: str = ""
    boot_diagnostics: str = ""


@dataclass
class Point:
    """A recovery point."""

    id: str
    time: datetime
    kind: str
    snapshot: Snapshot


@dataclass
class Item:
    """A replication protected item. `looks` counts what is left of the initial replication or a resync."""

    name: str
    friendly: str
    provider: str
    policy_id: str
    protectable_id: str
    machine: SourceMachine | None
    target: Target
    vault: Vault
    fabric: Fabric
    container: Container
    phase: Phase = Phase.ENABLING
    drill: Drill = Drill.NONE
    disk_ids: list[str] = field(default_factory=list)
    process_server: str = ""
    master_target: str = ""
    account: str = ""
    group_name: str = ""
    looks: int = 0
    looks_total: int = 0
    health: str = "Normal"
    """The replication health that was seen last: a change makes an event."""
    resync: bool = False
    points: list[Point] = field(default_factory=list)
    next_crash: datetime | None = None
    next_app: datetime | None = None
    last_data: datetime | None = None
    job: Job | None = None
    busy: bool = False
    """An operation works on it: nothing else is allowed meanwhile."""
    failover_point: str = ""
    last_failover: datetime | None = None
    last_drill: datetime | None = None
    vm_id: str = ""
    """The VM of a failover."""
    drill_made: list[str] = field(default_factory=list)
    """Ids of what a test failover made, in the order of removal."""
    made: list[str] = field(default_factory=list)
    """Ids of what a failover made."""
    drill_comments: list[str] = field(default_factory=list)
    switched: dict[str, str] = field(default_factory=dict)
    """Where it went, when it was switched to the modernized experience: what stays are its points, until they
    expire."""

    @property
    def id(self) -> str:
        return f"{container_id(self.vault, self.fabric, self.container)}/replicationProtectedItems/{self.name}"

    @property
    def policy(self) -> Policy:
        return self.vault.policies[last(self.policy_id).lower()]


@dataclass
class Task:
    name: str
    friendly: str
    state: str = "NotStarted"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Job:
    """`state` and `description` as the SDK shows them; `operation` is the id of its long operation, which is its
    own."""

    id: str
    scenario: str
    friendly: str
    target_kind: str
    target_id: str
    target_name: str
    began: datetime
    tasks: list[Task]
    state: str = "InProgress"
    description: str = "InProgress"
    ended: datetime | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    affected: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """`customDetails` where they are of a richer kind than AsrJobDetails."""
    again: Any = None
    """What restarts it."""
    resume: Any = None


@dataclass
class Event:
    name: str
    description: str
    kind: str
    severity: str
    at: datetime
    fabric_id: str
    object_name: str
    errors: list[dict[str, Any]] = field(default_factory=list)
    provider: str = CLASSIC
    job: Job | None = None


@dataclass
class Plan:
    """A recovery plan; `groups` as JSON, with the server's Shutdown and Failover groups in front."""

    name: str
    primary_id: str
    model: str
    groups: list[dict[str, Any]]
    last_test: datetime | None = None
    last_unplanned: datetime | None = None
    last_planned: datetime | None = None
    job: Job | None = None
    job_status: str = ""


@dataclass
class Vault:
    """A Recovery Services vault. `classic`: made before 2023-03-15, so that it may still hold configuration servers.
    `retired`: the classic experience has stopped working in it, as it may since 2026-03-30 [doc: classic experience,
    deprecation: "disaster recovery operations may stop"]: what is there can be read, switched and disabled only."""

    subscription: str
    group: str
    name: str
    body: dict[str, Any]
    classic: bool = False
    retired: bool = False
    fabrics: dict[str, Fabric] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    plans: dict[str, Plan] = field(default_factory=dict)
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
        return f"{group}/providers/Microsoft.RecoveryServices/vaults/{self.name}"

    @property
    def sr_id(self) -> str:
        """The id as Site Recovery writes it: with a capital S [spec examples]."""
        return "/S" + self.id[2:]

    def containers(self) -> list[tuple[Fabric, Container]]:
        return [(fabric, one) for fabric in self.fabrics.values() for one in fabric.containers.values()]

    def items(self) -> list[Item]:
        return [item for _, container in self.containers() for item in container.items.values()]


def fabric_id(vault: Vault, fabric: Fabric) -> str:
    return f"{vault.sr_id}/replicationFabrics/{fabric.name}"


def container_id(vault: Vault, fabric: Fabric, container: Container) -> str:
    return f"{fabric_id(vault, fabric)}/replicationProtectionContainers/{container.name}"


def last(resource_id: str) -> str:
    return resource_id.rstrip("/").rpartition("/")[2]


def fabric_name(guid: str) -> str:
    """Fabrics of a configuration server are named by 64 hexadecimal digits [spec example DiscoverProtectableItem]."""
    return hashlib.sha256(guid.encode()).hexdigest()
