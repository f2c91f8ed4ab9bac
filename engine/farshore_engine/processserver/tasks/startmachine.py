"""StartMachine: boot the recovered machine from its hydrated disks, or find it running."""

from __future__ import annotations

from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.hydrate.progress import forget_state
from farshore_engine.machines.spec import MachineSpec
from farshore_engine.processserver.tasks.context import TaskContext, disk_files, machine_dir, note_start, vault_of


def start_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    directory = machine_dir(task, context)
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    disks = disk_files(point, directory)
    context.progress(None, f"starting {task.input.machine_name}")
    note_start(task, directory)
    for disk in disks:
        forget_state(disk.path)  # the machine writes to it from here on
    running = context.runtime.start(
        MachineSpec(
            name=task.input.machine_name,
            owner=task.run,
            disks=disks,
            description=point.manifest.machine,
            network=task.input.network or "default",
            memory_mib=task.input.memory_mib,
            cpus=task.input.cpus,
        )
    )
    return TaskResult(
        machine_kind=running.kind.value,
        address=running.address,
        port=running.port,
        disk_paths=tuple(str(disk.path) for disk in disks),
    )
