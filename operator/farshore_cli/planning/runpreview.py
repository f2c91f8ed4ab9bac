"""A run that would begin, spelled out: steps in order, machine by machine, with points, what is lost, what is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from farshore_cli.planning.future import FutureWorld
from farshore_engine.contract.faults import Fault
from farshore_engine.contract.points import RecoveryPoint, Selector, resolve
from farshore_engine.contract.replication import CheckResult
from farshore_operator.api import FailoverRun, ProtectedVM
from farshore_operator.api.failoverplan import Mode
from farshore_operator.api.failoverrun import RunKind, RunMember
from farshore_operator.api.hook import Hook
from farshore_operator.decide import failoverrun
from farshore_operator.decide.runsteps import on, sequence
from farshore_operator.observe.runs import observe_run

HOOKS = {"job": "a Job runs", "http": "a web service is called", "approval": "people approve"}


@dataclass(frozen=True)
class MachinePreview:
    """One machine of the run: its steps, its point, and the seconds of work at risk now (None if unknown)."""

    name: str
    steps: list[str]
    point: str = ""
    rpo_seconds: float | None = None
    makes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StagePreview:
    """What happens at the same time: a group of machines, or one hook."""

    title: str
    machines: list[MachinePreview] = field(default_factory=list)


@dataclass(frozen=True)
class RunPreview:
    """A run that would begin: everything that it would do, in order."""

    kind: str
    name: str
    mode: str
    point: str
    stages: list[StagePreview]
    blockers: list[str]
    warnings: list[str]
    requested_by: dict[str, str] = field(default_factory=dict)

    @property
    def moves(self) -> bool:
        """Whether it is more than a drill."""
        return self.kind != RunKind.TEST_FAILOVER.value

    @property
    def rpo_seconds(self) -> float | None:
        """Seconds of work at risk now: the worst of its machines."""
        known = [m.rpo_seconds for stage in self.stages for m in stage.machines if m.rpo_seconds is not None]
        return max(known, default=None)


def preview_run(world: FutureWorld, run: FailoverRun, now: datetime) -> RunPreview:
    """Return what a run would do. Its checks are those that it makes itself at its start."""
    meta = run.metadata.model_copy(update={"creation_timestamp": now})
    begun = run.model_copy(update={"metadata": meta})
    decision = failoverrun.decide(observe_run(world, begun), now)
    checks = decision.status.checks if decision.status is not None else ()
    asked = run.spec.requested_by
    return RunPreview(
        kind=run.spec.kind.value,
        name=run.metadata.name,
        mode=run.spec.mode.value,
        point=run.spec.recovery_point,
        stages=_stages(world, run, now),
        blockers=[check.message for check in checks if check.result is CheckResult.ERROR],
        warnings=[check.message for check in checks if check.result is CheckResult.WARNING],
        requested_by={key: str(value) for key, value in asked.dump().items()} if asked is not None else {},
    )


def _stages(world: FutureWorld, run: FailoverRun, now: datetime) -> list[StagePreview]:
    groups = {group.name: group for group in run.spec.groups}
    stages = []
    for name in dict.fromkeys([*groups, *(member.group or "" for member in run.spec.members)]):
        group = groups.get(name)
        members = [member for member in run.spec.members if (member.group or "") == name]
        stages += [_hook(hook, "before", name) for hook in (group.before if group is not None else ())]
        at_once = f", {group.max_parallel} at a time" if group is not None and group.max_parallel else ""
        title = f"Group {name}{at_once}" if name else "Machines"
        stages.append(StagePreview(title, [_machine(world, run, member, now) for member in members]))
        stages += [_hook(hook, "after", name) for hook in (group.after if group is not None else ())]
    return stages


def _hook(hook: Hook, when: str, group: str) -> StagePreview:
    word = next(text for name, text in HOOKS.items() if getattr(hook, name) is not None)
    return StagePreview(f"Hook {hook.name} {when} group {group}: {word}; if it fails: {hook.on_failure.value}")


def _machine(world: FutureWorld, run: FailoverRun, member: RunMember, now: datetime) -> MachinePreview:
    vm = world.find(ProtectedVM, run.metadata.namespace, member.protected_vm)
    point, told, at_risk = _point(run, member, vm, now)
    steps = [f"{rule.name.value} ({on(rule, member) or 'no process server'})" for rule in sequence(run.spec, member)]
    return MachinePreview(member.protected_vm, steps, told, at_risk, _makes(run, member, point))


def _point(
    run: FailoverRun, member: RunMember, vm: ProtectedVM | None, now: datetime
) -> tuple[RecoveryPoint | None, str, float | None]:
    """Return the point that would be chosen now, how it is called, and the seconds of work at risk."""
    report = vm.status.replication if vm is not None else None
    known = report.recent_points if report is not None else ()
    wanted = member.recovery_point or run.spec.recovery_point
    last = report.last_point if report is not None else None
    if run.spec.kind not in (RunKind.FAILOVER, RunKind.TEST_FAILOVER, RunKind.FAILBACK, RunKind.CHANGE_POINT):
        return None, "", None
    if run.spec.mode is Mode.PLANNED and run.spec.kind in (RunKind.FAILOVER, RunKind.FAILBACK):
        return last, "the final point, taken while the machine stops", 0.0
    try:
        point = resolve(wanted, known or ((last,) if last is not None else ()), now)
    except Fault as fault:
        return (
            None,
            f"{wanted}: {fault.message} (the vault may have older ones: farshore points {member.protected_vm})",
            None,
        )
    risk = max(0.0, round((now - point.time).total_seconds(), 1))
    newer = ", and what the spool still holds" if wanted == Selector.LATEST else ""
    return point, f"{wanted}: {point.name} of {point.time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}{newer}", risk


def _makes(run: FailoverRun, member: RunMember, point: RecoveryPoint | None) -> list[str]:
    """Return what would be made, and what would be written over."""
    disks = f", disks of {_size(point.disk_bytes)}" if point is not None and point.disk_bytes else ""
    match run.spec.kind:
        case RunKind.FAILOVER | RunKind.TEST_FAILOVER:
            shape = [f"{member.cpus} CPUs" if member.cpus else "", _size(member.memory) if member.memory else ""]
            told = ", ".join([text for text in (*shape, member.size or "") if text]) or "as the source"
            network = f"network {member.network}" if member.network else "the provider's network"
            return [f"machine {member.target_name} at site {member.target_site} ({told}{disks}), in {network}"]
        case RunKind.FAILBACK:
            home = member.source_machine or member.target_name
            return [f"the disks of {home} at site {member.target_site} are written over where they differ"]
        case _:
            return []


def _size(amount: int) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if amount >= size:
            return f"{amount / size:.3g} {unit}"
    return f"{amount} bytes"


def span(seconds: float | None) -> str:
    """Return seconds as people say them."""
    return "unknown" if seconds is None else str(timedelta(seconds=round(seconds)))
