"""StartMachine: boot the recovered machine from its hydrated disks, or find it running."""

from __future__ import annotations

import asyncssh

from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.hydrate.progress import forget_state
from farshore_engine.machines.places import reserved
from farshore_engine.machines.spec import DEFAULT_NETWORK, Account, MachineSpec, MachineState, RunningMachine
from farshore_engine.processserver.tasks.context import (
    TaskContext,
    disk_files,
    machine_dir,
    made_of_another_point,
    note_start,
    vault_of,
)
from farshore_engine.processserver.tasks.hostkey import host_key_of


def start_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    directory = machine_dir(task, context)
    if context.runtime.inspect(directory.name) is not None and made_of_another_point(task, directory):
        return _start_again(task, context)
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    disks = disk_files(point, directory)
    context.progress(None, f"starting {task.input.machine_name}")
    note_start(task, directory)
    for disk in disks:
        forget_state(disk.path)  # the machine writes to it from here on
    network = task.input.network or DEFAULT_NETWORK
    running = context.runtime.start(
        MachineSpec(
            name=task.input.machine_name,
            owner=task.run,
            disks=disks,
            description=point.manifest.machine,
            network=network,
            address=reserved(directory, network),
            memory_mib=task.input.memory_mib,
            cpus=task.input.cpus,
            accounts=_accounts(task),
        )
    )
    return started(running, tuple(str(disk.path) for disk in disks))


def started(running: RunningMachine, disks: tuple[str, ...]) -> TaskResult:
    """Say what was started."""
    return TaskResult(
        machine_kind=running.kind.value,
        address=running.address,
        port=running.port,
        disk_paths=disks,
        host_key=host_key_of(running),
    )


def _accounts(task: TaskAssignment) -> tuple[Account, ...]:
    """Return the login of the source, so that an agent can be pushed to a machine that has no root disk of its own."""
    known = task.source.credentials if task.source is not None else None
    if known is None:
        return ()
    password = known.password.get_secret_value() if known.password is not None else None
    keys: tuple[str, ...] = ()
    if known.private_key is not None:
        passphrase = known.passphrase.get_secret_value() if known.passphrase is not None else None
        try:
            key = asyncssh.import_private_key(known.private_key.get_secret_value(), passphrase)
        except asyncssh.KeyImportError:
            return ()  # who logs in with it is told why it is of no use
        keys = (key.export_public_key("openssh").decode().strip(),)
    return (Account(known.username, password, keys, sudo=known.username != "root"),)


def _start_again(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """Find the machine running, or power it on as it was left, on its own disks: they are not of the task's point."""
    name = task.input.machine_name
    running = context.runtime.inspect(name)
    if running is None or running.state not in (MachineState.RUNNING, MachineState.STARTING):
        running = context.runtime.power_on(name)
    return started(running, tuple(str(disk.path) for disk in context.runtime.disks(name)))
