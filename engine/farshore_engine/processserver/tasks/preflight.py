"""Preflight: every check of a source machine, without touching it. Failed checks are its result, not its failure."""

from __future__ import annotations

from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, source_of


def preflight(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    outcome = context.installer.preflight(source_of(task), context.data_port())
    return TaskResult(checks=outcome.checks)
