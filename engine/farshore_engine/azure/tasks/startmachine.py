"""StartMachine for Azure: network interface and machine on the uploaded disks, or what an earlier try made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from farshore_engine.azure.cleanup import remove
from farshore_engine.azure.cloud import plain
from farshore_engine.azure.disks import UPLOADING, find_disk
from farshore_engine.azure.machines import Made, Parts, machine_address, make_machine, settled
from farshore_engine.azure.machines import start_machine as ensure_running
from farshore_engine.azure.network import ensure_nics, group_of
from farshore_engine.azure.place import Place
from farshore_engine.azure.sizes import Needs, choose, list_sizes
from farshore_engine.azure.tasks.scene import Scene, telling
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, note_start, vault_of
from farshore_engine.vault.machine import StoredPoint

KIND, SSH = "azure", 22
LEAST_MEMORY_MIB = 512


def begin_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """Start the machine that is there, of whichever run; it keeps its own disks."""
    scene = Scene.of(task, context)
    found = scene.recovered()
    if found is None:
        raise StopFault(
            f"there is no machine {scene.place.name} of {scene.place.machine_id} in resource group "
            f"{', '.join(scene.groups())}",
            "Look at the run that made it",
            reason="MachineUnknown",
        )
    tell = telling(context, f"starting {scene.place.name}")
    machine = ensure_running(scene.cloud, at(scene.place, found), tell)
    return started(task, scene, Made(machine, plain(machine.hardware_profile.vm_size)))


def make(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """Make the machine of this run, or find it."""
    scene = Scene.of(task, context)
    tell = telling(context, f"starting {scene.place.name}")
    if scene.check_name(task.input.replaces) is not None:
        remove(scene.cloud, scene.place, scene.groups(), run=task.input.replaces, tell=tell)
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    known = settled(scene.cloud, scene.place, tell)
    if known is not None and plain(known.provisioning_state) != "Failed":
        machine = ensure_running(scene.cloud, scene.place, tell)
        made = Made(machine, plain(machine.hardware_profile.vm_size))
    else:
        made = _made(task, scene, point, context)
    if any(scene.directory.glob("disk-*.raw")):
        for image in scene.directory.glob("disk-*"):
            image.unlink()  # Azure has them now, and the machine writes to its own
    return started(task, scene, made)


def start_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. Without a target the machine is one that was made before."""
    return begin_machine(task, context) if task.input.target is None else make(task, context)


def port_of(task: TaskAssignment) -> int:
    """Return where the machine answers over SSH: recovered disks bring the port of the source along."""
    return task.source.port if task.source is not None else SSH


def started(task: TaskAssignment, scene: Scene, made: Made) -> TaskResult:
    """Say what runs where, and why it has another size than the one that came first."""
    machine = made.machine
    profile = machine.storage_profile
    disks = [profile.os_disk, *(profile.data_disks or ())]
    said = [f"size {made.size}"]
    if made.notes:
        said.append(f"others were not to be had: {'; '.join(made.notes)}")
    address = machine_address(scene.cloud, machine)
    scene.note(address=address)
    return TaskResult(
        machine_kind=KIND,
        address=address,
        port=port_of(task),
        disk_paths=tuple(str(one.managed_disk.id) for one in disks if one.managed_disk is not None),
        evidence="; ".join(said),
    )


def at(place: Place, found: Any) -> Place:
    """Return the place in the resource group where the machine was found."""
    return replace(place, group=group_of(str(found.id)) or place.group)


def _made(task: TaskAssignment, scene: Scene, point: StoredPoint, context: TaskContext) -> Made:
    tell = telling(context, f"starting {scene.place.name}")
    disks = [_uploaded(scene, number) for number in range(len(point.manifest.disks))]
    boot = next((disk for disk in disks if disk.os_type), disks[0])
    data = [disk for disk in disks if disk is not boot]
    generation = plain(boot.hyper_v_generation) or "V1"
    needs = needs_of(task, point.manifest.machine, generation, len(data))
    sizes = choose(list_sizes(scene.cloud), needs, scene.place.target.size)
    scene.note()
    nics = tuple(str(nic.id) for nic in ensure_nics(scene.cloud, scene.place, tell))
    note_start(task, scene.directory)
    primary = [nic.primary for nic in scene.place.target.nics()].index(True)
    parts = Parts(str(boot.id), tuple(str(disk.id) for disk in data), nics, primary)
    return make_machine(scene.cloud, scene.place, parts, sizes, tell)


def needs_of(task: TaskAssignment, described: MachineDescription, generation: str, disks: int) -> Needs:
    """Return what a size must have: what was asked for, else what the source had."""
    given, target = task.input, task.input.target
    return Needs(
        cpus=given.cpus or max(1, described.cpus),
        memory_mib=given.memory_mib or max(LEAST_MEMORY_MIB, described.memory_bytes >> 20),
        generation=generation,
        disks=disks,
        premium=target is not None and target.disk_type.startswith(("Premium", "Ultra")),
        zone=target.zone if target is not None else "",
        nics=len(target.nics()) if target is not None else 1,
    )


def _uploaded(scene: Scene, number: int) -> Any:
    name = scene.place.disk(number)
    found = find_disk(scene.cloud, scene.place, name)
    if found is None or plain(found.disk_state) in UPLOADING:
        raise StopFault(f"disk {name} is not uploaded", "Start the run anew", reason="DiskMissing")
    return found
