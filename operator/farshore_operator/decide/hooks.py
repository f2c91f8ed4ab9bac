"""What a run does before and after each group of its plan: jobs, calls of web services, and waiting for people.

A hook is a step of the run without a machine, named `<group>/<before|after>/<hook>`. It begins once, its object has a
name that follows from the run's, and its end is kept in the journal; so a killed operator goes on with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from enum import StrEnum

from farshore_operator.api import Approval, FailoverRun
from farshore_operator.api.approval import Answer
from farshore_operator.api.failoverrun import FailoverRunStatus, RunGroup, RunKind, Step, StepPhase
from farshore_operator.api.hook import ApprovalHook, Hook, HTTPHook, JobHook, OnFailure
from farshore_operator.decide.actions import CallService, HookAnswered, JobState, RunJob
from farshore_operator.decide.decision import Outcome
from farshore_operator.decide.hookrecord import is_recorded
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import HOOK_LABEL, RUN_LABEL, bounded, label
from farshore_operator.decide.runjournal import Journal

TIMEOUT = timedelta(minutes=10)
"""How long a job or a call may take that says nothing of it."""
JOB_GRACE = timedelta(minutes=1)
"""How much longer than its deadline a Job is waited for: the cluster should have ended it itself."""
JOB_NAME_LENGTH = 63
FINAL = (StepPhase.SUCCEEDED, StepPhase.SKIPPED, StepPhase.FAILED)


class When(StrEnum):
    """On which side of its group a hook stands."""

    BEFORE = "before"
    AFTER = "after"


def step_name(group: RunGroup, when: When, hook: Hook) -> str:
    """Return the name of a hook's step."""
    return f"{group.name}/{when}/{hook.name}"


def hook_step(journal: Journal, group: RunGroup, when: When, hook: Hook) -> StepPhase:
    """Take one hook as far as it goes now, and return where it is for the run.

    It is called at every decision until it returns a final phase. RUNNING makes the run wait here, FAILED fails it,
    SUCCEEDED and SKIPPED let it go on; a failed hook whose `onFailure` is Continue is FAILED in the journal only.
    """
    name = step_name(group, when, hook)
    known = journal.get(name)
    if known is not None and known.phase in FINAL:
        return _outcome(journal, group, known, hook)
    if journal.observed.run.spec.kind is RunKind.TEST_FAILOVER and not hook.in_drills:
        return journal.set(name, "", StepPhase.SKIPPED, message="it is not for drills (inDrills)").phase
    if known is None:
        known = journal.set(name, "", StepPhase.RUNNING, message="it begins")
    if hook.job is not None:
        step = _job(journal, known, group, when, hook, hook.job)
    elif hook.http is not None:
        step = _call(journal, known, group, when, hook, hook.http)
    else:
        step = _approval(journal, known, hook, hook.approval or ApprovalHook(message=hook.name))
    return _outcome(journal, group, step, hook)


def fold(status: FailoverRunStatus, outcome: Outcome) -> FailoverRunStatus:
    """Write what a hook's call or Job brought at once into its step; `succeeded` None leaves it running."""
    if not isinstance(outcome, HookAnswered):
        return status
    phase = {None: StepPhase.RUNNING, True: StepPhase.SUCCEEDED, False: StepPhase.FAILED}[outcome.succeeded]
    update: dict[str, object] = {"phase": phase, "message": outcome.message, "remedy": outcome.remedy or None}
    if phase in FINAL:
        update["finished_at"] = outcome.at.replace(microsecond=0)
    steps = tuple(
        step.model_copy(update=update)
        if step.name == outcome.step and not step.member and step.phase not in FINAL
        else step
        for step in status.steps
    )
    return status.model_copy(update={"steps": steps})


def is_hook(step: Step) -> bool:
    """Tell whether a step is a hook's, and not one of a machine or of the run itself."""
    return not step.member and "/" in step.name


def hook_of(run: FailoverRun, step: Step) -> Hook | None:
    """Return the hook that a step carries out, None if it is not a hook's."""
    return next((hook for group, when, hook in _all(run) if step_name(group, when, hook) == step.name), None)


