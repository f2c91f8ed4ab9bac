"""The steps of a run, as a table: which there are, on which side, what their tasks are told, and which may fail.

`docs/architecture.md` draws the same table for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from farshore_engine.contract.points import Selector
from farshore_engine.contract.tasks import TaskInput, TaskKind
from farshore_operator.api.failoverplan import ShutdownSource
from farshore_operator.api.failoverrun import FailoverRunSpec, RunKind, RunMember

MIB = 1024 * 1024
PROBE_TIMEOUT = timedelta(minutes=5)


class StepName(StrEnum):
    """The steps, in order."""

    PREREQUISITES = "Prerequisites"
    SHUTDOWN_SOURCE = "ShutdownSource"
    COMMIT_SPOOL = "CommitSpool"
    FENCE = "Fence"
    SELECT_POINT = "SelectPoint"
    HYDRATE = "Hydrate"
    START_MACHINE = "StartMachine"
    PROBE = "Probe"
    CLEAN_UP = "CleanUp"


class Side(StrEnum):
    """Whose process server carries a step out."""

    SOURCE = "source"
    RECOVERY = "recovery"


@dataclass(frozen=True)
class StepRule:
    """A step that a process server carries out; `limit` bounds it from its beginning."""

    name: StepName
    kind: TaskKind
    side: Side
    limit: timedelta


RULES = {
    rule.name: rule
    for rule in (
        StepRule(StepName.SHUTDOWN_SOURCE, TaskKind.SHUTDOWN_SOURCE, Side.SOURCE, timedelta(minutes=5)),
        StepRule(StepName.COMMIT_SPOOL, TaskKind.COMMIT_SPOOL, Side.SOURCE, timedelta(minutes=3)),
        StepRule(StepName.FENCE, TaskKind.FENCE, Side.RECOVERY, timedelta(minutes=10)),
        StepRule(StepName.SELECT_POINT, TaskKind.SELECT_POINT, Side.RECOVERY, timedelta(minutes=10)),
        StepRule(StepName.HYDRATE, TaskKind.HYDRATE, Side.RECOVERY, timedelta(hours=24)),
        StepRule(StepName.START_MACHINE, TaskKind.START_MACHINE, Side.RECOVERY, timedelta(minutes=15)),
        StepRule(StepName.PROBE, TaskKind.PROBE_MACHINE, Side.RECOVERY, timedelta(minutes=15)),
        StepRule(StepName.CLEAN_UP, TaskKind.CLEAN_UP, Side.RECOVERY, timedelta(hours=24)),
    )
}


def sequence(spec: FailoverRunSpec) -> tuple[StepRule, ...]:
    """Return the steps of each member of a run, in order, without prerequisites and clean-up."""
    drill = spec.kind is RunKind.TEST_FAILOVER
    names = [StepName.SELECT_POINT, StepName.HYDRATE, StepName.START_MACHINE, StepName.PROBE]
    if not drill:
        names.insert(0, StepName.FENCE)
    if not drill and spec.shutdown_source is not ShutdownSource.NEVER:
        names.insert(0, StepName.SHUTDOWN_SOURCE)
    if spec.recovery_point == Selector.LATEST:
        # Before the shutdown: afterwards no agent is left to take a point, and what it had not sent would be lost.
        names.insert(0, StepName.COMMIT_SPOOL)
    return tuple(RULES[name] for name in names)


def may_fail(spec: FailoverRunSpec, name: StepName) -> bool:
    """Tell whether a run goes on when this step fails.

    What concerns the source may be out of reach in a disaster: then the newest point in the vault is what there is.
    """
    if name is StepName.SHUTDOWN_SOURCE:
        return spec.shutdown_source is not ShutdownSource.REQUIRED
    return name is StepName.COMMIT_SPOOL


def on(rule: StepRule, member: RunMember) -> str:
    """Return the process server that carries the step out; empty if none served the machine."""
    return (member.source_process_server or "") if rule.side is Side.SOURCE else member.process_server


def task_input(spec: FailoverRunSpec, run: str, member: RunMember, rule: StepRule, point: str) -> TaskInput:
    """Return the input of a step's task; `point` is the name of the chosen one, empty before it is."""
    timeouts = [probe.timeout for probe in spec.probes] or [PROBE_TIMEOUT]
    return TaskInput(
        machine_id=member.machine_id,
        selector=spec.recovery_point if rule.name is StepName.SELECT_POINT else "",
        point=point,
        pin=run if rule.name in (StepName.SELECT_POINT, StepName.CLEAN_UP) else "",
        epoch=member.epoch + 1 if rule.name is StepName.FENCE else 0,
        writer=run if rule.name is StepName.FENCE else "",
        machine_name=member.target_name,
        network=member.network or "",
        memory_mib=member.memory // MIB if member.memory else None,
        cpus=member.cpus,
        probe_timeout_seconds=int(max(timeouts).total_seconds()),
    )
