"""What Kubernetes wants of the driver, with every reference resolved: the small port between both."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from farshore_engine.contract.assignment import Desired, Policy
from farshore_engine.contract.faults import Fault
from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.contract.siterecovery import RecoveryPlanReport, SiteRecoveryReport
from farshore_engine.contract.tasks import TaskInput, TaskKind, TaskReport
from farshore_operator.engines.siterecovery.settings import VaultSettings
from farshore_operator.engines.siterecovery.target import TargetWish


@dataclass(frozen=True)
class Origin:
    """The vault of the classic experience that a machine moves from; `fault` says why it cannot be looked at."""

    name: str
    settings: VaultSettings | None = None
    fault: Fault | None = None


@dataclass(frozen=True)
class MachineWish:
    """One machine under protection, as the manifest says, and what was reported of it last."""

    name: str
    machine_id: str
    epoch: int
    desired: Desired
    address: str
    windows: bool
    policy: Policy
    target: TargetWish
    paused: bool = False
    report: ReplicationReport | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class BrokenWish:
    """A machine or task of which something does not resolve."""

    name: str
    fault: Fault
    epoch: int = 0
    report: ReplicationReport | None = None


@dataclass(frozen=True)
class TaskWish:
    """A task that is not over. `run_began` is when its run started, by which a drill is known as the run's own;
    `network` the resource id of the network of a drill, empty for none; `address` that of the machine at its site."""

    name: str
    kind: TaskKind
    input: TaskInput
    machine: str
    run: str = ""
    run_began: datetime | None = None
    report: TaskReport | None = None
    deadline: datetime | None = None
    network: str = ""
    address: str = ""


@dataclass(frozen=True)
class Manual:
    """A person is waited for; `drills` tells whether in a test failover, too."""

    name: str
    text: str
    drills: bool = False


@dataclass(frozen=True)
class GroupWish:
    """A group of a plan, with the names of its machines that replicate into the vault."""

    name: str
    machines: tuple[str, ...]
    before: tuple[Manual, ...] = ()
    after: tuple[Manual, ...] = ()


@dataclass(frozen=True)
class PlanWish:
    """A FailoverPlan that is to have a recovery plan.

    Attributes:
        left_out: what a recovery plan cannot do, in words.
        refusal: why it can have none, with the remedy; None if it can.
        unwanted: it is to have none in this vault; what was reported of one is withdrawn.
    """

    name: str
    groups: tuple[GroupWish, ...] = ()
    left_out: tuple[str, ...] = ()
    refusal: Fault | None = None
    unwanted: bool = False
    report: RecoveryPlanReport | None = None


@dataclass(frozen=True)
class VaultWish:
    """A RecoveryVault of engine siteRecovery with its machines and tasks.

    Attributes:
        appliance: name of the configuration server or appliance to use; empty for the only one.
        process_server: name of its process server; empty for a healthy one.
        linux_account, windows_account: names of the accounts for push installation.
        log_storage: resource id of the storage account through which machines replicate.
        refresh: a word; each new one asks for a refresh of the configuration server.
    """

    namespace: str
    name: str
    settings: VaultSettings
    appliance: str = ""
    process_server: str = ""
    linux_account: str = ""
    windows_account: str = ""
    log_storage: str = ""
    refresh: str = ""
    machines: tuple[MachineWish, ...] = ()
    broken: tuple[BrokenWish, ...] = ()
    tasks: tuple[TaskWish, ...] = ()
    plans: tuple[PlanWish, ...] = ()
    report: SiteRecoveryReport = field(default_factory=SiteRecoveryReport)


class ControlPlane(Protocol):
    """What the driver needs of the control plane.

    Guarantees: `wishes` is complete, and holds every report that this driver has published; a report that returns is
    durable, so that what it records is found after a restart.
    """

    def wishes(self) -> tuple[VaultWish, ...]:
        """Return the vaults to drive now.

        Raises:
            Fault: the control plane is away.
        """
        ...

    def report_vault(self, namespace: str, name: str, report: SiteRecoveryReport) -> None:
        """Publish what is known of a vault; a Fault means that it was not."""
        ...

    def report_machine(self, namespace: str, name: str, report: ReplicationReport) -> None:
        """Publish the replication report of a machine; a Fault means that it was not."""
        ...

    def report_task(self, namespace: str, name: str, report: TaskReport) -> None:
        """Publish a task's report; a Fault means that it was not."""
        ...

    def report_plan(self, namespace: str, name: str, report: RecoveryPlanReport | None) -> None:
        """Publish what is known of a FailoverPlan's recovery plan, None to withdraw it; a Fault means it was not."""
        ...
