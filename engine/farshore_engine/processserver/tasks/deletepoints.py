"""DeletePoints: after a commit whose policy says so, delete all points but the pinned, the locked and the newest."""

from __future__ import annotations

from datetime import timedelta

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, vault_of
from farshore_engine.vault.chain import list_slots, read_slot
from farshore_engine.vault.prune import PruneState, prune
from farshore_engine.vault.retention import RetentionRules

ROUNDS = 2  # a prune condemns points, the next one buries them and frees what they held
NOTHING_MORE = RetentionRules(keep_all=timedelta())


def delete_points(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. It is refused once anybody extends the chain behind the run's fence: newer points may follow."""
    with vault_of(task) as vault:
        head = read_slot(vault.access, list_slots(vault.access)[-1]).record
        if head is None or head.header.epoch != task.input.epoch:
            raise StopFault(
                f"the chain of {task.input.machine_id} has gone on since the run fenced it: no point was deleted",
                "Nothing: what is there is kept by the policy's retention",
                reason="ChainMovedOn",
            )
        before = {point.slot: point.name for point in vault.catalogue().summaries()}
        writer, reason = head.header.writer, f"points deleted by {task.run}"
        chain = vault.claim(writer=writer, epoch=task.input.epoch, reason=reason, clock=context.now)
        state = PruneState.of(vault)
        for _ in range(ROUNDS):
            context.progress(None, f"deleting the points of {task.input.machine_id}")
            prune(vault, chain, NOTHING_MORE, in_flight=frozenset, clock=context.now, state=state)
        kept = {point.slot for point in vault.catalogue().summaries()}
    return TaskResult(removed=tuple(name for slot, name in sorted(before.items()) if slot not in kept))
