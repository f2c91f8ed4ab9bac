"""What a machine's runs mean for the machine: which one is under way, what it should do, where it runs."""

from __future__ import annotations

from datetime import UTC, datetime

from farshore_engine.contract.assignment import Desired, Direction
from farshore_engine.contract.replication import State
from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import RunKind, RunPhase, StepPhase
from farshore_operator.api.protectedvm import Place, RecoveredMachine
from farshore_operator.decide import lifecycle
from farshore_operator.decide.lifecycle import Life
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.runsteps import StepName

UNDER_WAY = (None, RunPhase.PENDING, RunPhase.RUNNING, RunPhase.CLEANING_UP)
LEAVING = (RunKind.FAILOVER, RunKind.FAILBACK)


def ordered(runs: list[FailoverRun]) -> tuple[FailoverRun, ...]:
    """Return runs by their number, then their age, oldest first."""
    never = datetime.min.replace(tzinfo=UTC)
    return tuple(
        sorted(runs, key=lambda run: (run.spec.sequence, run.metadata.creation_timestamp or never, run.metadata.name))
    )


def under_way(observed: ObservedVM) -> FailoverRun | None:
    """Return the run that works on the machine now; one that moves it before a drill."""
    active = [run for run in observed.runs if run.status.phase in UNDER_WAY]
    return moving(observed) or next(reversed(active), None)


def moving(observed: ObservedVM) -> FailoverRun | None:
    """Return the run under way that is no drill, None if there is none."""
    return next(
        (
            run
            for run in reversed(observed.runs)
            if run.status.phase in UNDER_WAY and run.spec.kind is not RunKind.TEST_FAILOVER
        ),
        None,
    )


def uncleaned_drills(observed: ObservedVM) -> tuple[str, ...]:
    """Return the drills of the machine that still hold something."""
    return tuple(
        run.metadata.name
        for run in observed.runs
        if run.spec.kind is RunKind.TEST_FAILOVER and run.status.phase is not RunPhase.CLEANED_UP
    )


def life(observed: ObservedVM) -> Life:
    """Return where the machine stands, from its runs that are over."""
    return lifecycle.life(observed.vm, observed.runs)


def recovered(observed: ObservedVM) -> RecoveredMachine | None:
    """Return the machine at the recovery site, None while it runs at its own."""
    return life(observed).recovered


def committed(observed: ObservedVM) -> bool:
    """Tell whether the failover that moved the machine was declared final."""
    return life(observed).standing.place in (Place.COMMITTED, Place.REVERSED)


def desired(observed: ObservedVM) -> Desired:
    """Return what the process server that serves the machine should do.

    A failover or failback lets it replicate until the fence is about to be written, so that the last point can be
    taken; from then on it extends the chain no more. A run that failed lets it go on, in an epoch above the fence's.
    """
    vm = observed.vm
    if vm.metadata.deletion_timestamp:
        return Desired.UNINSTALL
    place = life(observed).standing.place
    replicated = place in (Place.SOURCE, Place.REVERSED) or _reversing(observed)
    if not replicated or _fencing(observed) or _undoing(observed):
        return Desired.STOP
    return Desired.PAUSE if vm.spec.paused else Desired.REPLICATE


def direction(observed: ObservedVM) -> Direction:
    """Return which way the machine is replicated, or was last."""
    reverse = life(observed).standing.place is Place.REVERSED or _reversing(observed)
    return Direction.REVERSE if reverse else Direction.FORWARD


def fenced(observed: ObservedVM) -> int:
    """Return the highest epoch that a run of the machine has written or may have written."""
    epoch = life(observed).standing.epoch
    run = moving(observed)
    member = lifecycle.member_of(run, observed.vm.metadata.name) if run is not None else None
    return max(epoch, lifecycle.fence_of(run, member)) if run is not None and member is not None else epoch


def caught_up(observed: ObservedVM) -> bool:
    """Tell whether a recovery point was made since the last run's fence, by who serves the machine now."""
    report, assignment = observed.report, observed.vm.status.assignment
    if report is None or assignment is None or report.epoch != assignment.epoch or report.last_point is None:
        return False
    if assignment.direction is not direction(observed):
        return False
    return report.last_point.epoch > fenced(observed) and report.state in (State.REPLICATING, State.PAUSED)


def _reversing(observed: ObservedVM) -> bool:
    """Tell whether a reprotect has fenced, so that the recovery site's process server takes over."""
    run = moving(observed)
    if run is None or run.spec.kind is not RunKind.REPROTECT:
        return False
    return lifecycle.step_phase(run, StepName.FENCE, observed.vm.metadata.name) is StepPhase.SUCCEEDED


def _fencing(observed: ObservedVM) -> bool:
    run = moving(observed)
    if run is None or run.spec.kind not in LEAVING:
        return False
    phase = lifecycle.step_phase(run, StepName.FENCE, observed.vm.metadata.name)
    return phase in (StepPhase.RUNNING, StepPhase.SUCCEEDED)


def _undoing(observed: ObservedVM) -> bool:
    run = moving(observed)
    return run is not None and run.spec.kind is RunKind.ABORT
