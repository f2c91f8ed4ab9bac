"""Hydrate and PrepareGuest for Azure, as long as it has no machine of the run.

With a warm replica the run's own copies of it are brought to the point. Without one, or where that cannot be, the disks
are staged on the process server's own disk.
"""

from __future__ import annotations

import structlog

from farshore_engine.azure.tasks import warm
from farshore_engine.azure.tasks.overlays import is_overlay, remove_overlay
from farshore_engine.azure.tasks.scene import Scene
from farshore_engine.azure.upload import forget_upload
from farshore_engine.contract.faults import Fault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.machines.spec import DiskFile
from farshore_engine.processserver.tasks.context import TaskContext, disk_files, vault_of
from farshore_engine.processserver.tasks.hydrate import hydrate as hydrate_here
from farshore_engine.processserver.tasks.prepareguest import RUNNING
from farshore_engine.processserver.tasks.prepareguest import prepare_guest as prepare_here

log = structlog.get_logger(__name__)


def hydrate(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. What was uploaded of an earlier version of the staged disks does not count any more."""
    scene = Scene.of(task, context)
    scene.check_name(task.input.replaces)
    if scene.made() is not None:
        return _made_already(task)
    why = ""
    if task.replica is not None and task.replica.wanted:
        try:
            return warm.hydrate(task, context, scene)
        except Fault as fault:
            if fault.reason == warm.CALLED_OFF:
                raise
            why = _not_used(task, fault)
    staged = _stage(task, context, scene)
    return staged.model_copy(update={"evidence": why}) if why else staged


def prepare_guest(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    scene = Scene.of(task, context)
    if scene.made() is not None:
        return _made_already(task)
    why = ""
    if warm.is_warm(task, scene):
        try:
            return warm.prepare(task, context, scene)
        except Fault as fault:
            if fault.reason != "NoFuse":
                raise
            why = _not_used(task, fault)
            _stage(task, context, scene)
    for file in _files(task, scene):
        forget_upload(file.path)
    prepared = prepare_here(task, context)
    said = "; ".join(one for one in (prepared.evidence, why) if one)
    return prepared.model_copy(update={"evidence": said})


def _stage(task: TaskAssignment, context: TaskContext, scene: Scene) -> TaskResult:
    """Hydrate the disks on this host."""
    if task.replica is not None:
        scene.note(**{warm.WARM: None})
    for file in _files(task, scene):
        if is_overlay(file.path):  # most of it is not there
            remove_overlay(file.path)
        forget_upload(file.path)
    return hydrate_here(task, context)


def _not_used(task: TaskAssignment, fault: Fault) -> str:
    log.warning("the warm replica is not used", machine=task.input.machine_id, why=str(fault))
    return f"the warm replica was not used: {fault}"


def _made_already(task: TaskAssignment) -> TaskResult:
    with vault_of(task) as vault:
        return TaskResult(point=vault.find(task.input.point).summary, evidence=RUNNING)


def _files(task: TaskAssignment, scene: Scene) -> tuple[DiskFile, ...]:
    """Return where the disks of the point are staged."""
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    return disk_files(point, scene.directory)
