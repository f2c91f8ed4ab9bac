"""StartSource: start a machine where it was, on its own disks, through its site's provider; or find it running."""

from __future__ import annotations

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.machines.spec import MachineState
from farshore_engine.processserver.tasks.context import TaskContext, power_of
from farshore_engine.processserver.tasks.startmachine import start_machine, started
from farshore_engine.processserver.tasks.writeback import new_disks


def start_source(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A machine whose disks are new, because the old ones were gone, is made from its description."""
    name = task.input.source_machine
    power = power_of(task, context)
    if power is None and new_disks(task, context):
        made = task.model_copy(update={"input": task.input.model_copy(update={"machine_name": name})})
        return start_machine(made, context)
    if power is None:
        raise StopFault(
            f"this host does not know the machine {name or task.input.machine_id}, so it cannot start it",
            "Start it by hand at its site, or correct spec.source.machine; then go on",
            reason="MachineUnknown",
        )
    running = power.inspect(name)
    if running is None or running.state is not MachineState.RUNNING:
        context.progress(None, f"starting {name}")
        running = power.power_on(name)
    return started(running, tuple(str(disk.path) for disk in power.disks(name)))
