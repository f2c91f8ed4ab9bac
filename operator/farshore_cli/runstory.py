"""Tells a run as it happens: a line for each step that began, went on or ended, and one for how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import RunPhase, Step, StepPhase
from farshore_operator.decide.hooks import awaits_approval
from farshore_operator.kube.client import Client
from farshore_operator.kube.resources import FAILOVER_RUN

OVER = (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.ABORTED, RunPhase.CLEANED_UP)
PAUSE = 1.0


def heading(run: FailoverRun) -> str:
    """Return what the run is: kind, for whom, machines, and who asked."""
    spec, asked = run.spec, run.spec.requested_by
    names = ", ".join(member.protected_vm for member in spec.members)
    who = asked.user or asked.field_manager if asked is not None else None
    by = f", asked by {who}" if who else ""
    at = f" at {asked.revision}" if asked is not None and asked.revision else ""
    reason = f" ({asked.reason})" if asked is not None and asked.reason else ""
    return f"{spec.kind} {run.metadata.name} of {spec.owner.kind} {spec.owner.name}: {names}{by}{at}{reason}"


def news(before: FailoverRun | None, after: FailoverRun) -> list[str]:
    """Return the lines for what has happened between two looks at a run."""
    known = {(step.name, step.member): step for step in before.status.steps} if before is not None else {}
    lines = [_line(step) for step in after.status.steps if _told(step) != _told(known.get((step.name, step.member)))]
    waiting = awaits_approval(after, after.status) if after.status.phase is RunPhase.RUNNING else None
    asked_before = awaits_approval(before, before.status) if before is not None else None
    if waiting is not None and (asked_before is None or asked_before.name != waiting.name):
        lines.append(f"          waiting for people: {waiting.remedy}")
    phase = before.status.phase if before is not None else None
    if after.status.phase in OVER and phase is not after.status.phase:
        lines.append(ending(after))
    return lines


def ending(run: FailoverRun) -> str:
    """Return how a run ended, with what it achieved or what to do."""
    status = run.status
    if status.phase is RunPhase.SUCCEEDED:
        figures = [
            f"{what} {value:.0f} s"
            for what, value in (("RPO", status.rpo_seconds), ("RTO", status.rto_seconds))
            if value
        ]
        return f"Succeeded{': ' if figures else ''}{', '.join(figures)}"
    told = status.condition("Ready")
    step = f"\n  what to do: {status.next_step}" if status.next_step else ""
    return f"{status.phase}: {told.message if told is not None else ''}{step}"


def follow(client: Client, namespace: str, name: str, say: Callable[[str], None]) -> FailoverRun:
    """Tell a run until it is over, also when the API server is away for a while.

    Raises:
        StopFault: the run does not exist (any more).
    """
    seen: FailoverRun | None = None
    while True:
        try:
            body = client.get(FAILOVER_RUN, namespace, name)
        except WaitFault:
            time.sleep(PAUSE)
            continue
        if body is None:
            raise StopFault(f"there is no FailoverRun {namespace}/{name}", "`kubectl get failoverruns` lists them")
        run = FailoverRun.of(body)
        if seen is None:
            say(heading(run))
        for line in news(seen, run):
            say(line)
        if run.status.phase in OVER:
            return run
        seen = run
        time.sleep(PAUSE)


def _told(step: Step | None) -> tuple[object, ...]:
    """Return what of a step makes a new line: not every message while it goes on, but each tenth of its way."""
    if step is None:
        return ()
    tenth = step.percent // 10 if step.percent is not None else None
    return (step.phase, tenth if step.phase is StepPhase.RUNNING else None)


def _line(step: Step) -> str:
    at = (step.finished_at or step.started_at or datetime.now(UTC)).astimezone(UTC)
    percent = f" {step.percent} %" if step.percent is not None and step.phase is StepPhase.RUNNING else ""
    text = f": {step.message}" if step.message else ""
    where = f"{step.member} " if step.member else ""
    return f"{at:%H:%M:%S}  {where}{step.name} {step.phase}{percent}{text}"
