"""What a machine's supervisor reports: everything that is known of its replication, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farshore_engine.contract.assignment import MachineAssignment
from farshore_engine.contract.replication import AgentReport, Check, GroupReport, KeyReport, ReplicationReport
from farshore_engine.processserver.keeper import PointKeeper, Points
from farshore_engine.processserver.memory import Memory
from farshore_engine.processserver.replica import Replica
from farshore_engine.processserver.shared import Link, Shared
from farshore_engine.processserver.steps import Decision, Failure

GIB = 1 << 30


@dataclass(frozen=True)
class Known:
    """What a supervisor knows when it reports. `doing` is the sentence of a step that is being taken."""

    assignment: MachineAssignment
    decision: Decision
    replica: Replica | None
    keeper: PointKeeper | None
    link: Link
    points: Points
    memory: Memory
    checks: tuple[Check, ...]
    failure: Failure | None
    doing: str
    vault_epoch: int
    keys: KeyReport | None
    certificate_request: str


def report_of(known: Known, shared: Shared, now: datetime) -> ReplicationReport:
    """Return the report."""
    link, points, failure = known.link, known.points, known.failure
    group = _group(known, shared)
    return ReplicationReport(
        process_server=shared.name,
        epoch=known.assignment.epoch,
        state=known.decision.state,
        message=_message(known, shared, group),
        remedy=failure.fault.remedy if failure else known.decision.remedy,
        reason=failure.fault.reason if failure else known.decision.reason,
        checks=known.checks,
        agent=AgentReport(
            version=link.version or known.memory.version,
            host_key=known.memory.host_key,
            tracker=link.tracker,
            tracker_reason=link.tracker_reason,
            connected=link.connected,
            last_seen=now if link.connected else link.last_seen,
            certificate_request=known.certificate_request,
        ),
        disks=link.disks,
        progress=known.replica.progress if known.replica else None,
        churn=known.replica.attempts.churn if known.replica else None,
        resync_reason=link.resync_reason,
        last_point=points.recent[0] if points.recent else None,
        last_app_consistent_point=points.last_app,
        oldest_point=points.oldest,
        recent_points=points.recent,
        point_count=points.count,
        initial_bytes=known.memory.initial_bytes,
        initial_seconds=known.memory.initial_seconds,
        group=group,
        vault_epoch=known.vault_epoch,
        keys=known.keys,
        updated_at=now,
    )


def _message(known: Known, shared: Shared, group: GroupReport | None) -> str:
    if known.decision.remedy:
        return known.doing or known.decision.message  # it needs a person, so nothing else is as important
    return known.doing or _trouble(known, shared) or (group.message if group else "") or known.decision.message


def _trouble(known: Known, shared: Shared) -> str:
    """Say what keeps replication from going on: the vault, the spool, or the last attempt at a point."""
    waiting = known.keeper.waiting_for if known.keeper else ""
    replica = known.replica
    full = ""
    if replica is not None and replica.room.waits:
        full = (
            f"the spool is full ({shared.budget.used / GIB:.1f} of {shared.budget.size / GIB:.1f} GiB): the agent is "
            "held back until the vault has taken some of it"
        )
    return "; ".join(part for part in (waiting, full) if part) or (replica.attempts.fault if replica else "")


def _group(known: Known, shared: Shared) -> GroupReport | None:
    group = known.assignment.consistency_group
    if group is None:
        return None
    trouble = shared.groups.trouble(group.name)
    why = "; ".join(f"{machine}: {text}" for machine, text in trouble.items())
    newest = next((point.group for point in known.points.recent if point.group is not None), None)
    return GroupReport(
        name=group.name,
        members=group.members,
        last_cut=newest,
        held_up_by=tuple(trouble),
        message=f"no common instant for consistency group {group.name} ({why})" if why else "",
    )
