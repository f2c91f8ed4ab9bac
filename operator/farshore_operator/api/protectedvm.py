"""ProtectedVM: one machine under protection, and what it becomes after a failover."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.assignment import ApplicationHook, Direction, InstallMode
from farshore_engine.contract.replication import ReplicationReport, WarmReplica
from farshore_operator.api.cel import Rule, checked, literal
from farshore_operator.api.resource import (
    AS_SET,
    Column,
    Definition,
    Model,
    Reference,
    Resource,
    ResourceStatus,
    message_column,
    ready_column,
)
from farshore_operator.api.target import Target
from farshore_operator.api.values import Port, Word

_HOST = r"^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)*\.?$"
_HOST_HELP = (
    "write the private IP address of the machine, such as 10.0.0.4, or its host name, without port, user or https://"
)
_DISK_HELP = "name disks as the machine does, such as /dev/sdb, or by the id in status.replication.disks"


class OSType(StrEnum):
    """The operating systems that can be protected."""

    LINUX = "linux"
    WINDOWS = "windows"


class DeletionPolicy(StrEnum):
    """What becomes of the protection at Azure Site Recovery when the ProtectedVM is deleted."""

    DISABLE = "Disable"
    RETAIN = "Retain"


class CredentialKey(StrEnum):
    """The keys of a Secret with a login; password or privateKey is needed, the rest has defaults."""

    USERNAME = "username"
    PASSWORD = "password"
    PRIVATE_KEY = "privateKey"
    PASSPHRASE = "passphrase"
    SUDO_PASSWORD = "sudoPassword"


HostKey = Annotated[
    str,
    Field(
        max_length=4096,
        json_schema_extra=checked(
            Rule(
                r"self.matches('^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*$')",
                "this is not a host key: write its type and base64, such as ssh-ed25519 AAAAC3Nz..., which "
                "`ssh-keyscan ADDRESS` prints behind the address",
            )
        ),
    ),
]
DiskName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=255,
        json_schema_extra=checked(
            Rule(
                r"self.matches('^[^\\s,]+$')",
                f"this is not the name of a disk: {_DISK_HELP}",
                f"'\"' + self + '\" is not the name of a disk: {_DISK_HELP}'",
            )
        ),
    ),
]
ApplicationHooks = Annotated[tuple[ApplicationHook, ...], Field(max_length=8, json_schema_extra=AS_SET)]
Disks = Annotated[tuple[DiskName, ...], Field(max_length=64, json_schema_extra=AS_SET)]


GroupName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        json_schema_extra=checked(
            Rule(
                r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "this is not the name of a consistency group: write lower-case letters, digits and dashes, such as "
                "shop-db",
            )
        ),
    ),
]


class DiskSelection(Model):
    """Which disks are replicated."""

    rules = (
        Rule(
            "!has(self.include) || !has(self.exclude) || !self.include.exists(disk, disk in self.exclude)",
            "source.disks names the same disk in include and in exclude, so whether to replicate it is not "
            "clear: remove it from one of them",
        ),
    )

    include: Disks = ()
    """Disks to replicate, such as /dev/sda. Default: all."""
    exclude: Disks = ()
    """Disks to leave out, such as one for scratch data. Default: none."""


class Source(Model):
    """The machine as it is now."""

    rules = (
        Rule(
            f"self.address.matches({literal(_HOST)}) && (!self.address.matches('^[0-9.]+$') || isIP(self.address)) || "
            "self.address.contains(':') && isIP(self.address)",
            f"source.address is neither an IP address nor a host name: {_HOST_HELP}",
            f"'source.address \"' + self.address + '\" is neither an IP address nor a host name: {_HOST_HELP}'",
            ".address",
        ),
        Rule(
            "self.siteRef == oldSelf.siteRef",
            "source.siteRef cannot be changed, because the machine's recovery points belong to it: delete this "
            "ProtectedVM "
            "(its recovery points stay in the vault) and protect the machine at its new site",
            path=".siteRef",
        ),
        Rule(
            "self.osType == oldSelf.osType",
            "source.osType cannot be changed: delete this ProtectedVM and protect the machine anew",
            path=".osType",
        ),
    )

    site_ref: Reference
    """Site where the machine runs."""
    address: Annotated[str, Field(min_length=1, max_length=253)]
    """Private IP address or host name of the machine, as the process server reaches it. With a public one replication
    may not work, and a warning is given."""
    port: Port = 22
    """TCP port of its SSH server, for the installation of the agent. Default: 22."""
    machine: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Name of the machine at its site's provider, by which it is switched on and off. Default: the ProtectedVM's
    name."""
    os_type: OSType = OSType.LINUX
    """Operating system: linux or windows (only with a vault of engine siteRecovery). Default: linux."""
    host_key: HostKey | None = None
    """Public SSH host key of the machine, its type and base64 on a line, as ssh-keyscan prints behind the address. Set
    it to pin the key from the start, or to accept a new one when the machine was built anew. Default: the key that is
    seen first is pinned."""
    install: InstallMode = InstallMode.PUSH
    """Who installs the agent: Push (the process server, over SSH) or Manual (you, with farshore agent). Default:
    Push."""
    credentials_secret_ref: Reference | None = None
    """Secret with the SSH login: username, password or privateKey, passphrase, sudoPassword. Default: the
    site's."""
    disks: DiskSelection | None = None
    """Which disks are replicated. Default: all."""
    application_hooks: ApplicationHooks = ()
    """Shipped hooks that bring applications to rest at application-consistent points: postgresql, mysql (MariaDB
    too). The programs in /etc/farshore/hooks.d of the machine run as well. Default: none."""


