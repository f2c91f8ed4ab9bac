"""PrepareGuest at a Hub: fit the disks that were written back to their place, while they are attached here."""

from __future__ import annotations

from farshore_engine.azurestack.tasks.stage import staged
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import GuestPreparation, TaskAssignment, TaskResult
from farshore_engine.guest.offline import prepare_disks
from farshore_engine.processserver.tasks.context import TaskContext, vault_of
from farshore_engine.processserver.tasks.owndisks import match_disks
from farshore_engine.processserver.tasks.prepareguest import RUNNING


def prepare_guest(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A machine that is there again is not touched any more; a second try finds nothing to change."""
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    with staged(task, context) as stage:
        if stage.machine() is not None:
            return TaskResult(point=point.summary, evidence=RUNNING)
        definition = stage.kept()
        if definition is None:
            raise StopFault(
                f"{stage.name} is neither at the Hub, nor is its definition kept",
                "Start the failback anew: it makes a new machine",
                reason="MachineUnknown",
            )
        own = match_disks(point.manifest.disks, stage.place(definition))
        disks = tuple(own[disk.id] for disk in point.manifest.disks)
        context.progress(None, "preparing the disks")
        found = prepare_disks(disks, point.manifest.machine, task.input.preparation or GuestPreparation())
    return TaskResult(point=point.summary, changes=found.changes, evidence="; ".join(found.notes))
