"""The Jobs of a run's hooks that are under way, and what people said to them."""

from __future__ import annotations

from typing import Any

from farshore_operator.api import Approval, FailoverRun
from farshore_operator.api.failoverrun import StepPhase
from farshore_operator.decide import hooks
from farshore_operator.decide.actions import JobFacts, JobState
from farshore_operator.kube.client import Json
from farshore_operator.observe.world import World


def approvals(world: World, run: FailoverRun) -> tuple[Approval, ...]:
    """Return what people said to the hooks of a run."""
    name = run.metadata.name
    return tuple(world.all(Approval, run.metadata.namespace, lambda body: body["spec"].get("run") == name))


def jobs(world: World, run: FailoverRun) -> dict[str, JobFacts]:
    """Read the Jobs of hooks that are under way, by name.

    Raises:
        Fault: the API is away or refuses.
    """
    found = {}
    for step in run.status.steps:
        hook = hooks.hook_of(run, step) if hooks.is_hook(step) and step.phase is StepPhase.RUNNING else None
        if hook is None or hook.job is None:
            continue
        name = hooks.job_name(run.metadata.name, step.name)
        body = world.job(run.metadata.namespace, name)
        if body is not None:
            found[name] = facts(body, run.metadata.uid)
    return found


def facts(body: Json, owner: str) -> JobFacts:
    """Return where a Job is; `owner` is the UID of the run that it must belong to."""
    mine = any(reference.get("uid") == owner for reference in body["metadata"].get("ownerReferences") or ())
    status: Any = body.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            state = JobState.COMPLETE if condition["type"] == "Complete" else JobState.FAILED
            told = condition.get("message") or condition.get("reason") or ""
            return JobFacts(state if mine else JobState.RUNNING, told, foreign=not mine)
    pods = f"{status.get('active', 0)} pod(s) under way, {status.get('failed', 0)} failed"
    return JobFacts(JobState.RUNNING, pods, foreign=not mine)
