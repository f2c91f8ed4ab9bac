"""WriteBack at a Hub: a point onto a machine's own disks, only the blocks that differ.

The machine is taken apart, its disks are attached to the process server's machine, compared, written and verified. They
stay there for PrepareGuest; StartSource makes the machine again. Where the machine and what is kept of it are gone, new
disks are written for a new machine in the same place.
"""

from __future__ import annotations

import json

from farshore_engine.azurestack.definition import Definition
from farshore_engine.azurestack.machine import GIB, Machine
from farshore_engine.azurestack.newmachine import NewMachine, Order
from farshore_engine.azurestack.takenapart import is_noted
from farshore_engine.azurestack.tasks.stage import Stage, done_note, staged
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudTarget
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.tasks.context import TaskContext, vault_of
from farshore_engine.processserver.tasks.owndisks import can_be_told, match_disks
from farshore_engine.processserver.tasks.writeback import write_disks
from farshore_engine.vault.machine import StoredPoint
from farshore_engine.vault.reader import PointReader

NOT_KEPT = "The Hub's storage does not return what was written: ask its operator"


def write_back(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. Once it was done, a repeated task says so, and touches a machine that runs no more."""
    note, mark = done_note(task, context), {"point": task.input.point, "machine": task.input.machine_id}
    found = is_noted(note)
    if {name: found.get(name) for name in mark} == mark:
        return TaskResult.model_validate_json(found["result"])
    with vault_of(task) as vault, staged(task, context) as stage:
        point = vault.find(task.input.point)
        definition, said = _apart(stage, point)
        context.progress(None, f"attaching {len(definition.disks)} disks of {stage.name}")
        places = match_disks(point.manifest.disks, stage.place(definition))
        result = write_disks(PointReader(vault, point), places, context, NOT_KEPT)
    result = result.model_copy(update={"point": point.summary, "evidence": said})
    write_private(note, json.dumps(mark | {"result": result.model_dump_json()}).encode())
    return result


def _apart(stage: Stage, point: StoredPoint) -> tuple[Definition, str]:
    """Return the definition of the machine, which is taken apart, and what is to be said of it."""
    machine = stage.machine()
    if machine is not None:
        _is_it(stage, machine, point)
        stage.context.progress(None, f"taking {machine.name} apart: its disks and interfaces stay")
        definition = stage.apart.take(machine)
        lost = f"; its extensions are to be installed again: {', '.join(definition.extensions)}"
        return definition, f"{machine.name} was taken apart" + (lost if definition.extensions else "")
    if (kept := stage.kept()) is not None:
        return kept, f"{kept.name} was taken apart before"
    stage.context.progress(None, f"{stage.name} is gone: making its disks anew")
    task, manifest = stage.task, point.manifest
    order = Order(
        name=stage.name,
        run=task.run,
        machine_id=task.input.machine_id,
        disks=manifest.disks,
        description=manifest.machine,
        target=task.input.target or CloudTarget(),
        addresses=_addresses(task, point),
    )
    definition = NewMachine(stage.machines, order).define()
    stage.apart.keep(definition)
    return definition, f"{stage.name} was gone: new disks were made for it"


def _is_it(stage: Stage, machine: Machine, point: StoredPoint) -> None:
    """Refuse to touch a machine that may be another one, which has the old one's address now.

    Raises:
        StopFault: it has another name, or disks of other sizes than the point.
    """
    if machine.name.lower() != stage.name.lower():
        raise StopFault(
            f"the machine at {', '.join(machine.addresses)} is {machine.name}, and {stage.name} is to be written back",
            f"If it is the same one, set spec.source.machine: {machine.name}; if not, give it another address",
            reason="AnotherMachine",
        )
    have = ", ".join(f"{disk.name} {disk.size_bytes // GIB} GiB" for disk in machine.disks)
    left = [disk.size_bytes // GIB for disk in machine.disks]
    for disk in point.manifest.disks:
        size = -(-disk.size_bytes // GIB)
        if 0 not in left and size not in left:
            raise StopFault(
                f"{machine.name} has no disk of the {size} GiB that {disk.name} of the point has; it has {have}",
                "Give the machine the disks that it had, or take it away for a new one to be made",
                reason="DisksDiffer",
            )
        if size in left:
            left.remove(size)
    if not can_be_told(point.manifest.disks, [disk.size_bytes for disk in machine.disks]):
        raise StopFault(
            f"it cannot be told which disks of {machine.name} are those of the point: the point has "
            f"{', '.join(disk.name for disk in point.manifest.disks)}, the machine has {have}",
            "Give the machine the disks that it had, or take off for the failback those that are not replicated",
            reason="DisksDiffer",
        )


def _addresses(task: TaskAssignment, point: StoredPoint) -> tuple[str, ...]:
    """Return the private address that each interface of the machine had at home, that by which it is known first."""
    mine = task.source.address if task.source is not None else ""
    found = []
    for nic in point.manifest.machine.interfaces:
        known = [one.split("/")[0] for one in nic.addresses if ":" not in one]
        found += [mine] if mine in known else known[:1]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one != mine))
