"""What a run achieved: the chosen points, RPO, RTO, bytes, and where the recovered machines answer."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.tasks import TaskResult
from farshore_operator.api.failoverrun import FailoverRunStatus, MemberResult, RunMember, StepPhase
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.runjournal import Journal
from farshore_operator.decide.runsteps import StepName

NumberT = TypeVar("NumberT", int, float)


def with_results(journal: Journal, status: FailoverRunStatus) -> FailoverRunStatus:
    """Return the status with the results of its members and their sum; what is known already stays."""
    if not any(step.member for step in status.steps):
        return status
    members = tuple(_member(journal, status, member) for member in journal.observed.run.spec.members)
    rpos = [member.rpo_seconds for member in members if member.rpo_seconds is not None]
    rtos = [member.rto_seconds for member in members if member.rto_seconds is not None]
    moved = [member.bytes_moved for member in members if member.bytes_moved is not None]
    verified = [member.disks_verified for member in members if member.disks_verified is not None]
    everyone = len(rtos) == len(members)
    return status.model_copy(
        update={
            "members": members,
            "rpo_seconds": max(rpos, default=None),
            "rto_seconds": max(rtos) if everyone else None,
            "bytes_moved": sum(moved) if moved else None,
            "disks_verified": all(verified) if verified else None,
        }
    )


def _member(journal: Journal, status: FailoverRunStatus, member: RunMember) -> MemberResult:
    name = member.protected_vm
    old = next((m for m in status.members if m.protected_vm == name), MemberResult(protected_vm=name))

    def brought(step: StepName) -> TaskResult:
        """Return what a step brought once it has succeeded."""
        known = journal.get(step, name)
        over = known is not None and known.phase is StepPhase.SUCCEEDED
        return journal.result(step, name) if over else TaskResult()

    point = old.point or brought(StepName.SELECT_POINT).point
    final = brought(StepName.FINAL_POINT).point
    back = journal.get(StepName.WRITE_BACK, name) is not None
    hydrated = brought(StepName.WRITE_BACK if back else StepName.HYDRATE)
    home = journal.get(StepName.START_SOURCE, name) is not None
    started = brought(StepName.START_SOURCE if home else StepName.START_MACHINE)
    asks = StepName.PROBE if journal.get(StepName.PROBE, name) is not None else StepName.PROBE_SOURCE
    probed, answer = brought(asks), journal.get(asks, name)
    answered = answer.finished_at if answer is not None and answer.phase is StepPhase.SUCCEEDED else None
    begun = status.started_at
    rto = (answered - begun).total_seconds() if answered and begun else None
    return old.model_copy(
        update={
            "point": point,
            "final_point": old.final_point or (final.name if final is not None else None),
            "rpo_seconds": _kept(old.rpo_seconds, _rpo(point, begun, journal.observed.machines.get(name))),
            "rto_seconds": _kept(old.rto_seconds, rto),
            "bytes_moved": _kept(old.bytes_moved, hydrated.bytes_moved),
            "disk_bytes": _kept(old.disk_bytes, hydrated.disk_bytes),
            "disks_verified": hydrated.disks_verified if old.disks_verified is None else old.disks_verified,
            "machine": old.machine or (member.target_name if started.address else None),
            "machine_kind": old.machine_kind or started.machine_kind or None,
            "address": probed.address or old.address or started.address or None,
            "port": probed.port or old.port or started.port,
            "changes": old.changes or brought(StepName.PREPARE_GUEST).changes,
            "host_key": probed.host_key or started.host_key or old.host_key,
            "bytes_written": _kept(old.bytes_written, hydrated.bytes_written),
            "evidence": old.evidence or probed.evidence or None,
            "removed": old.removed or journal.result(StepName.CLEAN_UP, name).removed,
            "looked_for": old.looked_for or journal.result(StepName.CLEAN_UP, name).looked_for,
            "probes": old.probes or journal.result(StepName.PROBE, name).probes,
        }
    )


def _kept(old: NumberT | None, new: NumberT | None) -> NumberT | None:
    return new if old is None else old


def _rpo(point: RecoveryPoint | None, begun: datetime | None, machine: ObservedVM | None) -> float | None:
    """Return the seconds of work that are lost: up to the run's start, or the source's last contact before it."""
    if point is None or begun is None:
        return None
    until = begun
    report = machine.vm.status.replication if machine else None
    agent = report.agent if report else None
    if agent is not None and not agent.connected and agent.last_seen is not None:
        until = min(until, agent.last_seen)
    return max(0.0, round((until - point.time).total_seconds(), 3))
