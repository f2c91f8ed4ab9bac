"""The circle of a machine: where it stands, from its runs that are over. `docs/concepts/failover.md` draws the table.

One pure function: the standing that is known, and each run that ended since, in the order of their numbers. A run is
reckoned once; what it did stays known when its record is gone. Nothing else moves a machine from place to place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from farshore_operator.api import FailoverRun, ProtectedVM
from farshore_operator.api.failoverplan import Mode
from farshore_operator.api.failoverrun import MemberResult, RunKind, RunMember, RunPhase, StepPhase
from farshore_operator.api.protectedvm import Place, ProtectionPhase, RecoveredMachine, Standing
from farshore_operator.decide.runsteps import STOPPING, StepName

OVER = (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.ABORTED, RunPhase.CLEANED_UP)
AT_RECOVERY = (Place.FAILED_OVER, Place.COMMITTED, Place.REVERSED)
TO_BE_COMMITTED = (Place.FAILED_OVER, Place.FAILED_BACK)


@dataclass(frozen=True)
class Life:
    """Where a machine stands, and the machine at the recovery site while it runs there."""

    standing: Standing
    recovered: RecoveredMachine | None = None

    @property
    def at_recovery(self) -> bool:
        """Whether it runs at the recovery site."""
        return self.standing.place in AT_RECOVERY


PASSAGES: dict[tuple[Place, RunKind, RunKind | None], Place] = {
    (Place.SOURCE, RunKind.FAILOVER, None): Place.FAILED_OVER,
    (Place.FAILED_OVER, RunKind.CHANGE_POINT, RunKind.FAILOVER): Place.FAILED_OVER,
    (Place.FAILED_OVER, RunKind.COMMIT, RunKind.FAILOVER): Place.COMMITTED,
    (Place.FAILED_OVER, RunKind.ABORT, RunKind.FAILOVER): Place.SOURCE,
    (Place.SOURCE, RunKind.ABORT, RunKind.FAILOVER): Place.SOURCE,
    (Place.COMMITTED, RunKind.REPROTECT, None): Place.REVERSED,
    (Place.REVERSED, RunKind.FAILBACK, None): Place.FAILED_BACK,
    (Place.REVERSED, RunKind.ABORT, RunKind.FAILBACK): Place.REVERSED,
    (Place.FAILED_BACK, RunKind.ABORT, RunKind.FAILBACK): Place.REVERSED,
    (Place.FAILED_BACK, RunKind.COMMIT, RunKind.FAILBACK): Place.SOURCE,
}
"""From where, by which kind of run that succeeded (and of what move), to where. Whatever is not here moves nothing."""


def life(vm: ProtectedVM, runs: Iterable[FailoverRun]) -> Life:
    """Return where a machine stands; `runs` are those that it is a member of."""
    found = _known(vm)
    reckoned = vm.status.standing.sequence if vm.status.standing is not None else -1
    for run in sorted(runs, key=lambda run: run.spec.sequence):
        if run.spec.kind is RunKind.TEST_FAILOVER or run.spec.sequence <= reckoned:
            continue
        if run.status.phase not in OVER:
            break
        found = after(found, run, vm.metadata.name)
    return found


def _known(vm: ProtectedVM) -> Life:
    status = vm.status
    if status.standing is not None:
        return Life(status.standing, status.recovered)
    if status.recovered is None:
        return Life(Standing(place=Place.SOURCE))
    place = Place.COMMITTED if status.phase is ProtectionPhase.COMMITTED else Place.FAILED_OVER
    return Life(Standing(place=place, run=status.recovered.run), status.recovered)


def after(before: Life, run: FailoverRun, name: str) -> Life:
    """Return where a machine stands after a run that is over."""
    member = member_of(run, name)
    standing = before.standing.model_copy(update={"sequence": run.spec.sequence})
    if member is None:
        return Life(standing, before.recovered)
    standing = standing.model_copy(update={"epoch": max(standing.epoch, fence_of(run, member))})
    place = PASSAGES.get((standing.place, run.spec.kind, run.spec.undoes))
    if run.status.phase is not RunPhase.SUCCEEDED or place is None:
        return Life(standing, before.recovered)
    if run.spec.kind is RunKind.REPROTECT or (run.spec.kind is RunKind.COMMIT and place is Place.COMMITTED):
        return Life(standing.model_copy(update={"place": place}), before.recovered)
    point = _point(run, member) or standing.point
    moved = standing.model_copy(
        update={
            "place": place,
            "run": run.metadata.name,
            "point": point,
            "returned": place is Place.SOURCE,
        }
    )
    return Life(moved, _recovered(run, member) if place in AT_RECOVERY else None)


def member_of(run: FailoverRun, name: str) -> RunMember | None:
    """Return a machine's part in a run."""
    return next((member for member in run.spec.members if member.protected_vm == name), None)


