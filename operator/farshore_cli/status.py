"""What `farshore status` says of each resource: pure functions from objects to rows, so that they can be tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from farshore_engine.contract.replication import Churn
from farshore_operator.api.processserver import ProcessServer
from farshore_operator.api.protectedvm import ProtectedVM
from farshore_operator.api.replicationpolicy import ReplicationPolicy
from farshore_operator.api.resource import ConditionStatus


class Level(StrEnum):
    """How much a row wants to be looked at."""

    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"


@dataclass(frozen=True)
class MachineRow:
    """One machine: `behind` is the age of its newest point, None before the first; `todo` is empty if all is well.

    `churn` is how much programs write each second and, when that outruns the link, how much of it is sent.
    """

    namespace: str
    name: str
    phase: str
    level: Level
    behind: timedelta | None
    late: bool
    points: int
    process_server: str
    ready: str
    todo: str
    churn: str = ""


@dataclass(frozen=True)
class ServerRow:
    """One process server: `contact` is how long ago it was last heard of, None if never."""

    namespace: str
    name: str
    site: str
    level: Level
    contact: timedelta | None
    machines: int
    spool_percent: int
    todo: str


def machine_row(vm: ProtectedVM, policies: Sequence[ReplicationPolicy], now: datetime) -> MachineRow:
    """Return what a person must know of a machine; a point older than the policy's threshold is late."""
    status, name = vm.status, vm.spec.policy_ref.name
    threshold = next(
        (
            one.spec.rpo_threshold
            for one in policies
            if (one.metadata.namespace, one.metadata.name) == (vm.metadata.namespace, name)
        ),
        None,
    )
    report = status.replication
    last = report.last_point.time if report and report.last_point else None
    behind = max(now - last, timedelta(0)) if last else None
    late = threshold is not None and behind is not None and behind > threshold
    ready, stalled = status.condition("Ready"), status.condition("Stalled")
    bad = late or (stalled is not None and stalled.status == ConditionStatus.TRUE)
    good = ready is not None and ready.status == ConditionStatus.TRUE
    failover = status.condition("FailoverReady")
    return MachineRow(
        namespace=vm.metadata.namespace,
        name=vm.metadata.name,
        phase=_phase(vm),
        level=Level.BAD if bad else Level.GOOD if good else Level.BUSY,
        behind=behind,
        late=late,
        points=report.point_count if report else 0,
        process_server=status.assignment.process_server if status.assignment else "",
        ready="yes" if failover is not None and failover.status == ConditionStatus.TRUE else "no",
        todo=status.next_step or ("" if good or ready is None else ready.message) or _group_trouble(vm),
        churn=_churn(report.churn) if report and report.churn else "",
    )


def _group_trouble(vm: ProtectedVM) -> str:
    """Say what keeps the machine from being cut together with its consistency group."""
    group = vm.status.condition("ConsistencyGroup")
    return group.message if group is not None and group.status == ConditionStatus.FALSE else ""


def server_row(server: ProcessServer, now: datetime) -> ServerRow:
    """Return what a person must know of a process server."""
    report, ready = server.status.appliance, server.status.condition("Ready")
    good = ready is not None and ready.status == ConditionStatus.TRUE
    spool = report.spool if report else None
    return ServerRow(
        namespace=server.metadata.namespace,
        name=server.metadata.name,
        site=server.spec.site_ref.name,
        level=Level.GOOD if good else Level.BAD,
        contact=max(now - report.last_contact, timedelta(0)) if report else None,
        machines=report.machines if report else 0,
        spool_percent=100 * spool.used_bytes // spool.size_bytes if spool and spool.size_bytes else 0,
        todo="" if good or ready is None else ready.message,
    )


def headline(rows: Sequence[MachineRow]) -> str:
    """Return the sentence above the table: how many machines are protected, how many want attention."""
    if not rows:
        return "No machine is protected yet: apply a ProtectedVM."
    bad = [row.name for row in rows if row.level is Level.BAD]
    busy = sum(row.level is Level.BUSY for row in rows)
    text = f"{sum(row.level is Level.GOOD for row in rows)} of {len(rows)} machines are as declared"
    text += f", {busy} on the way" if busy else ""
    return text + (f"; look at {', '.join(bad[:5])}{' and others' if len(bad) > 5 else ''}." if bad else ".")


def span(value: timedelta | None) -> str:
    """Return a duration as people say it: `12 s`, `4 min`, `3 h 10 min`, `2 d 3 h`; a dash if there is none."""
    if value is None:
        return "-"
    seconds = int(value.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60 % 60, seconds // 3600 % 24, seconds // 86400
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _churn(churn: Churn) -> str:
    written = f"{churn.written_rate / 2**20:.1f} MiB/s"
    return f"{written}, {churn.sent_rate / 2**20:.1f} sent" if churn.outruns_link else written


def utc_now() -> datetime:
    """Return the present; the one clock of the commands."""
    return datetime.now(UTC)


def _phase(vm: ProtectedVM) -> str:
    phase = vm.status.phase.value if vm.status.phase else "Pending"
    progress = vm.status.replication.progress if vm.status.replication else None
    return f"{phase} {progress.percent} %" if progress and progress.percent < 100 else phase
