"""A process server without machines: a real registered client of the API whose replication and tasks the test plays.

What it may read and write is what the operator granted; only what it says of machines is made up.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.cluster.api_objects import Caller
from tests.cluster.operator_process import Installation
from tests.cluster.people import can
from tests.cluster.waiting import eventually

from farshore_engine.contract.assignment import Desired, MachineAssignment
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.points import Consistency, RecoveryPoint, point_name
from farshore_engine.contract.replication import AgentReport, ApplianceReport, ReplicationReport, SpoolReport, State
from farshore_engine.contract.tasks import (
    JournalledRun,
    JournalledStep,
    TaskAssignment,
    TaskKind,
    TaskPhase,
    TaskReport,
    TaskResult,
)
from farshore_engine.processserver.identity import ServerIdentity, machine_request, private_key
from farshore_operator.decide.naming import registrar
from farshore_operator.kube import connection
from farshore_operator.kube.appliance.control import KubernetesControlPlane
from farshore_operator.kube.appliance.credentials import MANAGER
from farshore_operator.kube.appliance.registering import Candidate, register
from farshore_operator.kube.appliance.statedir import StateDir
from farshore_operator.kube.client import Client
from farshore_operator.kube.registrationkey import RegistrationKey, issue

STATES = {Desired.REPLICATE: State.REPLICATING, Desired.PAUSE: State.PAUSED, Desired.STOP: State.STOPPED}


def issue_key(world: Installation, namespace: str, site: str) -> RegistrationKey:
    """Issue a registration key as the administrator, as soon as it is good for something."""
    who = Caller.account(world.plane, namespace, registrar(site))
    eventually(lambda: can(who, namespace, "create", "processservers"), f"the registrar of {site} has no rights")
    return issue(world.admin, world.authority, namespace, site, datetime.now(UTC))


def candidate(state: Path, name: str) -> Candidate:
    """Return what an appliance says of itself when it registers."""
    return Candidate(name, "test", "127.0.0.1", 9443, 0, ServerIdentity(state, name).request, can_run_machines=True)


def registering_client(key: RegistrationKey) -> Client:
    """Speak with the key's token."""
    return Client(connection.with_token(key.server, key.authority, key.token), MANAGER)


