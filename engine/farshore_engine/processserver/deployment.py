"""The agent in one machine, as its process server puts it there: identity, checks, installation, enrolment."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from farshore_engine.agent.enrol import expired
from farshore_engine.contract.assignment import MachineAssignment, Source
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.replication import Check, ReplicationReport
from farshore_engine.processserver import memory as memories
from farshore_engine.processserver.identity import MachineIdentity, fits, renewal_due
from farshore_engine.processserver.installer import AgentIdentity, DataPort, Installer
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.shared import Shared
from farshore_engine.wire.messages import Enrolled, Refuse


@dataclass(frozen=True)
class Surroundings:
    """What a supervisor needs of its process server. `ca` is asked for when it is needed; so is `data_port`, which says
    where the machine at this source reaches us."""

    state_dir: Path
    shared: Shared
    installer: Installer
    ca: Callable[[], str]
    data_port: Callable[[Source], DataPort]
    report: Callable[[str, ReplicationReport], None]
    cadence: Cadence
    disk_names: Callable[[Source], tuple[tuple[str, str], ...]] = lambda source: ()
    learn_disks: Callable[[MachineAssignment], None] = lambda assignment: None


class Deployment:
    """One machine's. `enrol` and `remember` may be called from any thread.

    Attributes:
        memory: what survives a restart.
        checks: the preflight checklist as last run; `preflighted` whether it allows the next installation.
    """

    def __init__(self, machine_id: str, around: Surroundings) -> None:
        """Read what is remembered."""
        self._around = around
        self._path = memories.path(around.state_dir, machine_id)
        self._lock = threading.Lock()
        self._enrolling = threading.Lock()
        self._renewing = ""  # the certificate that another one was asked for
        self._identity = MachineIdentity(memories.directory(around.state_dir, machine_id), machine_id)
        self.memory = memories.load(self._path)
        self.checks: tuple[Check, ...] = ()
        self.preflighted = False

    @property
    def certificate_request(self) -> str:
        """The machine's request, in PEM; the operator signs it."""
        return self._identity.request

    def certified(self, assignment: MachineAssignment) -> bool:
        """Whether the assignment carries a certificate that fits our key."""
        return assignment.certificate is not None and fits(self._identity.key, assignment.certificate)

    def installed(self, assignment: MachineAssignment) -> bool:
        """Whether the agent was installed as the assignment wants it now."""
        return self.memory.installed == self._fingerprint(assignment)

    def source_changed(self) -> None:
        """What was checked is somewhere else now."""
        self.preflighted, self.checks = False, ()

    def moved(self) -> None:
        """Forget what was installed: the machine runs elsewhere now, with another agent or none on its disks."""
        self.preflighted, self.checks = False, ()
        if self.memory.installed:
            self.remember(installed="")

    def remember(self, **changes: object) -> None:
        """Keep something over a restart."""
        with self._lock:  # an enrolment must not be forgotten because something else is remembered meanwhile
            self.memory = self.memory.model_copy(update=changes)
            memories.save(self._path, self.memory)

    def enrol(self, assignment: MachineAssignment, token: str) -> Enrolled | Refuse:
        """Give a machine that was installed by hand its identity, once for each token."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        with self._enrolling:
            wanted = [t.get_secret_value() for t in assignment.enrolment_tokens]
            good = [t for t in wanted if hmac.compare_digest(t.encode(), token.encode())]
            if not good or digest in self.memory.tokens or expired(token, self._around.shared.now().timestamp()):
                return Refuse("BadToken", "the token is unknown, expired or used up", 60.0)
            certificate = assignment.certificate
            if certificate is None or not fits(self._identity.key, certificate):
                return Refuse("NoCertificateYet", "the machine's certificate is not signed yet", 5.0)
            self.remember(tokens=(*self.memory.tokens, digest))
        return Enrolled(certificate=certificate, key=self._identity.key_pem(), ca=self._around.ca())

    def preflight(self, assignment: MachineAssignment) -> None:
        """Check the machine; raises StopFault for the first check that failed."""
        outcome = self._around.installer.preflight(self._source(assignment), self._around.data_port(assignment.source))
        self.checks = outcome.checks
        if outcome.host_key:
            self.remember(host_key=outcome.host_key)
        if outcome.errors:
            first = outcome.errors[0]
            raise StopFault(first.message, first.remedy, reason=first.name)
        self.preflighted = True

    def install(self, assignment: MachineAssignment, progress: Callable[[str], None]) -> None:
        """Install the agent, or bring it to what the assignment wants; raises Fault."""
        if assignment.certificate is None:
            raise WaitFault("the machine's certificate is not signed yet", reason="NoCertificateYet")
        self._around.learn_disks(assignment)
        identity = AgentIdentity(
            machine_id=assignment.machine_id,
            servers=(self._around.data_port(assignment.source),),
            ca=self._around.ca(),
            certificate=assignment.certificate,
            key=self._identity.key_pem(),
            disk_names=self._around.disk_names(assignment.source),
        )
        self.preflighted = False  # the next installation is checked anew
        outcome = self._around.installer.install(self._source(assignment), identity, progress)
        self.remember(
            installed=self._fingerprint(assignment),
            version=outcome.version,
            host_key=outcome.host_key,
            uninstalled=False,
        )

    def uninstall(self, assignment: MachineAssignment) -> None:
        """Remove the agent; raises Fault."""
        self._around.installer.uninstall(self._source(assignment))
        self.remember(uninstalled=True, installed="")

    def renew(self, assignment: MachineAssignment, now: datetime) -> None:
        """Ask for another certificate once two thirds of this one's life are over."""
        certificate = assignment.certificate
        if certificate is not None and certificate != self._renewing and renewal_due(certificate, now):
            self._identity.renew()
            self._renewing = certificate

    def _fingerprint(self, assignment: MachineAssignment) -> str:
        """Return what an installation depends on, as a digest."""
        source = assignment.source
        port = self._around.data_port(source)
        parts = (
            assignment.certificate, self._around.ca(), port.host, port.port, source.address, source.port,
            source.include_disks, source.exclude_disks, self._around.installer.bundle_version(),
            *self._around.disk_names(source),
        )  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _source(self, assignment: MachineAssignment) -> Source:
        """Return the source with the host key that was seen first, if the operator has not pinned it yet."""
        source = assignment.source
        if source.host_key is None and self.memory.host_key:
            return source.model_copy(update={"host_key": self.memory.host_key})
        return source
