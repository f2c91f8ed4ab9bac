"""PrepareGuest: fit hydrated or written disks to the place where they will run, before the machine is started."""

from __future__ import annotations

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import GuestPreparation, TaskAssignment, TaskResult
from farshore_engine.guest.offline import prepare_disks
from farshore_engine.hydrate.progress import forget_state
from farshore_engine.machines.bootable import boot_modes
from farshore_engine.machines.places import release, reserve
from farshore_engine.machines.spec import DEFAULT_NETWORK, DiskFile
from farshore_engine.processserver.tasks.context import (
    TaskContext,
    already_started,
    disk_files,
    machine_dir,
    power_of,
    vault_of,
)
from farshore_engine.processserver.tasks.finalpoint import RUNS
from farshore_engine.processserver.tasks.owndisks import match_disks
from farshore_engine.vault.machine import StoredPoint

RUNNING = "the machine was started already: its disks are left alone"


def prepare_guest(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A machine that was started is not touched any more; a second try finds nothing to change."""
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    disks = _disks(task, context, point)
    if disks is None:
        return TaskResult(point=point.summary, evidence=RUNNING)
    for disk in disks:
        if not disk.path.exists():
            raise StopFault(f"the disk {disk.path} is not there", "Hydrate it first", reason="DiskMissing")
        forget_state(disk.path)  # what is on it is not the point any more
    context.progress(None, "preparing the disks")
    wanted = task.input.preparation or GuestPreparation()
    found = prepare_disks(disks, point.manifest.machine, _placed(task, context, disks, wanted))
    if not found.network:
        release(machine_dir(task, context))
    return TaskResult(point=point.summary, changes=found.changes, evidence="; ".join(found.notes))


def _placed(
    task: TaskAssignment, context: TaskContext, disks: tuple[DiskFile, ...], wanted: GuestPreparation
) -> GuestPreparation:
    """Fill in where the machine will be. Only one that boots its own disk has a network of its own to prepare."""
    if wanted.network is None or task.site is not None:
        return wanted  # a cloud tells its machines their addresses itself
    if not any(boot_modes(disk.path) for disk in disks):
        return wanted.model_copy(update={"network": None})
    network = context.runtime.network(task.input.network or DEFAULT_NETWORK)
    address = reserve(network, context.machines_dir, machine_dir(task, context).name, wanted.network.address)
    return wanted.model_copy(update={"network": wanted.network.model_copy(update={"address": address})})


def _disks(task: TaskAssignment, context: TaskContext, point: StoredPoint) -> tuple[DiskFile, ...] | None:
    """Return the disks to prepare, None when their machine was started."""
    directory = machine_dir(task, context)
    hydrated = disk_files(point, directory)
    power = power_of(task, context)
    if power is None or (directory / hydrated[0].path.name).exists():
        return None if already_started(task, directory, context) else hydrated
    machine = power.inspect(task.input.source_machine)
    if machine is not None and machine.state in RUNS:
        return None
    own = match_disks(point.manifest.disks, power.disks(task.input.source_machine))
    return tuple(own[disk.id] for disk in point.manifest.disks)
