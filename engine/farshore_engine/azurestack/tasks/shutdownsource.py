"""ShutdownSource at a Hub: its Resource Manager asks the machine to shut down, and says when it is off.

When the Hub's Resource Manager is away and the machine is not, the machine is asked itself, over SSH.
"""

from __future__ import annotations

from farshore_engine.azurestack.tasks.stage import staged
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.processserver.tasks.shutdownsource import shutdown_source as over_ssh


def shutdown_source(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A machine that is taken apart is off."""
    try:
        return _by_the_hub(task, context)
    except WaitFault as fault:
        if fault.reason != "HubUnreachable" or task.source is None:
            raise
    return over_ssh(task, context)


def _by_the_hub(task: TaskAssignment, context: TaskContext) -> TaskResult:
    with staged(task, context) as stage:
        machine = stage.machine()
        if machine is None:
            if stage.kept() is not None:
                return TaskResult(confirmed=True, evidence=f"{stage.name} is taken apart")
            raise StopFault(
                f"the Hub has no machine {stage.name}",
                "Correct spec.source.machine, or fail over with shutdownSource: Never",
                reason="MachineUnknown",
            )
        context.progress(None, f"shutting {machine.name} down")
        stage.machines.shut_down(machine)
        return TaskResult(confirmed=True, evidence=f"{machine.name} is {stage.machines.power(machine.id)}")
