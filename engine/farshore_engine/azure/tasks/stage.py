"""Hydrate and PrepareGuest for Azure: on the process server's own disk, as long as Azure has no machine of the run."""

from __future__ import annotations

from farshore_engine.azure.tasks.scene import Scene
from farshore_engine.azure.upload import forget_upload
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, disk_files, vault_of
from farshore_engine.processserver.tasks.hydrate import hydrate as hydrate_here
from farshore_engine.processserver.tasks.prepareguest import RUNNING
from farshore_engine.processserver.tasks.prepareguest import prepare_guest as prepare_here


def hydrate(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. What was uploaded of an earlier version of the staged disks does not count any more."""
    scene = Scene.of(task, context)
    scene.check_name(task.input.replaces)
    if scene.made() is not None:
        return _made_already(task)
    _forget_uploads(task, scene)
    return hydrate_here(task, context)


def prepare_guest(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    scene = Scene.of(task, context)
    if scene.made() is not None:
        return _made_already(task)
    _forget_uploads(task, scene)
    return prepare_here(task, context)


def _made_already(task: TaskAssignment) -> TaskResult:
    with vault_of(task) as vault:
        return TaskResult(point=vault.find(task.input.point).summary, evidence=RUNNING)


def _forget_uploads(task: TaskAssignment, scene: Scene) -> None:
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    for file in disk_files(point, scene.directory):
        forget_upload(file.path)
