"""The steps of a run, as tables: which there are for each kind of run, on which side, what their tasks are told.

`docs/architecture.md` draws the same tables for people.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from farshore_engine.contract.points import Selector
from farshore_engine.contract.tasks import GuestPreparation, NetworkSettings, RunEntry, TaskInput, TaskKind
from farshore_operator.api.failoverplan import Mode, ShutdownSource
from farshore_operator.api.failoverrun import FailoverRunSpec, RunKind, RunMember
from farshore_operator.api.site import Provider
from farshore_operator.decide.probes import asked_of, questions, time_for
from farshore_operator.decide.runinputs import journalled
from farshore_operator.decide.servicesteps import by_service

MIB = 1024 * 1024
PROBE_TIMEOUT = timedelta(minutes=5)
FREEZE_BOUND = timedelta(minutes=5)
"""How long a planned failover leaves a machine frozen while it is switched off; then it is thawed and goes on."""


class StepName(StrEnum):
    """Every step of every kind of run."""

    PREREQUISITES = "Prerequisites"
    COMMIT_SPOOL = "CommitSpool"
    SHUTDOWN_SOURCE = "ShutdownSource"
    FINAL_POINT = "FinalPoint"
    FENCE = "Fence"
    SELECT_POINT = "SelectPoint"
    HYDRATE = "Hydrate"
    PREPARE_GUEST = "PrepareGuest"
    UPLOAD_DISKS = "UploadDisks"
    START_MACHINE = "StartMachine"
    PROBE = "Probe"
    RECORD = "Record"
    RELEASE_POINT = "ReleasePoint"
    STOP_RECOVERED = "StopRecovered"
    REMOVE_RECOVERED = "RemoveRecovered"
    START_SOURCE = "StartSource"
    PROBE_SOURCE = "ProbeSource"
    WRITE_BACK = "WriteBack"
    REPLICATE = "Replicate"
    DELETE_POINTS = "DeletePoints"
    CALLED_OFF = "CalledOff"
    CLEAN_UP = "CleanUp"


class Side(StrEnum):
    """Whose process server carries a step out: that of the site that the machine leaves, or that of its recovery."""

    SOURCE = "source"
    RECOVERY = "recovery"


@dataclass(frozen=True)
class StepRule:
    """A step of a member; `limit` bounds it from its beginning. `kind` None: the operator waits until it sees it."""

    name: StepName
    kind: TaskKind | None
    side: Side
    limit: timedelta

    def at(self, side: Side) -> StepRule:
        """Return the same step on a side."""
        return StepRule(self.name, self.kind, side, self.limit)


_MINUTES = timedelta(minutes=1)
_DAY = timedelta(hours=24)
RULES = {
    rule.name: rule
    for rule in (
        StepRule(StepName.SHUTDOWN_SOURCE, TaskKind.SHUTDOWN_SOURCE, Side.SOURCE, 5 * _MINUTES),
        StepRule(StepName.COMMIT_SPOOL, TaskKind.COMMIT_SPOOL, Side.SOURCE, 3 * _MINUTES),
        StepRule(StepName.FINAL_POINT, TaskKind.FINAL_POINT, Side.SOURCE, 60 * _MINUTES),
        StepRule(StepName.FENCE, TaskKind.FENCE, Side.RECOVERY, 10 * _MINUTES),
        StepRule(StepName.SELECT_POINT, TaskKind.SELECT_POINT, Side.RECOVERY, 10 * _MINUTES),
        StepRule(StepName.HYDRATE, TaskKind.HYDRATE, Side.RECOVERY, _DAY),
        StepRule(StepName.PREPARE_GUEST, TaskKind.PREPARE_GUEST, Side.RECOVERY, 30 * _MINUTES),
        StepRule(StepName.UPLOAD_DISKS, TaskKind.UPLOAD_DISKS, Side.RECOVERY, _DAY),
        StepRule(StepName.START_MACHINE, TaskKind.START_MACHINE, Side.RECOVERY, 15 * _MINUTES),
        StepRule(StepName.PROBE, TaskKind.PROBE_MACHINE, Side.RECOVERY, 15 * _MINUTES),
        StepRule(StepName.RECORD, TaskKind.READ_JOURNAL, Side.RECOVERY, _DAY),
        StepRule(StepName.RELEASE_POINT, TaskKind.CLEAN_UP, Side.RECOVERY, 10 * _MINUTES),
        StepRule(StepName.DELETE_POINTS, TaskKind.DELETE_POINTS, Side.RECOVERY, _DAY),
        StepRule(StepName.STOP_RECOVERED, TaskKind.SHUTDOWN_SOURCE, Side.RECOVERY, 5 * _MINUTES),
        StepRule(StepName.REMOVE_RECOVERED, TaskKind.CLEAN_UP, Side.RECOVERY, _DAY),
        StepRule(StepName.START_SOURCE, TaskKind.START_SOURCE, Side.SOURCE, 15 * _MINUTES),
        StepRule(StepName.PROBE_SOURCE, TaskKind.PROBE_MACHINE, Side.SOURCE, 15 * _MINUTES),
        StepRule(StepName.WRITE_BACK, TaskKind.WRITE_BACK, Side.RECOVERY, _DAY),
        StepRule(StepName.REPLICATE, None, Side.RECOVERY, _DAY),
        StepRule(StepName.CLEAN_UP, TaskKind.CLEAN_UP, Side.RECOVERY, _DAY),
    )
}


def _service(kind: TaskKind) -> tuple[StepRule, ...]:
    """Return the steps of a member that Site Recovery moves in one call of this kind."""
    move = StepRule(StepName.START_MACHINE, kind, Side.RECOVERY, 4 * timedelta(hours=1))
    return (RULES[StepName.SELECT_POINT], move, RULES[StepName.PROBE])


BY_SERVICE = {
    RunKind.TEST_FAILOVER: _service(TaskKind.TEST_FAILOVER),
    RunKind.FAILOVER: _service(TaskKind.FAILOVER),
    RunKind.CHANGE_POINT: _service(TaskKind.CHANGE_POINT),
    RunKind.COMMIT: (StepRule(StepName.RECORD, TaskKind.COMMIT, Side.RECOVERY, _DAY),),
}
"""The steps of a member whose engine moves it by itself; the other kinds of runs are refused at their start."""
STOPPING = (StepName.FINAL_POINT, StepName.SHUTDOWN_SOURCE)
"""Steps after which the machine is off where it ran."""
PINNING = (StepName.SELECT_POINT, StepName.CLEAN_UP)
"""Steps that name the pin of their own run."""


def sequence(spec: FailoverRunSpec, member: RunMember | None = None) -> tuple[StepRule, ...]:
    """Return the steps of a member of a run, in order, without prerequisites and clean-up.

    Members differ where a run is undone, and by a recovery point of their own; without one, the steps are those of a
    member that nothing was done to.
    """
    if by_service(member):
        return BY_SERVICE.get(spec.kind, ())
    match spec.kind:
        case RunKind.TEST_FAILOVER:
            return _rules([*_latest(spec, member), *_recover(member)])
        case RunKind.FAILOVER:
            return _rules([*_leave(spec, member), StepName.FENCE, *_recover(member)])
        case RunKind.CHANGE_POINT:
            return _rules([*_recover(member), StepName.RELEASE_POINT])
        case RunKind.REPROTECT:
            # From its first own point on, the machine needs no more the one that it was made from.
            return _rules([StepName.FENCE, StepName.REPLICATE, StepName.RELEASE_POINT, StepName.RECORD])
        case RunKind.FAILBACK:
            return (*_rules([*_leave(spec, member), StepName.FENCE]), *_WRITE_BACK)
        case RunKind.COMMIT:
            return _committed(spec, member)
        case RunKind.ABORT:
            return _undone(spec, member)


_RECOVER = (
    StepName.SELECT_POINT,
    StepName.HYDRATE,
    StepName.PREPARE_GUEST,
    StepName.START_MACHINE,
    StepName.PROBE,
)
_WRITE_BACK = (
    RULES[StepName.SELECT_POINT],
    RULES[StepName.WRITE_BACK],
    RULES[StepName.PREPARE_GUEST],
    RULES[StepName.START_SOURCE].at(Side.RECOVERY),
    RULES[StepName.PROBE],
)


def _rules(names: Iterable[StepName]) -> tuple[StepRule, ...]:
    return tuple(RULES[name] for name in names)


def _recover(member: RunMember | None) -> tuple[StepName, ...]:
    """Return how a machine is made from a point. In Azure its disks are not on the host that prepares them."""
    if not _in_azure(member):
        return _RECOVER
    at = _RECOVER.index(StepName.START_MACHINE)
    return (*_RECOVER[:at], StepName.UPLOAD_DISKS, *_RECOVER[at:])


def _in_azure(member: RunMember | None) -> bool:
    return member is not None and member.provider == Provider.AZURE


def _latest(spec: FailoverRunSpec, member: RunMember | None) -> tuple[StepName, ...]:
    wanted = (member.recovery_point if member is not None else None) or spec.recovery_point
    return (StepName.COMMIT_SPOOL,) if wanted == Selector.LATEST else ()


def _leave(spec: FailoverRunSpec, member: RunMember | None) -> tuple[StepName, ...]:
    """Return what is done at the site that the machine leaves."""
    if spec.mode is Mode.PLANNED:
        return (StepName.FINAL_POINT,)
    # Before the shutdown: afterwards no agent is left to take a point, and what it had not sent would be lost.
    off = () if spec.shutdown_source is ShutdownSource.NEVER else (StepName.SHUTDOWN_SOURCE,)
    return (*_latest(spec, member), *off)


def _committed(spec: FailoverRunSpec, member: RunMember | None) -> tuple[StepRule, ...]:
    """Return what a commit does: after a failback nobody needs the recovered machine any more."""
    if spec.undoes is RunKind.FAILBACK:
        return (RULES[StepName.REMOVE_RECOVERED].at(Side.SOURCE),)
    deleting = (StepName.DELETE_POINTS,) if member is not None and member.delete_points else ()
    return _rules((StepName.RECORD, *deleting))


def _undone(spec: FailoverRunSpec, member: RunMember | None) -> tuple[StepRule, ...]:
    """Return how a move is undone. The copy goes before the machine starts again: there are never two.

    A machine that the run did not stop is asked first: if it does not answer, its copy is the only one there is.
    """
    stopped = member is not None and member.stopped
    arrived = member is not None and member.arrived
    if spec.undoes is RunKind.FAILBACK:
        stop = (RULES[StepName.STOP_RECOVERED],) if arrived else ()
        start = (RULES[StepName.START_MACHINE].at(Side.SOURCE),) if stopped else ()
        return (*stop, *start, RULES[StepName.PROBE_SOURCE])
    if stopped:
        return _rules((StepName.REMOVE_RECOVERED, StepName.START_SOURCE, StepName.PROBE_SOURCE))
    return _rules((StepName.PROBE_SOURCE, StepName.REMOVE_RECOVERED))


def may_fail(spec: FailoverRunSpec, name: StepName) -> bool:
    """Tell whether a run goes on when this step fails.

    What concerns the source may be out of reach in a disaster: then the newest point in the vault is what there is.
    """
    if name is StepName.SHUTDOWN_SOURCE:
        return spec.shutdown_source is not ShutdownSource.REQUIRED
    return name in (StepName.COMMIT_SPOOL, StepName.RELEASE_POINT, StepName.DELETE_POINTS)


def limit(spec: FailoverRunSpec, member: RunMember, rule: StepRule) -> timedelta:
    """Return how long a step may take from its beginning."""
    return time_for(asked_of(spec, member), rule.limit) if rule.name is StepName.PROBE else rule.limit


def on(rule: StepRule, member: RunMember) -> str:
    """Return the process server that carries the step out; empty if none served the machine."""
    return (member.source_process_server or "") if rule.side is Side.SOURCE else member.process_server


def task_input(
    spec: FailoverRunSpec, run: str, member: RunMember, rule: StepRule, *, point: str, selector: str = ""
) -> TaskInput:
    """Return the input of a step's task.

    Args:
        point: name of the chosen recovery point, empty before it is.
        selector: what SelectPoint resolves; empty for what the run asks for.
    """
    name = rule.name
    asked = asked_of(spec, member) if name is StepName.PROBE else ()
    return TaskInput(
        machine_id=member.machine_id,
        selector=(selector or spec.recovery_point) if name is StepName.SELECT_POINT or _moves(rule) else "",
        shutdown=_moves(rule) and spec.shutdown_source is not ShutdownSource.NEVER,
        point=point,
        pin=_pin(spec, run, name),
        epoch=_epoch(member, name),
        writer=run if name is StepName.FENCE else "",
        machine_name=_machine_name(spec, member, rule),
        network=member.network or "",
        memory_mib=member.memory // MIB if member.memory else None,
        cpus=member.cpus,
        probe_timeout_seconds=int(PROBE_TIMEOUT.total_seconds()),
        probes=questions(asked),
        keep_machine=name is StepName.RELEASE_POINT,
        replaces=(spec.previous_run or "") if spec.kind is RunKind.CHANGE_POINT and name in _replacing(member) else "",
        source_machine=source_machine(member, rule),
        preparation=preparation(spec, member) if name is StepName.PREPARE_GUEST else None,
        freeze_seconds=int(FREEZE_BOUND.total_seconds()),
        target=member.target if rule.side is Side.RECOVERY else None,
        journal=RunEntry(run=run, step=name.value, spec=journalled(spec)),
    )


def _moves(rule: StepRule) -> bool:
    return rule.kind is TaskKind.FAILOVER


def source_machine(member: RunMember, rule: StepRule) -> str:
    """Return the name of the machine at the provider of the site where the step's task runs."""
    return (member.source_machine or member.protected_vm) if rule.side is Side.SOURCE else member.target_name


