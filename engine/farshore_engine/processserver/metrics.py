"""Figures for Prometheus, on a port of their own if one is wanted."""

from __future__ import annotations

import contextlib
import threading

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

FREEZE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The process server's metrics; the label is the machine id."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        machine = ["machine"]

        def counter(name: str, text: str) -> Counter:
            return Counter(f"farshore_{name}", text, machine, registry=self.registry)

        self.received = counter("received_bytes", "Bytes of block data received from the agent")
        self.uploaded = counter("uploaded_bytes", "Bytes of packs uploaded to the vault")
        self.points = counter("points", "Recovery points committed")
        self.points_failed = counter("points_failed", "Attempts at a recovery point that failed")
        self.resyncs = counter("resyncs", "Times that tracking had a gap and digests were compared")
        self.silent_changes = counter(
            "silent_changes", "Times that a sample of blocks believed clean differed: writes had gone unseen"
        )
        self.faults = counter("faults", "Failures that replication of a machine met, retried ones included")
        self.last_point = Gauge(
            "farshore_last_point_seconds", "Time of the newest point's freeze", machine, registry=self.registry
        )
        self.freeze = Histogram(
            "farshore_freeze_seconds",
            "How long the machine's file systems were frozen",
            machine,
            buckets=FREEZE_BUCKETS,
            registry=self.registry,
        )
        self.churn = Gauge(
            "farshore_churn_bytes_per_second",
            "Bytes of distinct blocks that programs on the machine write each second",
            machine,
            registry=self.registry,
        )
        self.link_rate = Gauge(
            "farshore_link_bytes_per_second",
            "Bytes each second at which changed blocks were last sent",
            machine,
            registry=self.registry,
        )
        self.replica_point = Gauge(
            "farshore_warm_replica_point_seconds",
            "Time of the freeze of the point that the machine's warm replica holds",
            machine,
            registry=self.registry,
        )
        self.replica_behind = Gauge(
            "farshore_warm_replica_behind_bytes",
            "Bytes of blocks in which the newest point differed from the warm replica when that was last looked at",
            machine,
            registry=self.registry,
        )
        self.spool_used = Gauge("farshore_spool_used_bytes", "Bytes in the spool", registry=self.registry)
        self.spool_size = Gauge("farshore_spool_size_bytes", "Bytes that the spool may use", registry=self.registry)
        self.refused = Counter(
            "farshore_refused_connections", "Connections refused", ["reason"], registry=self.registry
        )

        self.received_total = 0  # bytes, for the throughput
        self._lock = threading.Lock()

    def note_received(self, machine_id: str, size: int) -> None:
        """Count bytes of block data that came in."""
        self.received.labels(machine_id).inc(size)
        with self._lock:
            self.received_total += size

    def note_churn(self, machine_id: str, churn: float, link_rate: float) -> None:
        """Note what a point told of churn and link, in bytes per second."""
        self.churn.labels(machine_id).set(churn)
        if link_rate:
            self.link_rate.labels(machine_id).set(link_rate)

    def forget_replica(self, machine_id: str) -> None:
        """Show nothing of a warm replica that is gone."""
        for gauge in (self.replica_point, self.replica_behind):
            with contextlib.suppress(KeyError):
                gauge.remove(machine_id)

    def serve(self, address: str, port: int) -> None:
        """Serve the metrics over HTTP from a thread of its own."""
        start_http_server(port, addr=address, registry=self.registry)
