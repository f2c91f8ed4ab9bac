"""What there is to tell of a run: its health, whether it succeeded, and what a person should do."""

from __future__ import annotations

from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import FailoverRunStatus, RunKind, RunPhase, Step, StepPhase
from farshore_operator.decide.runsteps import StepName, may_fail
from farshore_operator.report.conditions import Seen, Verdict, ready, stalled, waiting

SUCCEEDED = "Succeeded"


def failed_steps(status: FailoverRunStatus) -> tuple[Step, ...]:
    """Return the steps that failed, in order."""
    return tuple(step for step in status.steps if step.phase is StepPhase.FAILED)


def _told(step: Step) -> str:
    where = f" of {step.member}" if step.member else ""
    return f"{step.name}{where}: {step.message}"


def verdict(status: FailoverRunStatus) -> Verdict:
    """Return how kstatus should read the run."""
    working = [step for step in status.steps if step.phase is StepPhase.RUNNING]
    match status.phase:
        case RunPhase.SUCCEEDED:
            return ready("Succeeded", "every machine answered a probe" if status.members else "done")
        case RunPhase.CLEANED_UP:
            return ready("CleanedUp", "nothing is left of what the run made")
        case RunPhase.FAILED:
            text = "; ".join(_told(step) for step in failed_steps(status))
            return stalled("RunFailed", text or "a step failed")
        case RunPhase.CLEANING_UP:
            broken = next((s for s in failed_steps(status) if s.name == StepName.CLEAN_UP), None)
            if broken is not None:
                return stalled("CleanUpFailed", f"{_told(broken)}. {broken.remedy or ''}".strip())
            return waiting("CleaningUp", "; ".join(_told(step) for step in working) or "clean-up is under way")
        case _:
            return waiting("Running", "; ".join(f"{s.name} of {s.member}" for s in working) or "it begins")


def own_conditions(old: FailoverRunStatus, new: FailoverRunStatus) -> tuple[Seen, ...]:
    """Keep beyond the clean-up whether the run succeeded."""
    if new.phase is RunPhase.SUCCEEDED:
        return (Seen(SUCCEEDED, True, "Succeeded", "every machine answered a probe"),)
    if new.phase is RunPhase.FAILED:
        text = "; ".join(_told(step) for step in failed_steps(new))
        return (Seen(SUCCEEDED, False, "RunFailed", text),)
    known = old.condition(SUCCEEDED)
    if new.phase in (RunPhase.CLEANING_UP, RunPhase.CLEANED_UP):
        if known is not None and known.status.value in ("True", "False"):
            return (Seen(SUCCEEDED, known.status.value == "True", known.reason, known.message),)
        return (Seen(SUCCEEDED, False, "CalledOff", "it was cleaned up before it ended"),)
    return ()


def next_step(run: FailoverRun, status: FailoverRunStatus, health: Verdict) -> str | None:
    """Return what a person should do next, None if nothing."""
    failed = [step for step in failed_steps(status) if not may_fail(run.spec, StepName(step.name))]
    if status.phase is RunPhase.FAILED:
        remedy = next((step.remedy for step in failed if step.remedy), None)
        drill = run.spec.kind is RunKind.TEST_FAILOVER
        after = (
            f"delete {run.spec.owner.kind} {run.spec.owner.name} to clean up"
            if drill
            else "then edit the plan to start again"
        )
        return f"{remedy}; {after}" if remedy else f"Look at status.steps; {after}"
    if health.reason == "CleanUpFailed":
        return health.message
    return None
