"""UploadDisks: make managed disks of the staged disks, or of copies of the warm replica; go on with an earlier try."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

from farshore_engine.agent.disks import content_id
from farshore_engine.agent.signatures import HEAD_SIZE
from farshore_engine.azure.disks import CloudDisk, boot_disk, disk_size
from farshore_engine.azure.tasks import warm
from farshore_engine.azure.tasks.overlays import overlays
from farshore_engine.azure.tasks.scene import Scene
from farshore_engine.azure.upload import Uploaded, forget_upload, upload
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.hydrate.vhd import Footer
from farshore_engine.processserver.progress import ProgressMeter, pace
from farshore_engine.processserver.tasks.context import TaskContext, disk_files, vault_of
from farshore_engine.vault.machine import StoredPoint

log = structlog.get_logger(__name__)


def upload_disks(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. The disks of a machine that was made are its own, and nothing is uploaded any more."""
    scene = Scene.of(task, context)
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
    machine = scene.made()
    if machine is not None:
        profile = machine.storage_profile
        disks = (profile.os_disk, *(profile.data_disks or ()))
        return TaskResult(point=point.summary, disk_paths=tuple(str(one.managed_disk.id) for one in disks))
    why = ""
    if warm.is_warm(task, scene):
        imported, why = _imported(task, context, scene, point)
        if imported is not None:
            return imported
    wanted = _wanted(scene, point)
    scene.note(disks=_names(wanted))
    total, before, sent, ids = sum(disk.size for disk in wanted), 0, 0, []
    meter = ProgressMeter()
    for disk in wanted:
        done = _upload(scene, point, disk, context, meter, before, total)
        ids.append(done.id)
        before, sent = before + disk.size, sent + done.sent
    return TaskResult(point=point.summary, disk_bytes=total, bytes_written=sent, disk_paths=tuple(ids), evidence=why)


def _imported(
    task: TaskAssignment, context: TaskContext, scene: Scene, point: StoredPoint
) -> tuple[TaskResult | None, str]:
    """Make the disks of the replica's copies; or stage them after all, None and why."""
    with vault_of(task) as vault:
        with overlays(vault, point, scene.directory):
            pass  # makes the files, with the fronts of the disks, if no preparation has
        wanted = _wanted(scene, point)
        scene.note(disks=_names(wanted))
        try:
            return warm.import_disks(task, context, scene, wanted, vault), ""
        except Fault as fault:
            if warm.tried(task, scene, fault):
                raise
            why = f"the warm replica was not used: {fault}"
    log.warning("the warm replica is not used", machine=task.input.machine_id, why=why)
    for disk in wanted:
        forget_upload(disk.image)
    warm.give_up(task, context, scene, wanted)
    return None, why


def _wanted(scene: Scene, point: StoredPoint) -> tuple[CloudDisk, ...]:
    files = disk_files(point, scene.directory)
    for file in files:
        if not file.path.exists():
            raise StopFault(f"the staged disk {file.path} is not there", "Start the run anew", reason="DiskMissing")
    boots, mode = boot_disk(tuple(file.path for file in files), point.manifest.machine)
    contents = _contents(tuple(file.path for file in files))
    return tuple(
        CloudDisk(
            name=scene.place.disk(number),
            vault_id=disk.id,
            image=file.path,
            size=disk_size(disk.size_bytes),
            boots=mode if number == boots else None,
            content=contents[number],
        )
        for number, (disk, file) in enumerate(zip(point.manifest.disks, files, strict=True))
    )


def _contents(images: tuple[Path, ...]) -> tuple[str, ...]:
    """Return what the content of each disk is called, "" where that does not tell it from the others."""
    names = []
    for image in images:
        with image.open("rb") as file:
            names.append(content_id(file.read(HEAD_SIZE).ljust(HEAD_SIZE, b"\0")))
    return tuple(name if names.count(name) == 1 else "" for name in names)


def _names(disks: tuple[CloudDisk, ...]) -> dict[str, str]:
    """Return the ids in the vault by what the disks' contents are called."""
    return {disk.content: disk.vault_id for disk in disks if disk.content}


def _upload(
    scene: Scene,
    point: StoredPoint,
    disk: CloudDisk,
    context: TaskContext,
    meter: ProgressMeter,
    before: int,
    total: int,
) -> Uploaded:
    manifest = point.manifest

    def report(done: int, _: int) -> None:
        meter.note(time.monotonic(), total, before + done)
        context.progress(min(99, (before + done) * 100 // max(1, total)), f"uploading {disk.name}: {pace(meter)}")

    def tell() -> None:
        context.progress(min(99, before * 100 // max(1, total)), f"uploading {disk.name}")

    footer = Footer.of(disk.size, manifest.name, disk.vault_id, manifest.time)
    return upload(scene.cloud, scene.place, disk, footer, report, tell)
