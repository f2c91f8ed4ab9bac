"""Power of a machine that was recovered in Azure: shut down before it goes home, started again if it stays."""

from __future__ import annotations

from farshore_engine.azure.machines import stop_machine
from farshore_engine.azure.tasks.scene import Scene, telling
from farshore_engine.azure.tasks.startmachine import at, begin_machine
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.processserver.tasks.finalpoint import final_point as final_point_here
from farshore_engine.processserver.tasks.shutdownsource import shutdown_source as shutdown_over_ssh
from farshore_engine.processserver.tasks.startsource import start_source as start_here


def shutdown_source(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. Azure shuts the machine down; one that it does not know is asked over SSH."""
    return TaskResult(confirmed=True) if _stopped(task, context) else shutdown_over_ssh(task, context)


def final_point(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. The agent cuts the power while the machine is frozen; then Azure is told to leave it off.

    If Azure refuses that, the machine is off all the same: a step that failed now would hide that from who undoes it.
    """
    result = final_point_here(task, context)
    try:
        _stopped(task, context)
    except StopFault as fault:
        said = f"{result.evidence}; Azure could not be told to leave it off: {fault.message}"
        return result.model_copy(update={"evidence": said})
    return result


def start_source(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    known = _own(task)
    if Scene.of(known, context).recovered() is None:
        return start_here(task, context)
    return begin_machine(known, context)


def _stopped(task: TaskAssignment, context: TaskContext) -> bool:
    """Stop the machine in Azure; tells whether there is one."""
    scene = Scene.of(_own(task), context)
    found = scene.recovered()
    if found is None:
        return False
    tell = telling(context, f"shutting {scene.place.name} down")
    stop_machine(scene.cloud, at(scene.place, found), tell)
    return True


def _own(task: TaskAssignment) -> TaskAssignment:
    """Return the task with the name of the machine at this site as that of the machine that it is about."""
    name = task.input.source_machine or task.input.machine_name
    return task.model_copy(update={"input": task.input.model_copy(update={"machine_name": name})})
