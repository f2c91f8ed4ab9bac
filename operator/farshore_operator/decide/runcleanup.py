"""Removes what a run made: for each machine that the recovery site was ever asked about."""

from __future__ import annotations

from datetime import timedelta

from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_operator.api.failoverrun import RunMember, RunPhase, StepPhase
from farshore_operator.decide.actions import DeleteOwned
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.runjournal import OVER, Journal
from farshore_operator.decide.runmember import take_step
from farshore_operator.decide.runsteps import RULES, StepName

CLEAN_UP_AGAIN = timedelta(minutes=1)
"""How long after a failed clean-up it is tried again, by itself."""
FINISHED = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
TOUCHING = (
    StepName.SELECT_POINT,
    StepName.HYDRATE,
    StepName.UPLOAD_DISKS,
    StepName.START_MACHINE,
    StepName.PROBE,
    StepName.CLEAN_UP,
)


def clean_up(journal: Journal) -> RunPhase:
    """Call off what is unfinished and remove what was made; CLEANING_UP until nothing is left."""
    run = journal.observed.run
    call_off(journal, "called off: the run is cleaned up")
    states = [_clean_member(journal, member) for member in run.spec.members if _touched(journal, member)]
    return RunPhase.CLEANED_UP if all(state in OVER for state in states) else RunPhase.CLEANING_UP


def call_off(journal: Journal, why: str) -> None:
    """Skip the steps that are not over, and delete their tasks."""
    for key, step in list(journal.steps.items()):
        if step.phase in (StepPhase.PENDING, StepPhase.RUNNING) and step.name != StepName.CLEAN_UP:
            journal.set(*key, StepPhase.SKIPPED, message=why)
    for task in journal.observed.tasks.values():
        # A process server that restarts would begin an unfinished task again, after the clean-up.
        own = task.spec.kind is TaskKind.CLEAN_UP
        if not own and (task.status is None or task.status.phase not in FINISHED):
            journal.actions.append(DeleteOwned(id_of(task)))


def _clean_member(journal: Journal, member: RunMember) -> StepPhase:
    rule = RULES[StepName.CLEAN_UP]
    name = member.protected_vm
    step = journal.get(rule.name, name)
    if step is not None and step.phase in OVER:
        return step.phase
    task = journal.task(rule.name, name)
    if step is not None and step.phase is StepPhase.FAILED and task is not None:
        ended = step.finished_at or journal.now
        if journal.now - ended >= CLEAN_UP_AGAIN:
            # The task is the record of an attempt; the next one gets its name.
            journal.actions.append(DeleteOwned(id_of(task)))
            return journal.set(rule.name, name, StepPhase.RUNNING, message="tried again", finished_at=None).phase
        return step.phase
    return take_step(journal, member, rule).phase


def _touched(journal: Journal, member: RunMember) -> bool:
    name = member.protected_vm
    return any(journal.get(step, name) is not None or journal.task(step, name) is not None for step in TOUCHING)