def rolls_back(run: FailoverRun) -> bool:
    """Tell whether a hook failed that wants its run undone."""
    failed = [step for step in run.status.steps if is_hook(step) and step.phase is StepPhase.FAILED]
    hooks = [hook_of(run, step) for step in failed]
    return any(hook is not None and hook.on_failure is OnFailure.ROLL_BACK for hook in hooks)


def awaits_approval(run: FailoverRun, status: FailoverRunStatus) -> Step | None:
    """Return the hook for which the run waits for people, None if it does not."""
    for step in status.steps:
        if is_hook(step) and step.phase is StepPhase.RUNNING:
            hook = hook_of(run, step)
            if hook is not None and hook.approval is not None:
                return step
    return None


def job_name(run: str, step: str) -> str:
    """Return the name of a hook's Job."""
    plain = re.sub("[^a-z0-9]+", "-", f"{run}-{step}".lower()).strip("-")
    # A group may have any name: two that differ in signs only must not share a Job.
    mark = "" if re.fullmatch("[a-z0-9/-]*", step) else f"-{hashlib.sha256(step.encode()).hexdigest()[:8]}"
    return bounded(f"{plain}{mark}", JOB_NAME_LENGTH)


def _all(run: FailoverRun) -> list[tuple[RunGroup, When, Hook]]:
    return [
        (group, when, hook)
        for group in run.spec.groups
        for when, hooks in ((When.BEFORE, group.before), (When.AFTER, group.after))
        for hook in hooks
    ]


def _outcome(journal: Journal, group: RunGroup, step: Step, hook: Hook) -> StepPhase:
    """Return where a hook is for the run, which goes on when the vault knows that the hook's turn is over."""
    phase = _meaning(step, hook)
    passed = phase in (StepPhase.SUCCEEDED, StepPhase.SKIPPED)
    name = job_name(journal.observed.run.metadata.name, step.name)
    return StepPhase.RUNNING if passed and not is_recorded(journal, group, step, name) else phase


def _meaning(step: Step, hook: Hook) -> StepPhase:
    if step.phase is StepPhase.FAILED and hook.on_failure is OnFailure.CONTINUE:
        return StepPhase.SKIPPED
    return step.phase


def _deadline(step: Step, hook: Hook, otherwise: timedelta | None) -> datetime | None:
    bound = hook.timeout or otherwise
    return step.started_at + bound if bound is not None and step.started_at is not None else None


def _job(journal: Journal, step: Step, group: RunGroup, when: When, hook: Hook, job: JobHook) -> Step:
    run = journal.observed.run
    name = job_name(run.metadata.name, step.name)
    found = journal.observed.jobs.get(name)
    deadline = _deadline(step, hook, TIMEOUT)
    if found is not None and found.foreign:
        return journal.set(step.name, "", StepPhase.FAILED, message=f"there is another Job {name}, not of this run")
    if found is not None and found.state is JobState.COMPLETE:
        return journal.set(step.name, "", StepPhase.SUCCEEDED, message=f"Job {name} is complete", remedy=None)
    if found is not None and found.state is JobState.FAILED:
        remedy = f"Look at `kubectl -n {run.metadata.namespace} logs job/{name}`, correct it, and start again"
        return journal.set(
            step.name, "", StepPhase.FAILED, message=f"Job {name} failed: {found.message}", remedy=remedy
        )
    if deadline is not None and journal.now > deadline + JOB_GRACE:
        text = f"Job {name} has not ended by {deadline:%Y-%m-%dT%H:%M:%SZ}"
        return journal.set(step.name, "", StepPhase.FAILED, message=text, remedy="See why its pod does not end")
    if found is None:
        environment = _environment(run, group, when, hook)
        bound = int((hook.timeout or TIMEOUT).total_seconds())
        labels = {RUN_LABEL: label(run.metadata.name), HOOK_LABEL: "true"}
        action = RunJob(id_of(run), step.name, name, job, environment, bound, labels)
        journal.actions.append(action)
        return journal.set(step.name, "", StepPhase.RUNNING, message=step.message or "it begins")
    return journal.set(step.name, "", StepPhase.RUNNING, message=f"Job {name}: {found.message}", remedy=None)


