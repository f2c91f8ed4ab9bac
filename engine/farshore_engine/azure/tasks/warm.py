"""The steps of a run that begins with a warm replica: its own copies of it, brought to the point, become the disks.

Nothing is staged. The guest is prepared on the point itself, served from the vault, and what that writes stays in small
local files until it is written to the copies. Whatever is in the way of this, the disks are staged and uploaded as they
are without a replica, and the result says why.
"""

from __future__ import annotations

import socket
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azure.cloud import Tell, plain
from farshore_engine.azure.disks import UPLOADING, CloudDisk, discard_disk, find_disk, import_disk
from farshore_engine.azure.faults import BUSY
from farshore_engine.azure.keeping import bring, sound
from farshore_engine.azure.machines import CHANGING, SETTLE_SECONDS
from farshore_engine.azure.replicas import PREPARED, Replicas, account_of
from farshore_engine.azure.tasks.overlays import overlays, remove_overlay
from farshore_engine.azure.tasks.scene import Scene, noted, telling
from farshore_engine.blocks.grid import BLOCK_SIZE, runs_of
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.tasks import GuestPreparation, TaskAssignment, TaskResult
from farshore_engine.guest.offline import prepare_disks
from farshore_engine.hydrate.pageblob import PageBlob
from farshore_engine.hydrate.vhd import Footer
from farshore_engine.hydrate.windows import Progress
from farshore_engine.nbd.files import as_files
from farshore_engine.nbd.overlay import Overlay
from farshore_engine.nbd.presence import Held
from farshore_engine.nbd.streaming import Streaming
from farshore_engine.processserver.progress import ProgressMeter, pace
from farshore_engine.processserver.tasks.context import TaskContext, disk_files, vault_of
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader

WARM = "warm"  # in the note: the point whose disks are copies of the replica, and what became of them
THREADS = 4
MOST_TRIES = 4  # imports that Azure puts off before the disks are uploaded instead
CALLED_OFF = "CalledOff"
SAME = (
    CALLED_OFF, "QuotaExceeded", "PolicyDenied", "ScopeLocked", "SubscriptionDisabled", "ProviderNotRegistered",
    "ResourceGroupNotFound", "MachineConflict", "NotBootable", "LoginRefused",
)  # fmt: skip
"""Reasons for which an upload would be refused as well."""


NO_ENTRY = ("StorageAccessRefused", "ContainerMissing", "BadCredential", "LoginRefused")


@dataclass(frozen=True)
class Copies:
    """A run's copies of the replica, and the point that they become."""

    scene: Scene
    replicas: Replicas
    reader: PointReader
    owner: str
    prepared: str = ""

    @classmethod
    def of(cls, task: TaskAssignment, scene: Scene, vault: MachineVault) -> Copies:
        """Return those of a task."""
        if task.replica is None:
            raise StopFault(
                "the site keeps no replicas any more", "Set spec.azure.replicas of the Site", reason="NoReplica"
            )
        reader = PointReader(vault, vault.find(task.input.point))
        replicas = Replicas.of(task.replica, scene.cloud, vault)
        prepared = str((_noted(task, scene) or {}).get(PREPARED, ""))
        return cls(scene, replicas, reader, f"{socket.gethostname()}:{scene.directory}", prepared)

    def copy_name(self, disk: str) -> str:
        """Return the name of the copy for a disk."""
        return self.replicas.copy_name(self.scene.place, disk)

    def copy(self, disk: str, tell: Tell) -> PageBlob:
        """Return the copy for a disk, made if need be."""
        return self.replicas.copy(self.scene.place, disk, self.owner, prepared=self.prepared, tell=tell)


def is_warm(task: TaskAssignment, scene: Scene) -> bool:
    """Tell whether the disks of the task's point are copies of the replica."""
    return _noted(task, scene) is not None