class ProtectedVMSpec(Model):
    """What is protected, how, and what it becomes."""

    rules = (
        Rule(
            "self.vaultRef == oldSelf.vaultRef",
            "spec.vaultRef cannot be changed, because the recovery points would be left behind: delete this "
            "ProtectedVM "
            "(its recovery points stay in the old vault) and create it again with the new one",
            path=".vaultRef",
        ),
        Rule(
            "!has(self.switchTo) || self.switchTo.name != self.vaultRef.name",
            "spec.switchTo names the vault that the machine is in: name the RecoveryVault of the modernized experience",
            path=".switchTo",
        ),
        Rule(
            "!has(oldSelf.switchTo) || has(self.switchTo)",
            "spec.switchTo cannot be taken back, because Site Recovery does not move a machine back: leave it, it says "
            "where the machine is",
        ),
        Rule(
            "self.source.siteRef.name != self.target.siteRef.name",
            "spec.target.siteRef is the site that the machine runs at, which would be lost together with it: "
            "name another one",
            path=".target.siteRef",
        ),
    )

    source: Source
    """The machine as it is now."""
    policy_ref: Reference
    """ReplicationPolicy: how often, how long, when to raise the alarm."""
    vault_ref: Reference
    """RecoveryVault that keeps the recovery points. It cannot be changed."""
    switch_to: Reference | None = None
    """RecoveryVault of engine siteRecovery, with a replication appliance, to which Site Recovery moves the machine from
    the classic experience. It cannot be taken back. Default: it stays."""
    process_server_ref: Reference | None = None
    """ProcessServer of the source site that serves the machine. Default: the least loaded one, exchanged when it
    dies."""
    consistency_group: GroupName | None = None
    """Name of the machine's consistency group: the recovery points of all ProtectedVMs of the namespace with the same
    name are taken at one instant, by one process server. At most 16 machines of one site. Default: none."""
    target: Target
    """What the machine becomes after a failover."""
    paused: bool = False
    """Whether replication rests: writes are still tracked, nothing is sent, no point is taken. Default: false."""
    deletion_policy: DeletionPolicy = DeletionPolicy.DISABLE
    """What becomes of the protection when this object is deleted: Disable (it ends, and Site Recovery deletes the
    recovery points) or Retain (Site Recovery goes on, and Farshore lets go). Used by engine siteRecovery only: the
    native engine removes its agent and keeps the points. Default: Disable."""


class ProtectionPhase(StrEnum):
    """Where the protection is; none is claimed before it was observed."""

    PENDING = "Pending"  # something that it refers to is missing, or no process server is there yet
    INSTALLING_AGENT = "InstallingAgent"
    INITIAL_REPLICATION = "InitialReplication"
    PROTECTED = "Protected"  # points are taken
    FAILING_OVER = "FailingOver"
    FAILED_OVER = "FailedOver"  # a probe from outside was answered by the recovered machine; not committed
    COMMITTED = "Committed"
    REPROTECTING = "Reprotecting"
    PROTECTED_REVERSE = "ProtectedReverse"  # points are taken of the recovered machine
    FAILING_BACK = "FailingBack"
    FAILED_BACK = "FailedBack"
    PAUSED = "Paused"
    RESYNC_REQUIRED = "ResyncRequired"  # it heals by itself: digests are compared, changed blocks sent
    FAILED = "Failed"  # it needs a person: nextStep says what


class Assignment(Model):
    """Which process server serves the machine, and in which epoch."""

    process_server: Word
    """Name of the ProcessServer."""
    epoch: Annotated[int, Field(ge=0)]
    """Grows with each assignment to another process server; the vault refuses writers of an older one."""
    direction: Direction = Direction.FORWARD
    """Forward (from its own site to the recovery site) or Reverse (the recovered machine, back)."""
    base_point: Word | None = None
    """Recovery point on which this epoch goes on: the one that the machine was made from. Absent for the newest."""


class Place(StrEnum):
    """Where a machine stands in the circle of failover and failback."""

    SOURCE = "Source"  # it runs at its own site
    FAILED_OVER = "FailedOver"  # it runs at the recovery site; that can be undone
    COMMITTED = "Committed"  # it runs at the recovery site for good
    REVERSED = "Reversed"  # it is replicated from there
    FAILED_BACK = "FailedBack"  # it runs at its own site again; that can be undone


