"""CommitSpool: make a point of what the source holds now ("Latest"), or of what is complete in the spool."""

from __future__ import annotations

from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext

LONGEST = 300.0  # seconds for one try; the task's deadline bounds the tries


def commit_spool(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    seconds = LONGEST
    if task.deadline is not None:
        seconds = min(LONGEST, max(1.0, (task.deadline - context.now()).total_seconds() - 1.0))
    point = context.take_point(task.input.machine_id, seconds)
    return TaskResult(point=point, slot=point.slot)
