"""The port through which a process server is driven. The engine does not know what is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from farshore_engine.contract.assignment import BrokenAssignment, MachineAssignment, RecoveryTarget
from farshore_engine.contract.replication import ApplianceReport, ReplicationReport
from farshore_engine.contract.tasks import TaskAssignment, TaskReport


@dataclass(frozen=True)
class Appliance:
    """The process server's own settings and credentials as the control plane gives them.

    `certificate` and `ca` are PEM; `certificate` is None until the operator has signed the request that the
    appliance reported. `refresh` is the newest refresh request, to be echoed once carried out.
    """

    name: str
    site: str
    data_port: int
    spool_bytes: int
    bandwidth_limit: int
    ca: str
    certificate: str | None
    refresh: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Everything that the control plane wants of this process server at one moment."""

    version: int
    appliance: Appliance
    machines: tuple[MachineAssignment, ...]
    broken: tuple[BrokenAssignment, ...]
    tasks: tuple[TaskAssignment, ...]
    recoverable: tuple[RecoveryTarget, ...] = ()  # machines whose recovery site is this process server's


class ControlPlane(Protocol):
    """What a process server needs of the control plane.

    Guarantees: calls are thread-safe; a snapshot is complete (a machine that is absent is no longer assigned);
    while the control plane is away `wait` keeps returning the last snapshot, so that replication goes on; reports
    are last-writer-wins for each object, retried inside, and dropped only when a newer one replaces them.
    """

    def wait(self, after: int, timeout: float) -> Snapshot:
        """Return the newest snapshot, at once if its version is above `after`, else after at most `timeout` seconds."""
        ...

    def report_machine(self, name: str, report: ReplicationReport) -> None:
        """Publish the replication report of a machine."""
        ...

    def report_task(self, name: str, report: TaskReport) -> None:
        """Publish a task's report.

        Raises:
            WaitFault: the control plane is away; the caller repeats.
        """
        ...

    def report_appliance(self, report: ApplianceReport) -> None:
        """Publish the appliance's own report and its heartbeat.

        What the port knows better than the engine it fills in itself: contact, clock skew, public key, refresh.
        """
        ...
