"""What the process server says of itself: composed every few seconds, and at once when it is asked to refresh."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from farshore_engine.contract.controlplane import Appliance
from farshore_engine.contract.replication import ApplianceReport, RecoveryReport, SpoolReport
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.identity import ServerIdentity, expiry
from farshore_engine.processserver.metrics import Metrics

THROUGHPUT_WINDOW = 60.0  # seconds
NEEDED = ("ip", "losetup", "mount", "unshare")  # programs without which no machine can be recovered on this host


def product_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("farshore")
    except PackageNotFoundError:
        return "0"


def can_run_machines() -> bool:
    """Return whether recovered machines can be run on this host: root, and the programs that it takes."""
    return os.geteuid() == 0 and all(shutil.which(program) for program in NEEDED)


@dataclass(frozen=True)
class Vitals:
    """What the report is composed from at the moment it is sent."""

    address: str
    data_port: int
    machines: int
    recovery: RecoveryReport | None = None


class Heartbeat:
    """Composes the appliance's report."""

    def __init__(
        self, identity: ServerIdentity, budget: SpoolBudget, metrics: Metrics, now: Callable[[], datetime]
    ) -> None:
        """`now` gives the time, in UTC."""
        self._identity = identity
        self._budget = budget
        self._metrics = metrics
        self._now = now
        self._samples: deque[tuple[float, int]] = deque()
        self._can_run_machines = can_run_machines()
        self._version = product_version()

    def report(self, appliance: Appliance, vitals: Vitals, monotonic: float) -> ApplianceReport:
        """Return the report; `monotonic` in seconds, for the throughput."""
        self._metrics.spool_used.set(self._budget.used)
        self._metrics.spool_size.set(self._budget.size)
        return ApplianceReport(
            version=self._version,
            address=vitals.address,
            data_port=vitals.data_port,
            last_contact=self._now(),
            clock_skew_seconds=0.0,  # filled in by the control plane's adapter, which sees the other clock
            spool=SpoolReport(used_bytes=max(0, self._budget.used), size_bytes=self._budget.size),
            throughput=self._throughput(monotonic),
            machines=vitals.machines,
            certificate_request=self._identity.request,
            certificate_expires=expiry(appliance.certificate) if appliance.certificate else None,
            can_run_machines=self._can_run_machines,
            recovery=vitals.recovery if self._can_run_machines else None,
            refreshed=appliance.refresh,
        )

    def _throughput(self, monotonic: float) -> int:
        total = self._metrics.received_total
        self._samples.append((monotonic, total))
        while monotonic - self._samples[0][0] > THROUGHPUT_WINDOW:
            self._samples.popleft()
        first_time, first_total = self._samples[0]
        return int((total - first_total) / (monotonic - first_time)) if monotonic > first_time else 0
