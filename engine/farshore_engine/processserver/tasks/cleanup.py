"""CleanUp: stop the recovered machine, remove its disks, release the pin, and see that nothing is left.

It can be killed anywhere and repeated: what is left is looked for by name, not remembered.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.machines.spec import DEFAULT_NETWORK
from farshore_engine.processserver.tasks.context import STARTED, TaskContext, machine_dir, vault_of
from farshore_engine.vault.pins import list_pins


def clean_up(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    removed: list[str] = []
    looked_for: list[str] = []
    if task.input.machine_name and not task.input.keep_machine:
        directory = machine_dir(task, context)
        _check_recovered(directory, context)
        removed += context.runtime.stop(directory.name).removed
        removed += remove_disks(directory)
        looked_for += _nothing_left(task, directory, context)
    if task.input.pin and task.vault is not None:
        removed += release_pin(task)
        looked_for.append(f"pin {task.input.pin} of any point")
    return TaskResult(removed=tuple(removed), looked_for=tuple(looked_for))


def _check_recovered(directory: Path, context: TaskContext) -> None:
    """Refuse to take away a machine that was not made from a recovery point: it may be the only one there is."""
    if context.runtime.inspect(directory.name) is not None and not (directory / STARTED).exists():
        raise StopFault(
            f"the machine {directory.name} was not recovered here, so it is not taken away",
            "This is a bug of the operator, or two machines have one name: look at the run",
            reason="NotRecovered",
        )


def remove_disks(directory: Path) -> list[str]:
    """Remove the directory of a machine; returns what was removed."""
    if not directory.exists():
        return []
    names = sorted(str(path) for path in directory.glob("disk-*.raw"))
    shutil.rmtree(directory)
    return [*names, str(directory)]


def _nothing_left(task: TaskAssignment, directory: Path, context: TaskContext) -> tuple[str, ...]:
    """Look for everything that the machine had here; return what was looked for, raise WaitFault if any is there."""
    found = context.runtime.remains(directory.name, task.input.network or DEFAULT_NETWORK, directory)
    if found.left:
        raise WaitFault(
            f"still there after clean-up: {', '.join(found.left)}",
            "It is tried again; look for what holds it if this repeats",
            reason="NotClean",
        )
    return found.looked_for


def release_pin(task: TaskAssignment) -> list[str]:
    """Release the run's pin, whichever points it keeps; returns what was released, raises WaitFault if any is left."""
    pin = task.input.pin
    with vault_of(task) as vault:
        slots = [slot for slot, pins in list_pins(vault.access).items() if pin in pins]
        for slot in slots:
            vault.unpin(slot, pin)
        left = [slot for slot, pins in list_pins(vault.access).items() if pin in pins]
    if left:
        raise WaitFault(f"the pin {pin} is still held", reason="NotClean")
    return [f"pin {pin} of slot {slot}" for slot in slots]
