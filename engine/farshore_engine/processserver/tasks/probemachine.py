"""ProbeMachine: ask the recovered machine from outside; what it answered is the evidence."""

from __future__ import annotations

from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.machines.spec import MachineState
from farshore_engine.processserver.tasks.context import TaskContext, machine_dir


def probe_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    name = machine_dir(task, context).name
    running = context.runtime.inspect(name)
    if running is None or running.state in (MachineState.FAILED, MachineState.STOPPED):
        detail = f"it {running.state.value}: {running.detail}" if running is not None else "there is none of this name"
        raise WaitFault(
            f"the recovered machine {name} does not run: {detail}",
            "Read its console, or start the run anew",
            reason="NotRunning",
        )
    context.progress(None, f"waiting for an answer from {running.address}:{running.port}")
    evidence = context.runtime.probe(running, timeout=float(task.input.probe_timeout_seconds))
    return TaskResult(
        machine_kind=running.kind.value,
        address=evidence.address,
        port=evidence.port,
        evidence=f"{evidence.banner or 'TCP connection accepted'} after {evidence.attempts} attempts",
    )
