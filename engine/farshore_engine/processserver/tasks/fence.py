"""Fence: a record with a higher epoch at the head of the chain, so that no older writer extends it any more."""

from __future__ import annotations

from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, vault_of
from farshore_engine.vault.chain import list_slots, read_slot


def fence(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    epoch, writer = task.input.epoch, task.input.writer or task.run
    with vault_of(task) as vault:
        slots = list_slots(vault.access)
        if slots:
            head = read_slot(vault.access, slots[-1]).record
            if head is not None and (head.header.epoch, head.header.writer) == (epoch, writer):
                return TaskResult(slot=slots[-1])
        chain = vault.claim(writer=writer, epoch=epoch, reason=f"fenced by {task.run}", clock=context.now)
        return TaskResult(slot=chain.claim)
