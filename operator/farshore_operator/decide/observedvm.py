"""Everything that decisions on a ProtectedVM are made from, as one frozen snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from farshore_engine.contract.replication import RecoveryReport, ReplicationReport
from farshore_operator.api import FailoverRun, ProtectedVM, RecoveryVault, ReplicationPolicy, Site, Task
from farshore_operator.decide.consistencygroup import Peer
from farshore_operator.decide.observedhistory import History
from farshore_operator.decide.references import SecretUse
from farshore_operator.decide.twins import Twin
from farshore_operator.settings import Timing


@dataclass(frozen=True)
class ServerFacts:
    """A process server as a candidate: its site, whether it is there, and how many machines it serves.

    `heartbeat` is when its last heartbeat was seen, None if there never was one; `recovery` what it has for recovering
    machines.
    """

    name: str
    site: str
    registered: bool
    connected: bool
    load: int
    can_run_machines: bool = False
    heartbeat: datetime | None = None
    deleting: bool = False
    recovery: RecoveryReport | None = None


@dataclass(frozen=True)
class ObservedVM:
    """A machine, what it refers to (None where that does not exist), its runs, and the process servers.

    Attributes:
        login: the Secret with the SSH login; None if neither the machine nor its site names one.
        runs: the runs that this machine is a member of, oldest first.
        servers: all process servers of the namespace.
        drill_max_age: how old the machine's last successful drill may be, by its plans; None for no limit.
        group: the members of its consistency group, itself among them, by name; empty without one.
        drills: TestFailovers of this machine that are not cleaned up.
        history: what is being read of its journal in the vault.
        preflights: its preflight tasks, oldest first.
        twins: other ProtectedVMs of the same machine.
    """

    vm: ProtectedVM
    policy: ReplicationPolicy | None
    vault: RecoveryVault | None
    vault_secrets: tuple[SecretUse, ...]
    source_site: Site | None
    target_site: Site | None
    login: SecretUse | None
    servers: tuple[ServerFacts, ...]
    runs: tuple[FailoverRun, ...]
    timing: Timing
    group: tuple[Peer, ...] = ()
    drill_max_age: timedelta | None = None
    history: History = field(default_factory=History)
    preflights: tuple[Task, ...] = ()
    switch_vault: RecoveryVault | None = None
    twins: tuple[Twin, ...] = ()

    @property
    def report(self) -> ReplicationReport | None:
        """The report of the process server that is assigned now; one of an earlier server says nothing about today."""
        report, assignment = self.vm.status.replication, self.vm.status.assignment
        if report is None or assignment is None or report.process_server != assignment.process_server:
            return None
        return report

    def server(self, name: str) -> ServerFacts | None:
        """Return a process server by its name."""
        return next((server for server in self.servers if server.name == name), None)
