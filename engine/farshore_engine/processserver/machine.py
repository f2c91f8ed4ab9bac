"""The supervisor of one machine: a thread that takes one step after another towards what the assignment wants."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from datetime import datetime

import structlog

from farshore_engine.contract.assignment import Desired, MachineAssignment
from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import KeyReport, ReplicationReport
from farshore_engine.processserver.deployment import Deployment
from farshore_engine.processserver.deployment import Surroundings as Surroundings
from farshore_engine.processserver.keeper import PointKeeper, Points
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_engine.processserver.machinereport import Known, report_of
from farshore_engine.processserver.opening import open_replica
from farshore_engine.processserver.replica import Link, Replica
from farshore_engine.processserver.reporting import Reporter
from farshore_engine.processserver.steps import Decision, Failure, LocalState, Step, next_step
from farshore_engine.vault.chain import Fenced
from farshore_engine.vault.durability import StoreLost
from farshore_engine.vault.writer import DiskSpoiled
from farshore_engine.wire.messages import Enrolled, Refuse

log = structlog.get_logger(__name__)

TICK = 1.0  # seconds between two looks when nothing happens
AFTER_ERROR = 5.0  # the same when a look failed
REASSIGNED = "Reassigned"  # reason of the fault with which a replica is opened anew, not a failure


class MachineSupervisor:
    """See the module. `assign`, `replica_of_agent` and `take_point` are called from other threads."""

    def __init__(self, assignment: MachineAssignment, around: Surroundings) -> None:
        """Nothing happens before `start`."""
        self._assignment = assignment
        self._around = around
        self._deployment = Deployment(assignment.machine_id, around)
        self._wake = threading.Condition()
        self._stopping = False
        self._replica: Replica | None = None
        self._keeper: PointKeeper | None = None
        self._points = Points()
        self._link = Link()
        self._failure: Failure | None = None
        self._doing = ""
        self._vault_epoch = 0
        self._keys: KeyReport | None = None  # how they stood when the vault was open last
        self._restart: frozenset[str] = frozenset()
        self._doubt = False  # the store lost what it had acknowledged
        self._away_since: datetime | None = around.shared.now()
        self._reporter = Reporter(lambda r: around.report(assignment.name, r), around.cadence, random.Random())
        self._thread = threading.Thread(target=self._run, name=f"machine-{assignment.name}", daemon=True)

    @property
    def assignment(self) -> MachineAssignment:
        """What is wanted now."""
        return self._assignment

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait; the agent and what is in the spool stay."""
        with self._wake:
            self._stopping = True
            replica = self._replica
            self._wake.notify_all()
        if replica is not None:  # at once, also while the thread pushes an agent: the machine may be another's by now
            replica.close("the machine is no longer served here")
        self._thread.join()

    def assign(self, assignment: MachineAssignment) -> None:
        """Take over a changed assignment."""
        with self._wake:
            before, self._assignment = self._assignment, assignment
            if before == assignment:
                return
            if (before.epoch, before.vault) != (assignment.epoch, assignment.vault):
                self._reopen("the assignment changed")
            elif self._replica is not None:
                self._replica.update(assignment)
            if assignment.desired in (Desired.STOP, Desired.UNINSTALL) and self._replica is not None:
                self._replica.disconnect("replication ends")  # at once, also while the thread pushes an agent
            if _relevant(before) != _relevant(assignment):
                self._failure = None
            if before.source != assignment.source:
                self._deployment.source_changed()
            self._wake.notify_all()

    def replica_of_agent(self) -> Replica | Refuse:
        """Return the replication for an agent that dialled in, or why it must wait."""
        with self._wake:
            if self._replica is not None and not self._replica.closed:
                return self._replica
            message = self._failure.fault.message if self._failure else "replication is not open yet"
            return Refuse("NotReady", message, 5.0)

    def take_point(self, timeout: float) -> RecoveryPoint:
        """Have a point taken now and wait for its commit; see `PointKeeper.take_now`."""
        with self._wake:
            keeper = self._keeper
        if keeper is None:
            raise WaitFault(f"replication of {self._assignment.name} is not open yet", reason="NotReady")
        return keeper.take_now(timeout)

    def take_last(self, hold: float, power_off: bool, timeout: float) -> HeldPoint:
        """Have the machine's last point made; see `PointKeeper.take_last`."""
        with self._wake:
            keeper = self._keeper
        if keeper is None:
            raise WaitFault(f"replication of {self._assignment.name} is not open yet", reason="NotReady")
        return keeper.take_last(hold, power_off, timeout)

    def enrol(self, token: str) -> Enrolled | Refuse:
        """Give a machine that was installed by hand its identity, once for each token."""
        return self._deployment.enrol(self._assignment, token)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    break
            try:
                pause = 0.0 if self._turn() else TICK
            except Exception:  # the outermost loop of a machine: a full disk, say, must not end its replication
                log.error("supervision failed, and goes on", machine=self._assignment.machine_id, exc_info=True)
                pause = AFTER_ERROR
            with self._wake:
                if pause and not self._stopping:
                    self._wake.wait(pause)
        self._close("the process server stops")

    def _turn(self) -> bool:
        """Look, report and take a step; return whether there was one to take."""
        self._look_after_replica()
        now = self._around.shared.now()
        assignment = self._assignment
        self._deployment.renew(assignment, now)
        if assignment.desired is Desired.STOP:
            self._deployment.moved()
        decision = next_step(assignment, self._local(assignment), now)
        self._offer(decision)
        if decision.step is not Step.NONE:
            self._take(decision.step, assignment)
        return decision.step is not Step.NONE

    def _take(self, step: Step, assignment: MachineAssignment) -> None:
        try:
            match step:
                case Step.OPEN:
                    self._open(assignment)
                case Step.CLOSE:
                    self._close("replication ends")
                case Step.PREFLIGHT:
                    self._deployment.preflight(assignment)
                case Step.INSTALL:
                    self._install(assignment)
                case Step.UNINSTALL:
                    self._deployment.uninstall(assignment)
            self._failure = None
        except Fault as fault:
            self._fail(step, fault)
        except Exception as error:  # the outermost loop of a machine: it must go on whatever a step met
            log.error("step failed unexpectedly", machine=assignment.machine_id, step=step.value, exc_info=True)
            self._fail(step, WaitFault(f"{step.value} failed: {error}", reason=type(error).__name__))
        finally:
            self._doing = ""

    def _fail(self, step: Step, fault: Fault) -> None:
        self._failure = Failure.after(self._failure, step, fault, self._around.shared.now())
        self._around.shared.metrics.faults.labels(self._assignment.machine_id).inc()
        log.warning("step failed", machine=self._assignment.machine_id, step=step.value, message=fault.message)

    def _open(self, assignment: MachineAssignment) -> None:
        spool = self._around.state_dir / "spool" / assignment.machine_id
        try:
            replica = open_replica(assignment, spool, self._around.shared, self._restart, doubt=self._doubt)
        except StoreLost:
            self._doubt = True
            raise
        except Fenced as fault:
            # Another writer with our own epoch fences us too; one more is what it takes to go on.
            self._vault_epoch = max(fault.epoch, assignment.epoch + 1)
            raise
        self._restart, self._doubt = frozenset(), False  # the spool remembers them from here on
        self._vault_epoch = assignment.epoch
        self._keys = replica.vault.key_report
        self._points = Points.of(replica.vault.catalogue().summaries())
        keeper = PointKeeper(replica, self._points)
        with self._wake:
            self._replica, self._keeper = replica, keeper
        keeper.start()
        if self._deployment.memory.uninstalled:
            self._deployment.remember(uninstalled=False)

    def _install(self, assignment: MachineAssignment) -> None:
        self._deployment.install(assignment, self._progress)
        if self._away_since is not None:
            self._away_since = self._around.shared.now()

    def _progress(self, sentence: str) -> None:
        self._doing = sentence
        assignment = self._assignment
        self._offer(next_step(assignment, self._local(assignment), self._around.shared.now()))

    def _look_after_replica(self) -> None:
        """Notice what happened in the replica's threads; close what failed, so that it is opened anew."""
        replica, keeper = self._replica, self._keeper
        if replica is None or keeper is None:
            return
        if replica.closed:
            self._close("replication ends")
            return
        with replica.changed:
            self._link, self._points = replica.link, keeper.points
            first_copy = replica.first_copy
        if self._link.connected:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = self._around.shared.now()
        if first_copy is not None and self._deployment.memory.initial_seconds == 0:
            self._deployment.remember(initial_bytes=first_copy[0], initial_seconds=max(first_copy[1], 0.001))
        error = keeper.stopped_by
        if error is None:
            return
        if isinstance(error, WaitFault) and error.reason == REASSIGNED:
            self._close(error.message)
            return
        fault = error if isinstance(error, Fault) else WaitFault(f"replication failed: {error}", reason="Internal")
        self._close(fault.message)
        self._doubt |= isinstance(fault, StoreLost)
        if isinstance(fault, DiskSpoiled):
            self._restart |= {fault.disk}
        if isinstance(fault, Fenced):
            self._vault_epoch = max(fault.epoch, self._assignment.epoch + 1)
        self._fail(Step.OPEN, fault)

    def _close(self, reason: str) -> None:
        with self._wake:
            replica, keeper = self._replica, self._keeper
            self._replica = self._keeper = None
        if replica is not None:
            replica.close(reason)
        if keeper is not None:
            keeper.join()
            self._points = keeper.points
        self._link = replace(self._link, connected=False, synced=False)
        self._away_since = self._away_since or self._around.shared.now()

    def _reopen(self, reason: str) -> None:
        keeper = self._keeper
        if keeper is not None and keeper.stopped_by is None:
            keeper.stopped_by = WaitFault(reason, reason=REASSIGNED)

    # -- what is known ---------------------------------------------------------------------------------------------

    def _local(self, assignment: MachineAssignment) -> LocalState:
        return LocalState(
            opened=self._replica is not None,
            certified=self._deployment.certified(assignment),
            preflighted=self._deployment.preflighted,
            installed=self._deployment.installed(assignment),
            uninstalled=self._deployment.memory.uninstalled,
            away_since=self._away_since,
            mode=self._link.mode,
            synced=self._link.synced,
            failure=self._failure,
            missing=self._replica.missing if self._replica is not None else (),
        )

    def _offer(self, decision: Decision) -> None:
        self._reporter.offer(self._report(decision), self._around.shared.monotonic())

    def _report(self, decision: Decision) -> ReplicationReport:
        known = Known(
            assignment=self._assignment,
            decision=decision,
            replica=self._replica,
            keeper=self._keeper,
            link=self._link,
            points=self._points,
            memory=self._deployment.memory,
            checks=self._deployment.checks,
            failure=self._failure,
            doing=self._doing,
            vault_epoch=self._vault_epoch,
            keys=self._keys,
            certificate_request=self._deployment.certificate_request,
        )
        return report_of(known, self._around.shared, self._around.shared.now())


def _relevant(assignment: MachineAssignment) -> tuple[object, ...]:
    """What, when it changes, makes an earlier failure worth trying again at once."""
    return (assignment.source, assignment.vault, assignment.epoch, assignment.desired, assignment.certificate)
