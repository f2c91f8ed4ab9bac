"""FinalPoint at a Hub: as everywhere, the agent cuts the power while the machine is frozen; the Hub confirms it.

A machine of which nothing answers and which the Hub calls running has its plug pulled: it is frozen, or it hangs.
"""

from __future__ import annotations

from farshore_engine.azurestack.tasks.stage import staged
from farshore_engine.contract.faults import Fault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.processserver.tasks.finalpoint import final_point as by_silence


def final_point(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. The point is committed and the machine silent when the Hub is asked, so its word comes on top."""
    result = by_silence(task, context)
    return result.model_copy(update={"evidence": f"{result.evidence}; {_confirmed(task, context)}"})


def _confirmed(task: TaskAssignment, context: TaskContext) -> str:
    try:
        with staged(task, context) as stage:
            machine = stage.machine()
            if machine is None:
                return f"the Hub has no machine {stage.name}"
            stage.machines.shut_down(machine, orderly=False)
            return f"the Hub says that {machine.name} is {stage.machines.power(machine.id)}"
    except Fault as fault:
        return f"the Hub could not be asked: {fault.message}"
