"""StartSource at a Hub: make a machine again that was taken apart, on its own disks; start it; or find it running."""

from __future__ import annotations

from farshore_engine.azurestack.machine import Machine, PowerState
from farshore_engine.azurestack.tasks.stage import Stage, staged
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext

KIND = "azureStackHub"


def start_source(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. What is kept of the machine is forgotten last, when it runs."""
    with staged(task, context) as stage:
        machine, kept = stage.machine(), stage.kept()
        written = 0
        if machine is None or (kept is not None and machine.provisioning.lower() == "failed"):
            if kept is None:
                raise StopFault(
                    f"the Hub has no machine {stage.name}, and nothing is kept of it, so it cannot be started",
                    "Correct spec.source.machine, or fail back: that makes a new one",
                    reason="MachineUnknown",
                )
            if machine is None:
                context.progress(None, f"giving {len(kept.disks)} disks of {stage.name} back")
                written = stage.unplace(kept)
            context.progress(None, f"making {stage.name} again on its disks")
            stage.manager.put(kept.id, kept.body)
            machine = _again(stage, kept.id)
        elif machine.power is not PowerState.RUNNING:
            context.progress(None, f"starting {machine.name}")
            stage.machines.start(machine)
            machine = _again(stage, machine.id)
        stage.apart.forget(machine)
        stage.drop(machine.disks)
        return _result(task, machine, written)


def _again(stage: Stage, machine_id: str) -> Machine:
    machine = stage.machines.get(machine_id)
    if machine is None or machine.power is not PowerState.RUNNING:
        state = "not there" if machine is None else machine.power.value
        raise WaitFault(f"{stage.name} was started, and is {state}", "It is looked at again", reason="NotRunning")
    return machine


def _result(task: TaskAssignment, machine: Machine, written: int) -> TaskResult:
    return TaskResult(
        machine_kind=KIND,
        address=machine.addresses[0] if machine.addresses else "",
        port=task.source.port if task.source is not None else 22,
        disk_paths=tuple(disk.id or disk.uri for disk in machine.disks),
        bytes_written=written or None,
    )
