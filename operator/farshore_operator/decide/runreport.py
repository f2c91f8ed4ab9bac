"""What there is to tell of a run: its health, whether it succeeded, and what a person should do."""

from __future__ import annotations

from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import FailoverRunStatus, RunKind, RunPhase, Step, StepPhase
from farshore_operator.decide.hooks import awaits_approval, is_hook
from farshore_operator.decide.runsteps import StepName, may_fail
from farshore_operator.report.conditions import Seen, Verdict, ready, stalled, waiting

SUCCEEDED = "Succeeded"
AWAITING_APPROVAL = "AwaitingApproval"


def failed_steps(status: FailoverRunStatus) -> tuple[Step, ...]:
    """Return the steps that failed, in order."""
    return tuple(step for step in status.steps if step.phase is StepPhase.FAILED)


def _told(step: Step) -> str:
    where = f" of {step.member}" if step.member else ""
    return f"{step.name}{where}: {step.message}"


def _doing(step: Step) -> str:
    return f"{step.name} of {step.member}" if step.member else step.name


def verdict(run: FailoverRun, status: FailoverRunStatus) -> Verdict:
    """Return how kstatus should read the run."""
    working = [step for step in status.steps if step.phase is StepPhase.RUNNING]
    asked = awaits_approval(run, status)
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
        case _ if asked is not None:
            return ready(AWAITING_APPROVAL, f"{asked.name}: {asked.message}")
        case _:
            return waiting("Running", "; ".join(_doing(step) for step in working) or "it begins")


def own_conditions(run: FailoverRun, old: FailoverRunStatus, new: FailoverRunStatus) -> tuple[Seen, ...]:
    """Keep beyond the clean-up whether the run succeeded."""
    if new.phase is RunPhase.SUCCEEDED:
        return (Seen(SUCCEEDED, True, "Succeeded", "every machine answered a probe"),)
    if new.phase is RunPhase.FAILED:
        text = "; ".join(_told(step) for step in failed_steps(new))
        return (Seen(SUCCEEDED, False, "RunFailed", text),)
    asked = awaits_approval(run, new)
    if asked is not None:
        return (Seen(AWAITING_APPROVAL, True, AWAITING_APPROVAL, asked.remedy or ""),)
    known = old.condition(SUCCEEDED)
    if new.phase in (RunPhase.CLEANING_UP, RunPhase.CLEANED_UP):
        if known is not None and known.status.value in ("True", "False"):
            return (Seen(SUCCEEDED, known.status.value == "True", known.reason, known.message),)
        return (Seen(SUCCEEDED, False, "CalledOff", "it was cleaned up before it ended"),)
    return ()


def next_step(run: FailoverRun, status: FailoverRunStatus, health: Verdict) -> str | None:
    """Return what a person should do next, None if nothing."""
    failed = [step for step in failed_steps(status) if is_hook(step) or not may_fail(run.spec, StepName(step.name))]
    asked = awaits_approval(run, status) if status.phase is RunPhase.RUNNING else None
    if asked is not None:
        return asked.remedy
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