def result_of(run: FailoverRun, name: str) -> MemberResult:
    """Return what a run made of a machine."""
    found = next((member for member in run.status.members if member.protected_vm == name), None)
    return found or MemberResult(protected_vm=name)


def step_phase(run: FailoverRun, step: StepName, name: str) -> StepPhase | None:
    """Return where a step of a machine is, None before it began."""
    found = next((s for s in run.status.steps if s.name == step and s.member == name), None)
    return found.phase if found is not None else None


def fence_of(run: FailoverRun, member: RunMember) -> int:
    """Return the epoch that the run has written or may have written for a machine; 0 if it has not come to that."""
    phase = step_phase(run, StepName.FENCE, member.protected_vm)
    return 0 if phase in (None, StepPhase.PENDING) else member.epoch + 1


def was_stopped(run: FailoverRun, member: RunMember) -> bool:
    """Tell whether the run, or the one that it replaces, has stopped the machine at the site that it leaves."""
    name = member.protected_vm
    return member.stopped or any(step_phase(run, step, name) is StepPhase.SUCCEEDED for step in STOPPING)


def may_be_stopped(run: FailoverRun, member: RunMember) -> bool:
    """Tell whether the run may have switched the machine off and does not know it: it was to, failed, and went no
    further. Whoever took the order may carry it out after the run lost sight of it."""
    unsure = (StepPhase.RUNNING, StepPhase.FAILED)
    asked = any(step_phase(run, step, member.protected_vm) in unsure for step in STOPPING)
    return asked and not has_arrived(run, member)


def has_arrived(run: FailoverRun, member: RunMember) -> bool:
    """Tell whether the run has begun to start the machine where it goes."""
    starting = (StepName.START_MACHINE, StepName.START_SOURCE)
    return any(step_phase(run, step, member.protected_vm) is not None for step in starting)


def _point(run: FailoverRun, member: RunMember) -> str | None:
    """Return the point on which replication goes on after the run.

    A machine that was left alone goes on with what it has: a point that an unplanned failover chose says nothing of it.
    """
    if run.spec.kind is RunKind.ABORT:
        planned = run.spec.mode is Mode.PLANNED
        return member.point if planned else None
    if run.spec.kind is RunKind.COMMIT:
        return member.point
    point = result_of(run, member.protected_vm).point
    return point.name if point is not None else None


def _recovered(run: FailoverRun, member: RunMember) -> RecoveredMachine:
    """Return the machine at the recovery site, which a failover reaches and the abort of a failback keeps."""
    result = result_of(run, member.protected_vm)
    kept = run.spec.kind is RunKind.ABORT
    return RecoveredMachine(
        run=run.metadata.name,
        process_server=(member.source_process_server if kept else member.process_server) or None,
        host_key=result.host_key,
        machine=(member.source_machine or member.target_name) if kept else member.target_name,
        site=member.source_site if kept else member.target_site,
        address=result.address,
        port=result.port,
    )
