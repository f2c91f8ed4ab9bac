"""The process server: brings what runs here in line with the newest snapshot of the control plane, and nothing else.

It can be killed at any moment: everything that matters is in the state directory, the vault and the control plane.
"""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import structlog

from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.disknames import learn_disks
from farshore_engine.azure.tasks.scene import disk_names
from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.blocks.memory import keep_freed_memory
from farshore_engine.contract.assignment import Direction, MachineAssignment, Source
from farshore_engine.contract.controlplane import Appliance, ControlPlane, Snapshot
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.site import CloudProvider
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.processserver import memory as memories
from farshore_engine.processserver.broken import BrokenMachines
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.dataport import DataPort as Listener
from farshore_engine.processserver.encoders import FairEncoders
from farshore_engine.processserver.heartbeat import Heartbeat, Vitals
from farshore_engine.processserver.identity import ServerIdentity, data_port_context, fits, renewal_due
from farshore_engine.processserver.installer import DataPort, Installer
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_engine.processserver.machine import MachineSupervisor, Surroundings
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.recoverysite import RecoverySite
from farshore_engine.processserver.replica import Replica, Shared
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.statedir import exclusive
from farshore_engine.processserver.taskrunner import TaskRunner
from farshore_engine.processserver.tasks import TaskContext
from farshore_engine.processserver.warmreplicas import WarmReplicas
from farshore_engine.wire.messages import Enrolled, Refuse

log = structlog.get_logger(__name__)

HEARTBEAT = 5.0  # seconds
STOP_SECONDS = 10.0  # for which the end waits for machines whose vault does not answer
LOOK = 1.0  # seconds that one wait for a snapshot takes at most


@dataclass(frozen=True)
class Settings:
    """How a process server is set up on its host.

    Attributes:
        state_dir: spool, keys, disks of recovered machines; one process at a time.
        address: the name or address by which agents reach the data port.
        listen_address: where the data port listens.
        data_port: overrides the control plane's; 0 takes any free port (tests).
        metrics_port: None for no metrics.
        encoders: threads that compress and encrypt, shared by all machines.
        machines_dir: run directory of machines of this host that were not recovered but have always been here (provider
            `local`): the process server may power them off and on, and write their disks back.
        cadence: how often machines are reported.
        hub: this host at the Azure Stack Hub of its site, if it is at one.
    """

    state_dir: Path
    address: str
    listen_address: str = "0.0.0.0"
    data_port: int | None = None
    metrics_address: str = "127.0.0.1"
    metrics_port: int | None = None
    encoders: int = 2
    machines_dir: Path | None = None
    cadence: Cadence = field(default_factory=Cadence)
    hub: HubSetting = field(default_factory=HubSetting)


