"""What Prometheus reads from the operator: its own work, and how well each machine is protected."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)


class Metrics:
    """The operator's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        reg = self.registry
        self.reconciles = Counter(
            "farshore_operator_reconciles", "Reconciliations by kind and outcome.", ["kind", "outcome"], registry=reg
        )
        self.duration = Histogram(
            "farshore_operator_reconcile_seconds", "Time of a reconciliation.", ["kind"], buckets=_BUCKETS, registry=reg
        )
        self.queue_wait = Histogram(
            "farshore_operator_queue_wait_seconds", "Time that a key waited.", buckets=_BUCKETS, registry=reg
        )
        self.queue_length = Gauge("farshore_operator_queue_length", "Keys that wait now.", registry=reg)
        self.status_writes = Counter(
            "farshore_operator_status_writes",
            "Status writes by kind; no-op writes are left out.",
            ["kind"],
            registry=reg,
        )
        vm = ["namespace", "name"]
        self.rpo = Gauge(
            "farshore_protectedvm_rpo_seconds",
            "Age of the last recovery point when it was last looked at.",
            vm,
            registry=reg,
        )
        self.last_point = Gauge(
            "farshore_protectedvm_last_point_timestamp_seconds",
            "When the last recovery point was frozen.",
            vm,
            registry=reg,
        )
        self.rpo_threshold = Gauge(
            "farshore_protectedvm_rpo_threshold_seconds", "The policy's RPO threshold.", vm, registry=reg
        )
        self.failover_ready = Gauge(
            "farshore_protectedvm_failover_ready", "1 if the machine could be failed over now.", vm, registry=reg
        )
        self.phase = Gauge("farshore_protectedvm_phase", "1 for the current phase.", [*vm, "phase"], registry=reg)
        self.connected = Gauge(
            "farshore_processserver_connected", "1 while the process server's heartbeat arrives.", vm, registry=reg
        )

    def set_phase(self, namespace: str, name: str, phase: str, known: tuple[str, ...]) -> None:
        """Show `phase` as the only one of those `known` that is 1."""
        for other in known:
            self.phase.labels(namespace, name, other).set(1.0 if other == phase else 0.0)

    def forget_vm(self, namespace: str, name: str, known: tuple[str, ...]) -> None:
        """Remove the series of a machine that is no longer protected."""
        for gauge in (self.rpo, self.last_point, self.rpo_threshold, self.failover_ready):
            _remove(gauge, namespace, name)
        for phase in known:
            _remove(self.phase, namespace, name, phase)

    def forget_server(self, namespace: str, name: str) -> None:
        """Remove the series of a process server that is gone."""
        _remove(self.connected, namespace, name)


def _remove(gauge: Gauge, *labels: str) -> None:
    try:
        gauge.remove(*labels)
    except KeyError:
        return  # never set
