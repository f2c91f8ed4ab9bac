"""Leaves in the vault that a hook's turn is over, so that a fresh control plane does not do it again."""

from __future__ import annotations

from datetime import timedelta

from farshore_engine.contract.tasks import RunEntry, TaskInput, TaskKind, TaskPhase
from farshore_operator.api.failoverrun import RunGroup, RunKind, Step, StepPhase
from farshore_operator.api.task import TaskSpec
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import MACHINE_LABEL, RUN_LABEL, label
from farshore_operator.decide.runinputs import journalled
from farshore_operator.decide.runjournal import Journal

LIMIT = timedelta(minutes=10)
"""How long the run waits until the vault has it; then it goes on without."""


def is_recorded(journal: Journal, group: RunGroup, step: Step, name: str) -> bool:
    """Tell whether the vault knows that a hook is over, or cannot be told now; ask for that where it does not.

    `name` is that of the hook's objects. A drill is not continued elsewhere, so it leaves nothing.
    """
    run = journal.observed.run
    if run.spec.kind is RunKind.TEST_FAILOVER or step.phase is StepPhase.SKIPPED:
        return True
    if any(one.step == step.name for known in journal.observed.history.values() for one in known.steps):
        return True
    task = journal.observed.tasks.get(name)
    if task is not None:
        over = task.status is not None and task.status.phase in (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
        return over or (task.spec.deadline is not None and journal.now > task.spec.deadline)
    mine = [member for member in run.spec.members if (member.group or "") == group.name]
    writer = next((member for member in mine if member.process_server in journal.observed.connected), None)
    if writer is None:
        return True  # nobody is there to write it: what comes next waits for the same process servers
    spec = TaskSpec(
        kind=TaskKind.NOTE,
        process_server=writer.process_server,
        run=run.metadata.name,
        step=step.name,
        protected_vm=writer.protected_vm,
        input=TaskInput(
            machine_id=writer.machine_id,
            journal=RunEntry(run=run.metadata.name, step=step.name, spec=journalled(run.spec)),
        ),
        deadline=journal.now + LIMIT,
    )
    labels = {RUN_LABEL: label(run.metadata.name), MACHINE_LABEL: label(writer.protected_vm)}
    journal.actions.append(CreateOwned("Task", run.metadata.namespace, name, spec.dump(), id_of(run), labels))
    return False
