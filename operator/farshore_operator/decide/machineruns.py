"""What a machine's runs mean for the machine: which one is under way, what it should do, where it runs."""

from __future__ import annotations

from datetime import UTC, datetime

from farshore_engine.contract.assignment import Desired
from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import MemberResult, RunKind, RunPhase, StepPhase
from farshore_operator.api.protectedvm import ProtectionPhase, RecoveredMachine
from farshore_operator.decide.observedvm import ObservedVM

UNDER_WAY = (None, RunPhase.PENDING, RunPhase.RUNNING, RunPhase.CLEANING_UP)
FENCE = "Fence"


def ordered(runs: list[FailoverRun]) -> tuple[FailoverRun, ...]:
    """Return runs by their age, oldest first."""
    never = datetime.min.replace(tzinfo=UTC)
    return tuple(sorted(runs, key=lambda run: (run.metadata.creation_timestamp or never, run.metadata.name)))


def under_way(observed: ObservedVM) -> FailoverRun | None:
    """Return the run that works on the machine now; a failover before a drill."""
    active = [run for run in observed.runs if run.status.phase in UNDER_WAY]
    failovers = [run for run in active if run.spec.kind is not RunKind.TEST_FAILOVER]
    return next(iter([*reversed(failovers), *reversed(active)]), None)


def uncleaned_drills(observed: ObservedVM) -> tuple[str, ...]:
    """Return the drills of the machine that still hold something."""
    return tuple(
        run.metadata.name
        for run in observed.runs
        if run.spec.kind is RunKind.TEST_FAILOVER and run.status.phase is not RunPhase.CLEANED_UP
    )


def failover(observed: ObservedVM) -> FailoverRun | None:
    """Return the newest failover of the machine that is under way or has succeeded; a failed one changes nothing."""
    return next(
        (
            run
            for run in reversed(observed.runs)
            if run.spec.kind is RunKind.FAILOVER
            and (run.status.phase in UNDER_WAY or run.status.phase is RunPhase.SUCCEEDED)
        ),
        None,
    )


def desired(observed: ObservedVM) -> Desired:
    """Return what the process server of the source should do.

    A failover lets it replicate until the fence is about to be written, so that `Latest` can commit its spool; from
    then on it extends the chain no more. A failover that failed lets it go on, in an epoch above the fence's.
    """
    vm = observed.vm
    if vm.metadata.deletion_timestamp:
        return Desired.UNINSTALL
    if recovered(observed) is not None or _fencing(observed):
        return Desired.STOP
    return Desired.PAUSE if vm.spec.paused else Desired.REPLICATE


def recovered(observed: ObservedVM) -> RecoveredMachine | None:
    """Return the machine as it runs after a failover, None while it runs at its source.

    What was observed once stays, also when the run's record is gone.
    """
    run = failover(observed)
    if run is None or run.status.phase is not RunPhase.SUCCEEDED:
        return observed.vm.status.recovered
    name = observed.vm.metadata.name
    member = next((member for member in run.spec.members if member.protected_vm == name), None)
    if member is None:
        return observed.vm.status.recovered
    result = _result(run, name)
    return RecoveredMachine(
        run=run.metadata.name,
        machine=member.target_name,
        site=member.target_site,
        address=result.address if result else None,
        port=result.port if result else None,
    )


def committed(observed: ObservedVM) -> bool:
    """Tell whether the failover that moved the machine was declared final."""
    where = recovered(observed)
    if where is None:
        return False
    if observed.vm.status.phase is ProtectionPhase.COMMITTED and observed.vm.status.recovered == where:
        return True
    return any(
        run.spec.kind is RunKind.COMMIT
        and run.status.phase is RunPhase.SUCCEEDED
        and run.spec.previous_run == where.run
        for run in observed.runs
    )


def _fencing(observed: ObservedVM) -> bool:
    run = failover(observed)
    if run is None:
        return False
    name = observed.vm.metadata.name
    return any(
        step.name == FENCE and step.member == name and step.phase in (StepPhase.RUNNING, StepPhase.SUCCEEDED)
        for step in run.status.steps
    )


def _result(run: FailoverRun, name: str) -> MemberResult | None:
    return next((member for member in run.status.members if member.protected_vm == name), None)
