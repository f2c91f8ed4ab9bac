"""The `ControlPlane` of a process server: what the API wants of it as snapshots, its reports, its heartbeat."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import structlog

from farshore_engine.contract.controlplane import Appliance, Snapshot
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.replication import ApplianceReport, RecoveryReport, ReplicationReport
from farshore_engine.contract.tasks import TaskPhase, TaskReport
from farshore_operator.api import ProcessServer
from farshore_operator.api.processserver import REFRESH_ANNOTATION
from farshore_operator.crypto.sealing import public_key
from farshore_operator.decide.bandwidth import limit_at
from farshore_operator.kube.appliance.credentials import Credentials
from farshore_operator.kube.appliance.mirror import Mirror
from farshore_operator.kube.appliance.reports import Reports, dump
from farshore_operator.kube.appliance.resolve import Resolved, Resolver
from farshore_operator.kube.appliance.secretvalues import SecretValues
from farshore_operator.kube.appliance.statedir import Registration, StateDir
from farshore_operator.kube.faults import NotFound
from farshore_operator.kube.leases import beat
from farshore_operator.kube.resources import PROCESS_SERVER, PROTECTED_VM, TASK

HEARTBEAT = 5.0
REBUILD = 5.0
"""Seconds after which a snapshot is made anew even if no watch told of a change: Secrets are not watched."""
SETTLE = 0.05
SKEW_EVERY = 60.0
PUBLISH_EVERY = 15.0
"""Seconds between two reports that tell nothing new; the Lease, not they, is the heartbeat."""
TROUBLED = 1.0
"""Seconds after which what could not be resolved is tried again: a right is about to be granted."""
ENGINE_SILENT = 120.0
"""Seconds without a call of the engine after which the heartbeat stops: a process that hangs is not alive."""

log = structlog.get_logger(__name__)


class KubernetesControlPlane:
    """Implements `farshore_engine.contract.controlplane.ControlPlane`. Start it before use, stop it at the end."""

    def __init__(self, registration: Registration, state: StateDir) -> None:
        self._registration = registration
        self._state = state
        self._credentials = Credentials(registration, state)
        self._client = self._credentials.client
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._mirror = Mirror(self._client, registration.namespace, self._dirty.set)
        self._reports = Reports(self._client, registration.namespace, self._mirror.learn)
        self._secrets = SecretValues(self._client, registration.namespace)
        self._resolver = Resolver(registration.name, self._mirror, self._secrets, _now)
        self._condition = threading.Condition()
        self._snapshot: Snapshot | None = None
        self._last_report: ApplianceReport | None = None
        self._refreshed = ""
        self._skew = 0.0
        self._skew_at = float("-inf")
        self._called = time.monotonic()
        self._published_at = float("-inf")
        self._threads = [
            threading.Thread(target=self._rebuild_forever, name="snapshots", daemon=True),
            threading.Thread(target=self._beat_forever, name="heartbeat", daemon=True),
        ]

    def start(self, timeout: float = 60.0) -> None:
        """Begin to watch, and wait until a first snapshot is there.

        Raises:
            WaitFault: that takes longer than `timeout` seconds.
        """
        self._mirror.start()
        self._reports.start()
        for thread in self._threads:
            thread.start()
        with self._condition:
            if not self._condition.wait_for(lambda: self._snapshot is not None, timeout):
                raise WaitFault(
                    f"the Kubernetes API at {self._registration.server} has not told within {timeout:.0f} s what to do",
                    "Check the network, and that the process server is still registered",
                    reason="APIUnreachable",
                )

    def stop(self) -> None:
        """Send the last reports and stop."""
        self._stop.set()
        self._dirty.set()
        self._mirror.stop()
        self._reports.stop()

    def wait(self, after: int, timeout: float) -> Snapshot:
        """Return the newest snapshot, at once if its version is above `after`, else after at most `timeout` seconds."""
        self._called = time.monotonic()
        with self._condition:
            self._condition.wait_for(lambda: self._snapshot is not None and self._snapshot.version > after, timeout)
            if self._snapshot is None:
                raise WaitFault("there is no snapshot yet: the control plane was not started")
            return self._snapshot

    def report_machine(self, name: str, report: ReplicationReport) -> None:
        """Publish the replication report of a machine."""
        self._called = time.monotonic()
        self._reports.put(PROTECTED_VM, name, "replication", report)

    def report_task(self, name: str, report: TaskReport) -> None:
        """Publish a task's report, and return when it is published.

        Raises:
            WaitFault: the control plane is away; the caller repeats.
        """
        self._called = time.monotonic()
        try:
            self._reports.send(TASK, name, dump(report))
        except NotFound:
            log.info("a task was called off while it was carried out", task=name)
        except StopFault as fault:
            raise WaitFault(fault.message, fault.remedy, reason=fault.reason) from fault

    def report_appliance(self, report: ApplianceReport) -> None:
        """Publish the appliance's report, with what is known here: contact, clock, keys, refresh."""
        self._called = time.monotonic()
        before, self._last_report = self._last_report, report
        silent = time.monotonic() - self._published_at
        if before is None or _weighty(before) != _weighty(report) or silent > PUBLISH_EVERY:
            self._publish(report)

    def _publish(self, report: ApplianceReport) -> None:
        self._published_at = time.monotonic()
        update = {
            "last_contact": _now(),
            "clock_skew_seconds": round(self._skew, 1),
            "public_key": public_key(self._state.sealing_key()),
            "refreshed": self._refreshed,
        }
        self._reports.put(PROCESS_SERVER, self._registration.name, "appliance", report.model_copy(update=update))

    def _rebuild_forever(self) -> None:
        self._mirror.complete(timeout=600.0)
        while not self._stop.is_set():
            troubled = True
            try:
                troubled = self._rebuild()
            except Fault as fault:
                log.warning("the snapshot could not be made", cause=str(fault))
            except Exception:  # the last snapshot stays good; a thread that ends would freeze it for ever
                log.exception("the snapshot could not be made")
            self._dirty.wait(TROUBLED if troubled else REBUILD)
            if self._dirty.is_set():
                self._stop.wait(SETTLE)  # changes come in bursts
            self._dirty.clear()

    def _rebuild(self) -> bool:
        """Make the snapshot anew; True if something in it could not be resolved."""
        server = self._mirror.find(ProcessServer, self._registration.name)
        if server is None:
            log.error("this ProcessServer does not exist any more: register it again", name=self._registration.name)
            return False
        self._refresh(server)
        resolved = self._resolver.resolve()
        self._tell_troubled(resolved)
        appliance = self._appliance(server)
        with self._condition:
            old = self._snapshot
            parts = (appliance, resolved.machines, resolved.broken, resolved.tasks, resolved.recoverable)
            if old is None or (old.appliance, old.machines, old.broken, old.tasks, old.recoverable) != parts:
                self._snapshot = Snapshot((old.version if old else 0) + 1, *parts)
                self._condition.notify_all()
        return bool(resolved.broken or resolved.troubled)

    def _appliance(self, server: ProcessServer) -> Appliance:
        given = server.status.registration
        return Appliance(
            name=self._registration.name,
            site=server.spec.site_ref.name,
            data_port=server.spec.data_port,
            spool_bytes=server.spec.spool.size,
            bandwidth_limit=limit_at(server.spec.bandwidth, _now()),
            ca=(given.ca if given else None) or "",
            certificate=given.certificate if given else None,
            refresh=server.metadata.annotations.get(REFRESH_ANNOTATION, ""),
        )

    def _tell_troubled(self, resolved: Resolved) -> None:
        """Say in a task's status why it cannot be begun; once, until that changes."""
        for trouble in resolved.troubled:
            told = trouble.task.status
            if told is None or (told.message, told.remedy) != (trouble.fault.message, trouble.fault.remedy):
                phase = told.phase if told else TaskPhase.PENDING
                report = (told or TaskReport(phase=phase)).model_copy(
                    update={"message": trouble.fault.message, "remedy": trouble.fault.remedy}
                )
                self._reports.put(TASK, trouble.task.metadata.name, "", report)

    def _refresh(self, server: ProcessServer) -> None:
        """Carry a refresh request out: new token, clock, Secrets; then show the contact at once."""
        wanted = server.metadata.annotations.get(REFRESH_ANNOTATION, "")
        done = server.status.appliance.refreshed if server.status.appliance else ""
        self._refreshed = self._refreshed or done
        if not wanted or wanted == self._refreshed:
            return
        try:
            self._credentials.renew()
            self._measure_clock(force=True)
        except Fault as fault:
            log.warning("a refresh failed", cause=str(fault))
            return
        self._secrets.forget()
        self._refreshed = wanted
        report = self._last_report or server.status.appliance
        if report is not None:
            self._publish(report)

    def _beat_forever(self) -> None:
        while not self._stop.is_set():
            silent = time.monotonic() - self._called
            if silent < ENGINE_SILENT:
                self._beat()
            else:
                log.error("the engine does not ask for work any more: no heartbeat", silent_seconds=round(silent))
            self._stop.wait(HEARTBEAT)

    def _beat(self) -> None:
        try:
            beat(self._client, self._registration.namespace, self._registration.name, _now())
            self._measure_clock()
        except Fault as fault:
            log.warning("the heartbeat failed", cause=fault.message)
        except Exception:
            log.exception("the heartbeat failed")
        self._credentials.renew_if_due(_now())

    def _measure_clock(self, *, force: bool = False) -> None:
        if force or time.monotonic() - self._skew_at > SKEW_EVERY:
            self._skew = self._client.clock_skew()
            self._skew_at = time.monotonic()


def _now() -> datetime:
    return datetime.now(UTC)


def _weighty(report: ApplianceReport) -> ApplianceReport:
    """Return a report without what differs from one to the next while nothing happens."""
    spool = report.spool.model_copy(update={"used_bytes": 0})
    recovery = _weighty_recovery(report.recovery) if report.recovery else None
    fields = {"last_contact": _EPOCH, "throughput": 0, "clock_skew_seconds": 0.0, "spool": spool, "recovery": recovery}
    return report.model_copy(update=fields)


def _weighty_recovery(recovery: RecoveryReport) -> RecoveryReport:
    moving = {"bytes_behind": None, "updated_at": None}
    replicas = tuple(one.model_copy(update=moving) for one in recovery.replicas)
    free = {"disk_free_bytes": 0, "memory_free_bytes": 0, "opened": 0, "replicas": replicas}
    return recovery.model_copy(update=free)


_EPOCH = datetime.fromtimestamp(0, UTC)
