"""CleanUp: stop the recovered machine, remove its disks, release the pin, and see that nothing is left."""

from __future__ import annotations

import shutil
from pathlib import Path

from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, machine_dir, vault_of
from farshore_engine.vault.pins import list_pins


def clean_up(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    removed: list[str] = []
    if task.input.machine_name and not task.input.keep_machine:
        directory = machine_dir(task, context)
        removed += context.runtime.stop(directory.name).removed
        removed += _remove_disks(directory)
        _check_gone(directory, context)
    if task.input.pin and task.vault is not None:
        removed += _release(task)
    return TaskResult(removed=tuple(removed))


def _remove_disks(directory: Path) -> list[str]:
    if not directory.exists():
        return []
    names = sorted(str(path) for path in directory.glob("disk-*.raw"))
    shutil.rmtree(directory)
    return [*names, str(directory)]


def _check_gone(directory: Path, context: TaskContext) -> None:
    left = [str(directory)] if directory.exists() else []
    if context.runtime.inspect(directory.name) is not None:
        left.append(f"the machine {directory.name}")
    if left:
        raise WaitFault(f"still there after clean-up: {', '.join(left)}", reason="NotClean")


def _release(task: TaskAssignment) -> list[str]:
    pin = task.input.pin
    with vault_of(task) as vault:
        slots = [slot for slot, pins in list_pins(vault.access).items() if pin in pins]
        for slot in slots:
            vault.unpin(slot, pin)
        left = [slot for slot, pins in list_pins(vault.access).items() if pin in pins]
    if left:
        raise WaitFault(f"the pin {pin} is still held", reason="NotClean")
    return [f"pin {pin} of slot {slot}" for slot in slots]
