"""What a decision is: at most one call for a machine or task, and what there is to tell; and how calls are followed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from farshore_engine.contract.operation import Operation
from farshore_engine.contract.replication import Check, CheckResult
from farshore_operator.engines.siterecovery.calls import Call
from farshore_operator.engines.siterecovery.facts import Job, Problem

AGAIN = timedelta(minutes=10)
"""How long after a job failed its call is made again by itself: a person may have removed the cause."""
UNSEEN = timedelta(minutes=10)
"""How long a call without a job that can be read is taken to be under way."""

ReportT = TypeVar("ReportT")


@dataclass(frozen=True)
class Verdict(Generic[ReportT]):
    """The report, and the call that is made next; None if nothing is."""

    report: ReportT
    call: Call | None = None


def begun(call: Call, job: str, now: datetime) -> Operation:
    """Record a call that was begun."""
    return Operation(call=call.name, subject=call.subject, job=job, begun_at=now)


def under_way(operation: Operation | None, job: Job | None, now: datetime) -> bool:
    """Tell whether what was recorded still goes on, as far as is known."""
    if operation is None:
        return False
    if job is not None:
        return not job.over
    return now - operation.begun_at < UNSEEN


def resting(operation: Operation | None, job: Job | None, now: datetime) -> bool:
    """Tell whether what was recorded has failed, and is not tried again yet."""
    failed = operation is not None and job is not None and job.failed
    return failed and operation is not None and now - operation.begun_at < AGAIN


def told(job: Job) -> Problem:
    """Return why a job failed, in Microsoft's words."""
    state = f"job {job.id} ({job.scenario}) ended as {job.state}"
    if not job.problems:
        return Problem(job.state, f"{state}: {job.text}" if job.text else state, remedy="Look at it in the vault")
    first = job.problems[0]
    rest = f" (and {len(job.problems) - 1} more)" if len(job.problems) > 1 else ""
    return Problem(first.code, f"{state}: {first.told}{rest}", remedy=first.remedy or "Look at it in the vault")


def checks(problems: tuple[Problem, ...]) -> tuple[Check, ...]:
    """Return health errors as lines of a checklist: message with Microsoft's causes, and its remedy."""
    return tuple(
        Check(
            name=f"SiteRecovery{''.join(c for c in one.code if c.isalnum())}",
            result=CheckResult.ERROR if one.severe else CheckResult.WARNING,
            message=one.told,
            remedy=one.remedy,
        )
        for one in problems
    )