def hydrate(task: TaskAssignment, context: TaskContext, scene: Scene) -> TaskResult:
    """Copy the replica and bring the copies to the point; raises Fault where that cannot be."""
    tell, moved, written, before = telling(context, "copying the warm replica"), 0, 0, 0
    meter = ProgressMeter()
    scene.note(**{WARM: None})
    with vault_of(task) as vault:
        copies = Copies.of(task, scene, vault)
        reader, total = copies.reader, sum(disk.size_bytes for disk in copies.reader.disks)
        account_of(scene.cloud, copies.replicas.container.url(copies.replicas.folder))  # before anything is copied
        for disk in reader.disks:
            done_before = before

            def report(progress: Progress, name: str = disk.name, base: int = done_before) -> None:
                meter.note(time.monotonic(), total, base + progress.done)
                percent = min(99, (base + progress.done) * 100 // max(1, total))
                context.progress(percent, f"bringing the warm replica of disk {name} to the point: {pace(meter)}")

            copy = copies.copy(disk.id, tell)
            done = bring(reader, disk.id, copy, threads=THREADS, report=report)
            _check(copies, disk.id, copy)
            moved, written, before = moved + done.fetched, written + done.written, before + disk.size_bytes
    for file in disk_files(reader.point, scene.directory):
        remove_overlay(file.path)  # of an earlier run
    scene.note(**{WARM: {"point": task.input.point, "run": task.run}})
    evidence = f"from the warm replica; {written} bytes differed"
    summary = reader.point.summary
    return TaskResult(point=summary, bytes_moved=moved, bytes_written=written, disk_bytes=total, evidence=evidence)


def prepare(task: TaskAssignment, context: TaskContext, scene: Scene) -> TaskResult:
    """Prepare the guest on the point as it is served from the vault; what that writes stays in local files."""
    context.progress(None, "preparing the disks")
    with vault_of(task) as vault:
        point = vault.find(task.input.point)
        with overlays(vault, point, scene.directory, fresh=True) as found:
            files = disk_files(point, scene.directory)
            names = {disk.id: f"disk-{number}" for number, disk in enumerate(point.manifest.disks)}
            with as_files({names[disk]: overlay for disk, overlay in found.items()}, str(scene.directory)) as paths:
                shown = [replace(file, path=paths[f"disk-{number}"]) for number, file in enumerate(files)]
                wanted = task.input.preparation or GuestPreparation()
                prepared = prepare_disks(shown, point.manifest.machine, wanted)
    scene.note(**{WARM: {"point": task.input.point, "run": task.run, PREPARED: uuid.uuid4().hex}})
    return TaskResult(point=point.summary, changes=prepared.changes, evidence="; ".join(prepared.notes))


def import_disks(
    task: TaskAssignment, context: TaskContext, scene: Scene, wanted: tuple[CloudDisk, ...], vault: MachineVault
) -> TaskResult:
    """Make managed disks of the copies, each of which is removed when its disk is there."""
    copies = Copies.of(task, scene, vault)
    point, written, ids = copies.reader.point, 0, []
    with overlays(vault, point, scene.directory) as found:
        for number, disk in enumerate(wanted):
            percent = min(99, number * 100 // len(wanted))
            tell = partial(context.progress, percent, f"importing {disk.name}")
            ready = _ready(scene, disk, tell)
            if ready is None:
                copy = copies.copy(disk.vault_id, tell)
                written += bring(copies.reader, disk.vault_id, copy, threads=THREADS).written
                written += _seal(copies, disk, copy, found[disk.vault_id], tell)
                source = copies.replicas.container.url(copy.name)
                ready = str(
                    import_disk(scene.cloud, scene.place, disk, source, account_of(scene.cloud, source), tell).id
                )
            copies.replicas.container.drop(copies.copy_name(disk.vault_id))
            ids.append(ready)
    total = sum(disk.size for disk in wanted)
    said = "imported from copies of the warm replica"
    return TaskResult(
        point=point.summary, disk_bytes=total, bytes_written=written, disk_paths=tuple(ids), evidence=said
    )


def give_up(task: TaskAssignment, context: TaskContext, scene: Scene, wanted: tuple[CloudDisk, ...]) -> None:
    """Stage the disks after all: the rest of the point streams into the files with what the preparation wrote.

    Raises:
        WaitFault: vault or Azure are away; call again.
        StopFault: the point is damaged.
    """
    with vault_of(task) as vault, ExitStack() as undo:
        found = undo.enter_context(overlays(vault, vault.find(task.input.point), scene.directory))
        for disk in wanted:
            streaming = Streaming(found[disk.vault_id])
            streaming.start()
            undo.callback(streaming.stop)
            while not streaming.wait(1.0):
                done, total = streaming.progress.done, streaming.progress.total
                context.progress(min(99, done * 100 // max(1, total)), f"writing disk {disk.vault_id} after all")
            if streaming.progress.spoiled:
                raise StopFault(
                    f"blocks of disk {disk.vault_id} cannot be read from the vault", "Choose another recovery point",
                    reason="PointDamaged",
                )  # fmt: skip
            if not streaming.progress.complete:
                raise WaitFault(f"disk {disk.vault_id} is not whole yet", "It is tried again", reason="VaultAway")
    for disk in wanted:  # an import that failed leaves a disk that looks like one
        _ready(scene, disk, telling(context, f"removing {disk.name}, which was not imported"))
    scene.note(**{WARM: None})


def tried(task: TaskAssignment, scene: Scene, fault: Fault) -> bool:
    """Tell whether the import is tried again after a fault, which is counted; raises what an upload would meet too."""
    if fault.reason in SAME:
        raise fault
    if isinstance(fault, StopFault):
        return False
    known = _noted(task, scene) or {}
    count = int(known.get("tries", 0)) + 1
    scene.note(**{WARM: {**known, "tries": count}})
    return count < MOST_TRIES


def remove_copies(task: TaskAssignment, scene: Scene) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove the copies that runs made for the recovered machine; returns what was removed and what was looked for.

    Where the container does not let us in there are none: they are made with the same login. Those of a machine that is
    to have no replica any more go with the replica.
    """
    used = WARM in noted(scene.directory)
    if task.replica is None or task.vault is None or not (task.replica.wanted or used):
        return (), ()
    with vault_of(task) as vault:
        replicas = Replicas.of(task.replica, scene.cloud, vault)
        try:
            found = replicas.remove_copies(scene.place.name)
        except StopFault as fault:
            if fault.reason not in NO_ENTRY:
                raise
            return (), ()
    return tuple(f"page blob {name}" for name in found), (f"copies of the warm replica of {scene.place.name}",)


def _noted(task: TaskAssignment, scene: Scene) -> dict[str, Any] | None:
    found = noted(scene.directory).get(WARM)
    if not isinstance(found, dict):
        return None
    return found if (found.get("point"), found.get("run")) == (task.input.point, task.run) else None


def _check(copies: Copies, disk: str, copy: PageBlob) -> None:
    if not sound(copies.reader, disk, copy):
        copies.replicas.container.drop(copy.name)
        raise StopFault(
            f"the warm replica of disk {disk} does not hold what it says",
            "Nothing: it is not used, and the process server makes it anew",
            reason="ReplicaSpoiled",
        )


def _ready(scene: Scene, disk: CloudDisk, tell: Tell) -> str | None:
    """Return the id of the managed disk if it is there and whole; what a failed try left of it is removed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    found = find_disk(scene.cloud, scene.place, disk.name)
    while found is not None and plain(found.provisioning_state) in CHANGING:
        tell()  # an earlier try began it, and nobody may write to the copy meanwhile
        if time.monotonic() > deadline:
            raise WaitFault(f"disk {disk.name} is being made for a long time", "It is looked at again", reason=BUSY)
        time.sleep(min(cloud_module.POLL_SECONDS, cloud_module.LOOK))
        found = find_disk(scene.cloud, scene.place, disk.name)
    if found is None:
        return None
    if plain(found.provisioning_state) == "Succeeded" and plain(found.disk_state) not in UPLOADING:
        return str(found.id)
    discard_disk(scene.cloud, scene.place.group, disk.name, plain(found.disk_state), tell)
    return None


def _seal(copies: Copies, disk: CloudDisk, copy: PageBlob, overlay: Overlay, tell: Tell) -> int:
    """Write to a copy what the preparation changed, and the footer of the managed disk; returns the bytes."""
    point, written = copies.reader.point.manifest, 0
    states = overlay.presence.states.copy()
    with copy.opened(copies.reader.disk(disk.vault_id).size_bytes) as state:
        assert state is not None, "it was brought to the point"
        copy.size = disk.size
        copy.resize()
        if copies.prepared:
            copy.save(state, **{PREPARED: copies.prepared})  # first: it is not the point any more
        for first, count in runs_of(np.flatnonzero(states == Held.ZEROED)):
            copy.clear(first, count)
        for block in np.flatnonzero(states == Held.WRITTEN).tolist():
            length = min(BLOCK_SIZE, overlay.size - block * BLOCK_SIZE)
            copy.write(block, memoryview(b"".join(overlay.read(block * BLOCK_SIZE, length))))
            written += length
            tell()
        copy.finish(Footer.of(disk.size, point.name, disk.vault_id, point.time))
    return written