class Standing(Model):
    """Where the machine stands, from all its runs that are over."""

    place: Place
    """Source, FailedOver, Committed, Reversed or FailedBack."""
    run: Word | None = None
    """FailoverRun that brought it there, which commit and abort name."""
    sequence: int = 0
    """Number of the last run that is reckoned; what it did is not reckoned again, also when its record is gone."""
    epoch: int = 0
    """Highest epoch that a run has written into the vault; whoever replicates the machine next needs a higher one."""
    point: Word | None = None
    """Recovery point that the machine was made from."""
    returned: bool = False
    """Whether it has come back to its own site, so that its replication forwards begins anew."""


class AgentIdentity(Model):
    """The certificate of the machine's agent."""

    certificate: Annotated[str, Field(max_length=16384)] | None = None
    """Certificate in PEM, for the machine's last request."""
    certificate_expires: datetime | None = None
    """When it expires; a new one is made in time."""


class RecoveredMachine(Model):
    """The machine as it runs after a failover."""

    run: Word
    """FailoverRun that made it, or made it anew from another point."""
    process_server: Word | None = None
    """ProcessServer that runs it; it alone reaches a machine of provider `local`."""
    host_key: Annotated[str, Field(max_length=4096)] | None = None
    """Its SSH host key, as it was seen from outside when it started."""
    machine: Word
    """Name of the recovered machine."""
    site: Word
    """Site where it runs."""
    address: Word | None = None
    """Address at which it answers."""
    port: int | None = None
    """Port at which it answered."""


class Verdict(StrEnum):
    """Whether a failover would work now; unknown counts as unsafe."""

    READY = "Ready"
    NOT_READY = "NotReady"
    UNKNOWN = "Unknown"


class FailoverBlocker(Model):
    """One thing that is in the way of a failover."""

    reason: Word
    """What it is, as one CamelCase word."""
    message: Annotated[str, Field(max_length=32768)]
    """What it is, and what to do about it."""
    hard: bool
    """Whether a failover is not begun because of it; else it is worse than promised, and goes on."""


class FailoverReady(Model):
    """Whether a failover would work now, and why not."""

    verdict: Verdict
    """Ready, NotReady or Unknown."""
    reason: Word | None = None
    """The first thing that is in the way, as one CamelCase word."""
    message: Annotated[str, Field(max_length=32768)] | None = None
    """The first thing that is in the way, and what to do about it."""
    blockers: Annotated[tuple[FailoverBlocker, ...], Field(max_length=32)] = ()
    """Everything that is in the way, in the order in which it should be dealt with; the prerequisites of a failover
    show the same."""
    since: datetime | None = None
    """When the verdict last changed."""


class ProtectedVMStatus(ResourceStatus):
    """What is known of the protection."""

    phase: ProtectionPhase | None = None
    """Pending, InstallingAgent, InitialReplication, Protected, FailingOver, FailedOver (answered a probe, not
    committed), Committed, Reprotecting, ProtectedReverse, FailingBack, FailedBack, Paused, ResyncRequired or
    Failed."""
    assignment: Assignment | None = None
    """The process server that serves the machine."""
    desired: Word | None = None
    """What the process server is asked to do: Replicate, Pause, Stop or Uninstall."""
    agent: AgentIdentity | None = None
    """The certificate of the machine's agent."""
    replication: ReplicationReport | None = None
    """What the process server says; it alone writes this."""
    active_site: Word | None = None
    """Where it runs: source or recovery. Absent until the vault was asked what is known of the machine;
    nothing moves or replicates it before."""
    standing: Standing | None = None
    """Where it stands in the circle of failover and failback."""
    active_run: Word | None = None
    """FailoverRun that is under way for the machine."""
    recovered: RecoveredMachine | None = None
    """The recovered machine, after a failover."""
    failover_ready: FailoverReady | None = None
    """Whether a failover would work now."""
    warm_replica: WarmReplica | None = None
    """The warm replica at the recovery site; absent where none is wanted, or none was begun."""
    next_step: Annotated[str, Field(max_length=32768)] | None = None
    """What a person should do next; absent when nothing is to be done."""


class ProtectedVM(Resource):
    """One machine under protection: where it is, how it is replicated, and what it becomes after a failover."""

    definition = Definition(
        "ProtectedVM",
        "protectedvms",
        ("pvm",),
        (
            Column("Phase", ".status.phase", description="Where the protection is."),
            ready_column(),
            Column("Last point", ".status.replication.lastPoint.time", "date", description="Age of the newest point."),
            Column("Failover", ".status.failoverReady.verdict", description="Whether a failover would work now."),
            Column("Process server", ".status.assignment.processServer", description="Who serves it."),
            Column("Copied %", ".status.replication.progress.percent", "integer", wide=True, description="Of a copy."),
            Column("Next step", ".status.nextStep", wide=True, description="What a person should do."),
            message_column(),
        ),
    )

    kind: str = "ProtectedVM"
    spec: ProtectedVMSpec
    """What is protected, how, and what it becomes."""
    status: ProtectedVMStatus = ProtectedVMStatus()
    """What is known of the protection."""