class PlayedVault:
    """What played appliances leave in the vault: journals of runs by machine, and the epoch of each chain."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, dict[str, JournalledRun]] = {}
        self.epochs: dict[str, int] = {}

    def begin(self, task: TaskAssignment) -> None:
        entry, machine = task.input.journal, task.input.machine_id
        if entry is not None:
            with self._lock:
                known = self._runs.setdefault(machine, {})
                known.setdefault(entry.run, JournalledRun(run=entry.run, spec=entry.spec, begun_at=datetime.now(UTC)))

    def end(self, task: TaskAssignment, report: TaskReport) -> None:
        entry, machine = task.input.journal, task.input.machine_id
        if entry is None:
            return
        step = JournalledStep(
            step=entry.step,
            phase=report.phase,
            message=report.message,
            at=datetime.now(UTC),
            result=report.result.model_dump_json(by_alias=True) if report.result else "",
        )
        with self._lock:
            run = self._runs[machine][entry.run]
            self._runs[machine][entry.run] = run.model_copy(update={"steps": (*run.steps, step)})

    def write(self, machine: str, epoch: int) -> None:
        with self._lock:
            self.epochs[machine] = max(self.epochs.get(machine, 0), epoch)

    def runs(self, machine: str) -> tuple[JournalledRun, ...]:
        with self._lock:
            return tuple(self._runs.get(machine, {}).values())


class PlayedAppliance:
    """Registers on entry and plays until exit.

    Attributes:
        done: how often each kind of task was carried out.
        hold: kinds of task that stay Running while they are in here.
        fail: kinds of task that fail, with their message.
        unreachable: machines whose agent cannot be removed.
        vault: what is in the vault; appliances of one test share it.
        seen: the last assignment of each machine.
    """

    def __init__(
        self,
        world: Installation,
        namespace: str,
        site: str,
        name: str,
        directory: Path,
        vault: PlayedVault | None = None,
    ) -> None:
        self.name, self.namespace = name, namespace
        self.state = directory / name
        self._world, self._site = world, site
        self.done: Counter[TaskKind] = Counter()
        self.hold: set[TaskKind] = set()
        self.fail: dict[TaskKind, str] = {}
        self.unreachable: set[str] = set()
        self.vault_epoch: dict[str, int] = {}
        self.vault = vault or PlayedVault()
        self.seen: dict[str, MachineAssignment] = {}
        self._points: dict[tuple[str, int], RecoveryPoint] = {}
        self._reported: dict[str, object] = {}
        self._ended: set[str] = set()
        self._stop = threading.Event()

    def __enter__(self) -> PlayedAppliance:
        key = issue_key(self._world, self.namespace, self._site)
        kept = StateDir(self.state)
        registration = register(
            registering_client(key), key, candidate(self.state, self.name), kept, lambda: datetime.now(UTC)
        )
        self.control = KubernetesControlPlane(registration, kept)
        self.control.start(240)
        self._thread = threading.Thread(target=self._play, name=f"play-{self.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Fall silent, as an appliance that lost its power."""
        self._stop.set()
        self._thread.join(60)
        self.control.stop()

    @property
    def client(self) -> Client:
        """The appliance's own client."""
        return self.control._client

    def _play(self) -> None:
        while not self._stop.is_set():
            snapshot = self.control.wait(0, 0.1)
            for machine in snapshot.machines:
                self._machine(machine)
            self._tasks(snapshot.tasks)
            self.control.report_appliance(
                ApplianceReport(
                    version="test",
                    address="127.0.0.1",
                    data_port=9443,
                    last_contact=datetime.now(UTC),
                    clock_skew_seconds=0.0,
                    spool=SpoolReport(used_bytes=0, size_bytes=1),
                    certificate_request=ServerIdentity(self.state, self.name).request,
                    can_run_machines=True,
                    machines=len(snapshot.machines),
                )
            )
            self._stop.wait(0.2)

    def _tasks(self, tasks: tuple[TaskAssignment, ...]) -> None:
        for task in tasks:
            with suppress(WaitFault):  # it is sent again in the next round
                self._task(task)

    def _machine(self, machine: MachineAssignment) -> None:
        self.seen[machine.name] = machine
        moment = datetime.now(UTC) - timedelta(seconds=10)
        if machine.desired is Desired.REPLICATE:
            self._points.setdefault((machine.name, machine.epoch), _point(moment, machine.epoch, machine.epoch))
            self.vault.write(machine.machine_id, machine.epoch)
        epochs = [epoch for name, epoch in self._points if name == machine.name]
        point = self._points[(machine.name, max(epochs))] if epochs else None
        state = STATES.get(machine.desired, State.UNINSTALLED)
        if machine.desired is Desired.UNINSTALL and machine.name in self.unreachable:
            state = State.BLOCKED
        key = private_key(self.state / "machines" / machine.name / "key.pem")
        told = (machine.desired, machine.epoch, machine.certificate, self.vault_epoch.get(machine.name))
        if self._reported.get(machine.name) == told:
            return
        self._reported[machine.name] = told
        self.control.report_machine(
            machine.name,
            ReplicationReport(
                process_server=self.name,
                epoch=machine.epoch,
                state=state,
                message=f"played: {state}",
                agent=AgentReport(
                    version="test", connected=True, certificate_request=machine_request(key, machine.machine_id)
                ),
                last_point=point,
                recent_points=(point,) if point else (),
                point_count=1 if point else 0,
                vault_epoch=self.vault_epoch.get(machine.name, machine.epoch),
            ),
        )

    def _task(self, task: TaskAssignment) -> None:
        if task.kind in self.hold:
            if task.report is None or task.report.phase is not TaskPhase.RUNNING:
                self.control.report_task(task.name, TaskReport(phase=TaskPhase.RUNNING, percent=50, message="held"))
            return
        if self._reported.get(task.name):
            return
        self.vault.begin(task)
        if task.kind in self.fail:
            report = TaskReport(phase=TaskPhase.FAILED, message=self.fail[task.kind], remedy="Ask the test")
        else:
            report = TaskReport(phase=TaskPhase.SUCCEEDED, result=self._result(task))
        if task.name not in self._ended:
            self.vault.end(task, report)
            self._ended.add(task.name)
            self.done[task.kind] += 1  # before anybody hears of it, and once, however often the report is sent
        self.control.report_task(task.name, report)
        self._reported[task.name] = True

    def _result(self, task: TaskAssignment) -> TaskResult:
        match task.kind:
            case TaskKind.SELECT_POINT | TaskKind.COMMIT_SPOOL:
                return TaskResult(point=_point(datetime.now(UTC) - timedelta(seconds=10), 1), slot=1)
            case TaskKind.FINAL_POINT:
                return TaskResult(point=_point(datetime.now(UTC), 9, 1), slot=9, confirmed=True)
            case TaskKind.FENCE:
                self.vault.write(task.input.machine_id, task.input.epoch)
                return TaskResult(slot=2)
            case TaskKind.READ_JOURNAL:
                machine = task.input.machine_id
                return TaskResult(runs=self.vault.runs(machine), vault_epoch=self.vault.epochs.get(machine))
            case TaskKind.WRITE_BACK:
                return TaskResult(bytes_moved=64, bytes_written=128, disk_bytes=8192, disks_verified=True)
            case TaskKind.START_SOURCE:
                return TaskResult(machine_kind="namespace", address="10.0.0.4", port=22)
            case TaskKind.HYDRATE:
                return TaskResult(bytes_moved=4096, disk_bytes=8192, disks_verified=True)
            case TaskKind.START_MACHINE:
                return TaskResult(machine_kind="namespace", address="10.160.0.2", port=22)
            case TaskKind.PROBE_MACHINE:
                return TaskResult(address="10.160.0.2", port=22, evidence="SSH-2.0-played")
            case TaskKind.CLEAN_UP:
                return TaskResult(removed=(task.input.machine_name,), looked_for=("everything",))
            case TaskKind.WRITE_REPORT:
                return TaskResult(report_name=f"{task.run}/000000")
            case _:
                return TaskResult()


def _point(time: datetime, slot: int, epoch: int = 1) -> RecoveryPoint:
    moment = time.replace(microsecond=0)
    name = point_name(moment, slot)
    return RecoveryPoint(name=name, slot=slot, time=moment, consistency=Consistency.CRASH, epoch=epoch)
