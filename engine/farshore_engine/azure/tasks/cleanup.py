"""CleanUp for Azure: remove the machine with all that carries its tags, its staged disks, and the pin; see it gone."""

from __future__ import annotations

from farshore_engine.azure.cleanup import looked_for, remove
from farshore_engine.azure.tasks.scene import Scene, telling
from farshore_engine.azure.tasks.warm import remove_copies
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.cleanup import release_pin, remove_disks
from farshore_engine.processserver.tasks.context import TaskContext


def clean_up(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    removed: list[str] = []
    sought: list[str] = []
    if task.input.machine_name and not task.input.keep_machine:
        scene = Scene.of(task, context)
        tell = telling(context, f"removing {scene.place.name}")
        groups = scene.everywhere()
        removed += remove(scene.cloud, scene.place, groups, tell=tell)
        sought += looked_for(scene.place, groups)
        copies, looked = remove_copies(task, scene)
        removed += copies
        sought += looked
        removed += remove_disks(scene.directory)
        sought.append(str(scene.directory))
    if task.input.pin and task.vault is not None:
        removed += release_pin(task)
        sought.append(f"pin {task.input.pin} of any point")
    return TaskResult(removed=tuple(removed), looked_for=tuple(sought))