class ProcessServer:
    """See the module. `run` serves until told to stop."""

    def __init__(self, control_plane: ControlPlane, installer: Installer, settings: Settings) -> None:
        """Nothing happens before `run`."""
        self._control_plane = control_plane
        self._installer = installer
        self._settings = settings
        self._metrics = Metrics()
        self._budget = SpoolBudget(0)
        self._encoders = FairEncoders(settings.encoders)
        self._supervisors: dict[str, MachineSupervisor] = {}
        self._leaving: dict[str, threading.Thread] = {}
        self._broken = BrokenMachines(
            lambda name, report: control_plane.report_machine(name, report), settings.state_dir, settings.cadence
        )
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._snapshot: Snapshot | None = None
        self._certified: tuple[str, str] | None = None
        self._seen_from: dict[str, str] = {}  # our address in the network of a recovered machine, by the machine's
        self._beat = threading.Event()
        self._stopped = threading.Event()

    # -- what runs -------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            StopFault: the state directory is in use, or a key in it is damaged.
            OSError: the data port is taken.
        """
        keep_freed_memory()  # frames and packs come and go all the time
        with exclusive(self._settings.state_dir):
            if self._settings.metrics_port is not None:
                self._metrics.serve(self._settings.metrics_address, self._settings.metrics_port)
            beats = threading.Thread(target=self._beats, name="heartbeat", daemon=True)
            try:
                version = -1
                while not stop.is_set():
                    snapshot = self._control_plane.wait(version, LOOK)
                    fresh = snapshot.version != version
                    version = snapshot.version
                    if fresh:
                        changed = self._snapshot is None or snapshot.appliance != self._snapshot.appliance
                        self._snapshot = snapshot
                        self._serve_data_port(snapshot.appliance)
                        if not beats.is_alive():
                            beats.start()
                        if changed:
                            self._beat.set()
                        self._tasks.take(snapshot.tasks)
                        self._recovery_site.take(snapshot.recoverable)
                        self._replicas.take(snapshot.recoverable)
                    self._reconcile(snapshot)
            finally:
                self._shut_down()
                if beats.is_alive():
                    beats.join()

    @property
    def data_port(self) -> int:
        """The port that is listened on, 0 before it is."""
        return self._listener.port if self._listener is not None else 0

    def replica_of(self, machine_id: str) -> Replica | Refuse:
        """See `dataport.Directory`."""
        supervisor = self._supervisor(machine_id)
        if supervisor is None:
            return Refuse("NotAssigned", f"{machine_id} is not assigned to this process server", 30.0)
        return supervisor.replica_of_agent()

    def enrol(self, machine_id: str, token: str) -> Enrolled | Refuse:
        """See `dataport.Directory`."""
        supervisor = self._supervisor(machine_id)
        if supervisor is None:
            return Refuse("NotAssigned", f"{machine_id} is not assigned to this process server", 30.0)
        return supervisor.enrol(token)

    # -- reconciliation --------------------------------------------------------------------------------------------

    def _reconcile(self, snapshot: Snapshot) -> None:
        wanted = {machine.name: machine for machine in snapshot.machines}
        broken = {machine.name: machine for machine in snapshot.broken}
        with self._lock:
            gone = [name for name in self._supervisors if name not in wanted and name not in broken]
        for name in gone:
            self._let_go(name, forget=True)
        for name in [n for n, thread in self._leaving.items() if not thread.is_alive()]:
            del self._leaving[name]
        for name, assignment in wanted.items():
            self._serve_machine(name, assignment)
        for name, trouble in broken.items():
            if name not in self._supervisors:  # one that is served goes on with what it was assigned last
                self._broken.report(trouble, self._appliance.name, _now(), time.monotonic())
        self._broken.keep(broken)

    def _serve_machine(self, name: str, assignment: MachineAssignment) -> None:
        with self._lock:
            supervisor = self._supervisors.get(name)
        if supervisor is not None and supervisor.assignment.machine_id == assignment.machine_id:
            supervisor.assign(assignment)
        elif supervisor is not None:
            self._let_go(name, forget=True)
        elif name not in self._leaving:
            supervisor = MachineSupervisor(assignment, self._surroundings)
            with self._lock:
                self._supervisors[name] = supervisor
            supervisor.start()

    def _let_go(self, name: str, *, forget: bool) -> None:
        """Stop a machine's supervisor beside the loop, which must not wait for an installation to end."""
        with self._lock:
            supervisor = self._supervisors.pop(name)

        def leave() -> None:
            supervisor.stop()
            if forget:
                state, machine = self._settings.state_dir, supervisor.assignment.machine_id
                for directory in (state / "spool" / machine, memories.directory(state, machine)):
                    shutil.rmtree(directory, ignore_errors=True)
            log.info("machine is no longer served", machine=supervisor.assignment.machine_id)

        self._leaving[name] = threading.Thread(target=leave, name=f"leave-{name}", daemon=True)
        self._leaving[name].start()

    def _serve_data_port(self, appliance: Appliance) -> None:
        self._budget.resize(appliance.spool_bytes)
        port = self._settings.data_port if self._settings.data_port is not None else appliance.data_port
        if self._listener is not None and port not in (0, self._listener.port):
            self._listener.close()
            self._listener = None
        if self._listener is None:
            self._listener = Listener(self._settings.listen_address, port, self, self._metrics)
            self._listener.start()
            self._certified = None
            log.info("data port open", port=self._listener.port)
        certificate = appliance.certificate
        if certificate is None or (certificate, appliance.ca) == self._certified:
            return
        if not fits(self._identity.key, certificate):
            log.warning("the certificate was made for another key; waiting for one that fits")
            return
        self._listener.use(data_port_context(self._identity.key_file, certificate, appliance.ca))
        self._certified = (certificate, appliance.ca)
        log.info("data port certificate in use")

    # -- heartbeat -------------------------------------------------------------------------------------------------

    def _beats(self) -> None:
        heartbeat = Heartbeat(self._identity, self._budget, self._metrics, _now)
        renewed_for = ""
        while not self._stopped.is_set():
            appliance = self._appliance
            try:
                certificate = appliance.certificate
                if certificate and certificate != renewed_for and renewal_due(certificate, _now()):
                    self._identity.renew()
                    renewed_for = certificate
                recovery = self._recovery_site.report().model_copy(update={"replicas": self._replicas.report()})
                vitals = Vitals(self._settings.address, self.data_port, len(self._supervisors), recovery)
                self._control_plane.report_appliance(heartbeat.report(appliance, vitals, time.monotonic()))
            except WaitFault as fault:
                log.warning("heartbeat put off", message=fault.message)
            except Exception:  # the outermost loop of this thread: without it every machine would be taken away
                log.error("heartbeat failed", exc_info=True)
            self._beat.wait(HEARTBEAT)
            self._beat.clear()

    def _shut_down(self) -> None:
        self._stopped.set()
        self._beat.set()
        self._tasks.stop()
        self._recovery_site.stop()
        self._replicas.stop()
        with self._lock:
            names = list(self._supervisors)
        for name in names:
            self._let_go(name, forget=False)
        if self._listener is not None:
            self._listener.close()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._leaving.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        late = [name for name, thread in self._leaving.items() if thread.is_alive()]
        if late:  # what they have is durable: a process that is killed loses no more
            log.warning("the vault holds the end up: some machines were not closed in order", machines=late)
        self._encoders.shutdown(wait=not late, cancel_futures=True)

    # -- parts -----------------------------------------------------------------------------------------------------

    @property
    def _appliance(self) -> Appliance:
        if self._snapshot is None:
            raise RuntimeError("there is no snapshot yet")
        return self._snapshot.appliance

    @cached_property
    def _identity(self) -> ServerIdentity:
        return ServerIdentity(self._settings.state_dir, self._appliance.name)

    @cached_property
    def _surroundings(self) -> Surroundings:
        shared = Shared(
            name=self._appliance.name,
            budget=self._budget,
            encoders=self._encoders,
            metrics=self._metrics,
            bandwidth_limit=lambda: self._appliance.bandwidth_limit,
        )
        return Surroundings(
            state_dir=self._settings.state_dir,
            shared=shared,
            installer=self._installer,
            ca=lambda: self._appliance.ca,
            data_port=self._reached_by,
            report=self._control_plane.report_machine,
            cadence=self._settings.cadence,
            disk_names=self._disk_names,
            learn_disks=self._learn_disks,
        )

    def _disk_names(self, source: Source) -> tuple[tuple[str, str], ...]:
        """Return what tells a recovered machine's disks by their ids, wherever it was recovered by us."""
        return self._runtime.disk_names(source.address) or disk_names(
            self._settings.state_dir / "machines", source.address
        )

    def _learn_disks(self, assignment: MachineAssignment) -> None:
        """Ask the cloud which disk of a recovered machine is which, where who recovered it is gone with its notes."""
        if assignment.direction is not Direction.REVERSE or self._disk_names(assignment.source):
            return
        recoverable = self._snapshot.recoverable if self._snapshot is not None else ()
        target = next((one for one in recoverable if one.machine_id == assignment.machine_id), None)
        if target is not None and target.site is not None and target.site.provider is CloudProvider.AZURE:
            machines = self._settings.state_dir / "machines"
            try:
                learn_disks(cloud_of(target.site), target, assignment.source.address, machines)
            except StopFault as fault:  # its disks are copied anew, which takes long and is right
                log.warning("nobody tells the disks apart", machine=assignment.machine_id, why=str(fault))

    def _reached_by(self, source: Source) -> DataPort:
        """Return where the machine reaches us: a recovered one sees nothing but this host's end of its network."""
        if source.address not in self._seen_from:
            found = self._runtime.host_seen_from(source.address)
            if found is None:
                return DataPort(self._settings.address, self.data_port)
            self._seen_from[source.address] = found
        return DataPort(self._seen_from[source.address], self.data_port)

    @cached_property
    def _runtime(self) -> MachineRuntime:
        state = self._settings.state_dir
        return MachineRuntime(state / "runtime", masked=(str(state),))

    @cached_property
    def _recovery_site(self) -> RecoverySite:
        return RecoverySite(self._runtime, self._settings.state_dir)

    @cached_property
    def _replicas(self) -> WarmReplicas:
        return WarmReplicas(lambda: self._appliance.name, lambda: self._tasks.busy(), self._metrics)

    @cached_property
    def _tasks(self) -> TaskRunner:
        settings, state = self._settings, self._settings.state_dir
        context = TaskContext(
            machines_dir=state / "machines",
            runtime=self._runtime,
            installer=self._installer,
            data_port=lambda: DataPort(self._settings.address, self.data_port),
            take_point=self._take_point,
            take_last=self._take_last,
            sources=MachineRuntime(settings.machines_dir) if settings.machines_dir is not None else None,
            now=_now,
            progress=lambda percent, sentence: None,
            hub=settings.hub,
        )
        return TaskRunner(self._control_plane, context)

    def _take_point(self, machine_id: str, timeout: float) -> RecoveryPoint:
        supervisor = self._supervisor(machine_id)
        if supervisor is None:
            raise WaitFault(f"{machine_id} is not assigned to this process server", reason="NotAssigned")
        return supervisor.take_point(timeout)

    def _take_last(self, machine_id: str, hold: float, power_off: bool, timeout: float) -> HeldPoint:
        supervisor = self._supervisor(machine_id)
        if supervisor is None:
            raise WaitFault(f"{machine_id} is not assigned to this process server", reason="NotAssigned")
        return supervisor.take_last(hold, power_off, timeout)

    def _supervisor(self, machine_id: str) -> MachineSupervisor | None:
        with self._lock:
            return next((s for s in self._supervisors.values() if s.assignment.machine_id == machine_id), None)


def _now() -> datetime:
    return datetime.now(UTC)
