"""ShutdownSource: power the source machine off over SSH, and see that it no longer answers."""

from __future__ import annotations

from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, source_of


def shutdown_source(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    source = source_of(task)
    context.progress(None, f"shutting {source.address} down")
    return TaskResult(confirmed=context.installer.shutdown(source))
