"""What the control plane asks of a process server for one machine, with every reference already resolved."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretBytes, SecretStr

from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.contract.model import Model
from farshore_engine.contract.site import CloudCredential, CloudSite, CloudTarget


class Desired(StrEnum):
    """What the process server should do with the machine now."""

    REPLICATE = "Replicate"
    PAUSE = "Pause"  # keep the agent and the tracking, send nothing
    STOP = "Stop"  # failed over: take no point, extend no chain, leave the agent alone
    UNINSTALL = "Uninstall"  # protection ends: remove the agent, then report State.UNINSTALLED


class InstallMode(StrEnum):
    """Who puts the agent into the machine."""

    PUSH = "Push"
    MANUAL = "Manual"


class SSHCredentials(Model):
    """How to log in: password or private key (PEM or OpenSSH), root or a user who may sudo."""

    username: str = "root"
    password: SecretStr | None = None
    private_key: SecretStr | None = None
    passphrase: SecretStr | None = None
    sudo_password: SecretStr | None = None


class DatabaseLogin(Model):
    """How a probe logs in to a database server."""

    username: str = ""
    password: SecretStr | None = None


class Source(Model):
    """Where the machine is. `host_key`: the pinned SSH host key (type and base64 on a line), None before first use."""

    address: str
    port: int = 22
    install: InstallMode = InstallMode.PUSH
    credentials: SSHCredentials | None = None
    host_key: str | None = None
    include_disks: tuple[str, ...] = ()
    exclude_disks: tuple[str, ...] = ()


class ApplicationHook(StrEnum):
    """The hooks that are shipped with the agent."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"  # and MariaDB


class Retention(Model):
    """How long points are kept: every point for `keep_all`, then one an hour, a day and a week for the counts given."""

    keep_all: timedelta = timedelta(hours=24)
    hourly: int = 0
    daily: int = 0
    weekly: int = 0


class Policy(Model):
    """How a machine is replicated, from its policy and its own spec; bandwidth in bytes per second, 0 for no limit.

    `hooks` are shipped ones, beside those in the machine's own directory; `hook_timeout` bounds one call of a hook,
    `hook_window` the time from the first pre to the last post.
    """

    crash_consistent_interval: timedelta = timedelta(minutes=5)
    app_consistent_interval: timedelta | None = None
    retention: Retention = Field(default_factory=Retention)
    bandwidth_limit: int = 0
    freeze_bound: timedelta = timedelta(seconds=10)
    hooks: tuple[ApplicationHook, ...] = ()
    hook_timeout: timedelta = timedelta(seconds=30)
    hook_window: timedelta = timedelta(seconds=60)


class AzureBlobAccess(Model):
    """A container in Azure Blob Storage, and how to log in: with at most one of the credentials.

    Without any, a vault is reached with the workload or managed identity of the host, replicas with their site's login.
    `authority` is the host of the token service that `principal` logs in at, empty for that of the Azure public cloud.
    """

    account_url: str
    container: str
    account_key: SecretStr | None = None
    connection_string: SecretStr | None = None
    sas_token: SecretStr | None = None
    principal: CloudCredential | None = None
    authority: str = ""


class DirectoryAccess(Model):
    """A directory that every appliance of the vault sees at the same path."""

    path: Path


class KeyVaultAccess(Model):
    """An RSA key in Azure Key Vault, and the principal that may read it, wrap and unwrap with it.

    `authority` is the host of the token service, empty for that of the Azure public cloud.
    """

    url: str
    key_name: str
    tenant_id: str
    client_id: str
    client_secret: SecretStr
    authority: str = ""


class PreviousKey(Model):
    """A key-encryption key that machines may still be wrapped by. `remove`: take its wrap from every machine."""

    key: SecretBytes | KeyVaultAccess
    remove: bool = False


class VaultAccess(Model):
    """A vault that can be opened: where it is, and the key-encryption key (32 bytes, or one in Azure Key Vault).

    `immutable_for`: how long no point and nothing that it needs can be deleted, by whomever; None for no such lock.
    `immutable_locked`: whether not even an administrator of the storage account may shorten that.
    """

    name: str
    storage: AzureBlobAccess | DirectoryAccess
    prefix: str = ""
    key: SecretBytes | KeyVaultAccess
    previous_keys: tuple[PreviousKey, ...] = ()
    immutable_for: timedelta | None = None
    immutable_locked: bool = False


class ConsistencyGroup(Model):
    """The machines whose points are taken at one instant. `members` are machine ids, sorted, this one among them.

    Machines that do not replicate now (paused, stopped, failed over) are left out.
    """

    name: str
    members: tuple[str, ...]


class ReplicaAccess(Model):
    """Where a site keeps warm replicas of its machines' disks, as page blobs.

    `storage` without a credential is reached with the site's own login. `interval` lies between two updates of a
    machine's replica at least. `wanted`: whether this machine is to have one.
    """

    storage: AzureBlobAccess
    interval: timedelta = timedelta(minutes=15)
    wanted: bool = False


class RecoveryTarget(Model):
    """A machine that this process server would recover. `memory_mib`: what it gets; None for what it had.

    `site` and `target` are set where it would be recovered in a cloud, `name` is its name there. `replica` is where
    its warm replica is kept, None where the site keeps none; `replica_trouble` says why that does not resolve.
    """

    machine_id: str
    vault: VaultAccess
    memory_mib: int | None = None
    name: str = ""
    site: CloudSite | None = None
    target: CloudTarget | None = None
    replica: ReplicaAccess | None = None
    replica_trouble: str = ""


class Direction(StrEnum):
    """Which way a machine is replicated."""

    FORWARD = "Forward"  # from its own site to the recovery site
    REVERSE = "Reverse"  # the recovered machine, back


class MachineAssignment(Model):
    """One machine that this process server is responsible for.

    `machine_id` ("<namespace>.<name>") names the machine in the vault; `certificate` is the PEM chain that the
    operator signed for the machine's last certificate request, None until then. `base_point` names the point on which
    the chain goes on when this epoch begins: the one that the machine was made from; empty for the newest.
    """

    name: str
    machine_id: str
    epoch: int
    desired: Desired
    source: Source
    policy: Policy
    vault: VaultAccess
    certificate: str | None = None
    enrolment_tokens: tuple[SecretStr, ...] = ()  # one-time tokens of manual installs that may still enrol
    consistency_group: ConsistencyGroup | None = None
    direction: Direction = Direction.FORWARD
    base_point: str = ""


class BrokenAssignment(Model):
    """A machine that is assigned here while something that it refers to does not resolve.

    `waits`: it heals when that appears; otherwise it needs a person. A machine that is served already goes on as it
    was assigned last.
    """

    name: str
    machine_id: str
    message: str
    remedy: str
    waits: bool = False

    @classmethod
    def of(cls, name: str, machine_id: str, fault: Fault) -> BrokenAssignment:
        """Keep a fault beside the machine that it concerns."""
        return cls(
            name=name,
            machine_id=machine_id,
            message=fault.message,
            remedy=fault.remedy,
            waits=isinstance(fault, WaitFault),
        )