def _call(journal: Journal, step: Step, group: RunGroup, when: When, hook: Hook, http: HTTPHook) -> Step:
    run = journal.observed.run
    deadline = _deadline(step, hook, TIMEOUT)
    if deadline is not None and journal.now >= deadline:
        text = f"no good answer by {deadline:%Y-%m-%dT%H:%M:%SZ}: {step.message or 'none at all'}"
        return journal.set(step.name, "", StepPhase.FAILED, message=text, remedy="See why the service does not answer")
    environment = _environment(run, group, when, hook)
    body = http.body if http.body is not None else json.dumps(_document(environment))
    key = f"{run.metadata.uid}/{step.name}"
    journal.actions.append(CallService(id_of(run), step.name, http, body, key, deadline or journal.now + TIMEOUT))
    return journal.set(step.name, "", StepPhase.RUNNING, message=step.message)


def _environment(run: FailoverRun, group: RunGroup, when: When, hook: Hook) -> dict[str, str]:
    machines = [member.protected_vm for member in run.spec.members if (member.group or "") == group.name]
    return {
        "FARSHORE_RUN": run.metadata.name,
        "FARSHORE_PLAN": run.spec.owner.name,
        "FARSHORE_KIND": run.spec.kind.value,
        "FARSHORE_GROUP": group.name,
        "FARSHORE_WHEN": when.value,
        "FARSHORE_HOOK": hook.name,
        "FARSHORE_MACHINES": " ".join(machines),
    }


def _document(environment: dict[str, str]) -> dict[str, object]:
    document: dict[str, object] = {key.removeprefix("FARSHORE_").lower(): text for key, text in environment.items()}
    return document | {"machines": environment["FARSHORE_MACHINES"].split()}


def _approval(journal: Journal, step: Step, hook: Hook, wanted: ApprovalHook) -> Step:
    run = journal.observed.run.metadata.name
    said = [one for one in journal.observed.approvals if _counts(one, run, step, hook, wanted)]
    rejected = next((one for one in said if one.spec.answer is Answer.REJECT), None)
    if rejected is not None:
        why = f": {rejected.spec.comment}" if rejected.spec.comment else ""
        text = f"{rejected.spec.user} rejected it{why}"
        return journal.set(step.name, "", StepPhase.FAILED, message=text, remedy="Agree, and start again")
    people = sorted({one.spec.user for one in said})
    if len(people) >= wanted.count:
        return journal.set(step.name, "", StepPhase.SUCCEEDED, message=f"approved by {', '.join(people)}", remedy=None)
    deadline = _deadline(step, hook, None)
    if deadline is not None and journal.now >= deadline:
        text = f"not approved by {deadline:%Y-%m-%dT%H:%M:%SZ}: {len(people)} of {wanted.count}"
        return journal.set(step.name, "", StepPhase.FAILED, message=text, remedy="Ask them, and start again")
    until = f" until {deadline:%Y-%m-%dT%H:%M:%SZ}" if deadline is not None else ""
    so_far = f", so far {', '.join(people)}" if people else ""
    text = f"it waits{until} for {wanted.count} of {_who(wanted)}{so_far}: {wanted.message}"
    return journal.set(step.name, "", StepPhase.RUNNING, message=text, remedy=f"farshore approve {run} {step.name}")


def _counts(approval: Approval, run: str, step: Step, hook: Hook, wanted: ApprovalHook) -> bool:
    """Tell whether an Approval is for this hook, by somebody who may give it, and not from before it waited."""
    spec, made = approval.spec, approval.metadata.creation_timestamp
    if spec.run != run or spec.hook not in (step.name, hook.name):
        return False
    if made is None or step.started_at is None or made < step.started_at:
        return False
    anybody = not wanted.users and not wanted.groups
    return anybody or spec.user in wanted.users or any(group in wanted.groups for group in spec.groups)


def _who(wanted: ApprovalHook) -> str:
    parts = [", ".join(wanted.users)] if wanted.users else []
    parts += [f"group {' or '.join(wanted.groups)}"] if wanted.groups else []
    return " or ".join(parts) or "those who may create Approvals"