def preparation(spec: FailoverRunSpec, member: RunMember) -> GuestPreparation:
    """Return what is changed on the disks before the machine starts: no old agent, and the network of the place.

    At home it gets its own one back. A drilled machine keeps its settings, for it may reach nobody; but in Azure it
    must ask DHCP, else it would not even answer.
    """
    moves = spec.kind in (RunKind.FAILOVER, RunKind.CHANGE_POINT)
    azure = _in_azure(member) and spec.kind in (RunKind.FAILOVER, RunKind.CHANGE_POINT, RunKind.TEST_FAILOVER)
    return GuestPreparation(
        detach_agent=True,
        network=NetworkSettings(address=member.address or "") if moves or azure else None,
        azure=azure,
        restore_network=spec.kind is RunKind.FAILBACK,
    )


def _machine_name(spec: FailoverRunSpec, member: RunMember, rule: StepRule) -> str:
    """Return the name of the machine that the step is about, where it runs: the recovered one, or the one at home."""
    back = spec.kind is RunKind.FAILBACK or spec.undoes is RunKind.FAILBACK
    own = rule.name in (StepName.START_SOURCE, StepName.PROBE_SOURCE)
    return source_machine(member, rule) if back or own else member.target_name


def _epoch(member: RunMember, name: StepName) -> int:
    if name is StepName.DELETE_POINTS:
        return member.epoch  # that in which the committed run fenced
    return member.epoch + 1 if name is StepName.FENCE else 0


def _replacing(member: RunMember) -> tuple[StepName, ...]:
    """Return the steps that know whose machine makes way. In Azure it does when the new one's disks are there."""
    return (StepName.HYDRATE, StepName.START_MACHINE) if _in_azure(member) else (StepName.HYDRATE,)


def _pin(spec: FailoverRunSpec, run: str, name: StepName) -> str:
    if name in PINNING:
        return run
    if name in (StepName.RELEASE_POINT, StepName.REMOVE_RECOVERED):
        return spec.previous_run or ""
    return ""
