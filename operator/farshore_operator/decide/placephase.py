"""Phase, health and next step of a machine that a run has moved or moves now. Only what was observed is claimed."""

from __future__ import annotations

from farshore_engine.contract.replication import State
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.protectedvm import Place, ProtectionPhase, RecoveredMachine
from farshore_operator.decide import lifecycle, machineruns
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.report.conditions import Verdict, ready, stalled, waiting

_MOVING = {
    RunKind.FAILOVER: ProtectionPhase.FAILING_OVER,
    RunKind.CHANGE_POINT: ProtectionPhase.FAILING_OVER,
    RunKind.FAILBACK: ProtectionPhase.FAILING_BACK,
}


def phase(observed: ObservedVM) -> ProtectionPhase | None:
    """Return the phase of a machine on its way round, None while it is replicated from its own site as ever."""
    run = machineruns.moving(observed)
    place = machineruns.life(observed).standing.place
    if run is not None and run.spec.kind in _MOVING:
        return _MOVING[run.spec.kind]
    if run is not None and run.spec.kind is RunKind.ABORT:
        back = run.spec.undoes is RunKind.FAILBACK
        return ProtectionPhase.FAILING_OVER if back else ProtectionPhase.FAILING_BACK
    if run is not None and run.spec.kind is RunKind.REPROTECT:
        return ProtectionPhase.REPROTECTING
    if place in (Place.SOURCE, Place.REVERSED) and stopped_by(observed) is not None:
        return ProtectionPhase.FAILED
    match place:
        case Place.FAILED_OVER:
            return ProtectionPhase.FAILED_OVER
        case Place.COMMITTED:
            return ProtectionPhase.COMMITTED
        case Place.FAILED_BACK:
            return ProtectionPhase.FAILED_BACK
        case Place.REVERSED:
            return _replicated(observed, ProtectionPhase.PROTECTED_REVERSE)
        case Place.SOURCE:
            back = machineruns.life(observed).standing.returned and not _once(observed)
            return _replicated(observed, ProtectionPhase.PROTECTED) if back else None


def _once(observed: ObservedVM) -> bool:
    """Tell whether a point was made since the last run's fence, whatever replication is doing now."""
    report = observed.report
    return (
        report is not None and report.last_point is not None and report.last_point.epoch > machineruns.fenced(observed)
    )


def _replicated(observed: ObservedVM, done: ProtectionPhase) -> ProtectionPhase:
    report = observed.report
    if report is not None and report.state is State.BLOCKED:
        return ProtectionPhase.FAILED
    if not _once(observed):
        return ProtectionPhase.REPROTECTING
    if report is not None and report.state is State.PAUSED:
        return ProtectionPhase.PAUSED
    return ProtectionPhase.RESYNC_REQUIRED if report is not None and report.state is State.RESYNC else done


def verdict(observed: ObservedVM) -> Verdict | None:
    """Return the health of a machine that a run moves or has moved, None where its replication tells it."""
    run = machineruns.moving(observed)
    if run is not None:
        return waiting(_word(observed, run.spec.kind), f"{run.spec.kind} {run.metadata.name} is under way")
    found = machineruns.life(observed)
    where = found.recovered
    match found.standing.place:
        case Place.FAILED_OVER if where is not None:
            return ready("FailedOver", _at(where))
        case Place.COMMITTED if where is not None:
            return ready("Committed", _at(where))
        case Place.FAILED_BACK:
            text = f"it runs at its own site again, moved by run {found.standing.run}; that can still be undone"
            return ready("FailedBack", text)
        case Place.SOURCE | Place.REVERSED:
            return _left_off(observed)
        case _:
            return None


def next_step(observed: ObservedVM) -> str | None:
    """Return what a person should do with a machine that a run has moved, None if nothing."""
    found = machineruns.life(observed)
    where, run = found.recovered, found.standing.run
    if found.standing.place is Place.FAILED_OVER and where is not None:
        at = f" at {where.address}:{where.port}" if where.address else ""
        return (
            f"Check machine {where.machine} of site {where.site}{at}, then commit: set spec.commit of the FailoverPlan "
            f"to {run}"
        )
    if found.standing.place is Place.FAILED_BACK:
        return f"Check the machine, then commit: set spec.commit of the FailoverPlan to {run}"
    return None


def _at(where: RecoveredMachine) -> str:
    return f"it runs at site {where.site} as {where.machine}, made by run {where.run}"


def _word(observed: ObservedVM, kind: RunKind) -> str:
    known = phase(observed)
    return known.value if kind is not RunKind.COMMIT and known is not None else "Committing"


def _left_off(observed: ObservedVM) -> Verdict | None:
    """Tell of a machine that a run has stopped and, because it failed, nobody has started again."""
    run = stopped_by(observed)
    if run is None:
        return None
    text = f"run {run} switched the machine off at its site and failed, so it runs nowhere"
    return stalled("MachineStopped", f"{text}: set spec.abort of the FailoverPlan to {run}")


def stopped_by(observed: ObservedVM) -> str | None:
    """Return the failed run that has left the machine stopped where it ran, None if there is none."""
    name = observed.vm.metadata.name
    for run in reversed(observed.runs):
        if run.spec.kind is RunKind.TEST_FAILOVER:
            continue
        member = lifecycle.member_of(run, name)
        over = run.status.phase in lifecycle.OVER
        failed = over and run.status.phase is not lifecycle.OVER[0]
        if run.spec.kind in machineruns.LEAVING and failed and member is not None:
            return run.metadata.name if lifecycle.was_stopped(run, member) else None
        if run.spec.kind is RunKind.ABORT and failed:
            continue
        return None
    return None
