"""Shows in metrics what a reconciled object says: RPO, readiness and phase of machines, heartbeats of servers."""

from __future__ import annotations

from farshore_operator.api import ProcessServer, ProtectedVM, ReplicationPolicy
from farshore_operator.api.protectedvm import ProtectionPhase, Verdict
from farshore_operator.handlers.queue import Key
from farshore_operator.observe.world import World
from farshore_operator.report.metrics import Metrics

PHASES = tuple(phase.value for phase in ProtectionPhase)


class Vitals:
    """Keeps the metrics of objects in step with their status."""

    def __init__(self, metrics: Metrics, world: World) -> None:
        self._metrics = metrics
        self._world = world

    def show(self, key: Key) -> None:
        """Show what is known of an object, or forget it if it is gone."""
        if key.kind == ProtectedVM.definition.kind:
            vm = self._world.find(ProtectedVM, key.namespace, key.name)
            if vm is None:
                self._metrics.forget_vm(key.namespace, key.name, PHASES)
            else:
                self._show_vm(vm)
        elif key.kind == ProcessServer.definition.kind:
            if self._world.find(ProcessServer, key.namespace, key.name) is None:
                self._metrics.forget_server(key.namespace, key.name)
            else:
                connected = self._world.heartbeats.connected(key.namespace, key.name, self._world.now())
                self._metrics.connected.labels(key.namespace, key.name).set(float(connected))

    def _show_vm(self, vm: ProtectedVM) -> None:
        place = (vm.metadata.namespace, vm.metadata.name)
        status, metrics = vm.status, self._metrics
        if status.phase:
            metrics.set_phase(*place, status.phase.value, PHASES)
        if status.failover_ready:
            metrics.failover_ready.labels(*place).set(float(status.failover_ready.verdict is Verdict.READY))
        report = status.replication
        if report is not None and report.last_point is not None:
            # Evaluated when Prometheus asks, so that it grows while nothing happens.
            frozen = report.last_point.time
            metrics.rpo.labels(*place).set_function(lambda: (self._world.now() - frozen).total_seconds())
            metrics.last_point.labels(*place).set(frozen.timestamp())
        policy = self._world.find(ReplicationPolicy, vm.metadata.namespace, vm.spec.policy_ref.name)
        if policy is not None:
            metrics.rpo_threshold.labels(*place).set(policy.spec.rpo_threshold.total_seconds())
