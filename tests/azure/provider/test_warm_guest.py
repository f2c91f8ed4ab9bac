"""The guest of a warm replica is prepared on the point itself, and what that changes is written to the copies."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.azure.provider.scene import MIB, Scene, boot_disk, ours
from tests.azure.provider.warmscene import WarmScene, change
from tests.azuresim import AzureSim

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.tasks import GuestPreparation, NetworkSettings, TaskKind
from farshore_engine.machines import loop
from farshore_engine.nbd import files

WANTED = GuestPreparation(azure=True, network=NetworkSettings())
SIZE, AT = 40 * MIB, MIB


def linux_disk(directory: Path) -> np.ndarray[Any, Any]:
    """Return a disk that a BIOS boots, with a Linux in its only partition, and a file that nobody edits."""
    tree = directory / "tree"
    for name, text in (
        ("etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n"),
        ("etc/os-release", "ID=debian\n"),
        ("etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet"\n'),
        ("srv/data", "x" * (5 * MIB)),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    image = directory / "linux.raw"
    data = np.zeros(SIZE, np.uint8)
    head = bytearray(boot_disk()[:512].tobytes())
    head[446 + 8 : 446 + 16] = (AT // 512).to_bytes(4, "little") + ((SIZE - AT) // 512).to_bytes(4, "little")
    data[:512] = np.frombuffer(bytes(head), np.uint8)
    image.write_bytes(data.tobytes())
    command = ["mkfs.ext4", "-q", "-d", tree, "-E", f"offset={AT}", image, str((SIZE - AT) // 1024)]
    subprocess.run(command, check=True)
    return np.frombuffer(image.read_bytes(), np.uint8)


def grub_in(data: np.ndarray[Any, Any], directory: Path) -> str:
    """Return what the guest's settings of its boot loader are."""
    image = directory / "partition.raw"
    image.write_bytes(data[AT:].tobytes())
    command = ["debugfs", "-R", "cat /etc/default/grub", image]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def linux(warm: WarmScene, tmp_path: Path) -> WarmScene:
    warm.disks = {"disk-os": linux_disk(tmp_path), "disk-data": warm.disks["disk-data"]}
    warm.take_point()
    warm.keep()
    change(warm, "disk-data", 4, 99)
    warm.point = warm.take_point()
    warm.store.requests.clear()
    return warm


def test_what_preparation_changes_and_nothing_else_differs_from_the_point(
    linux: WarmScene, sim: AzureSim, tmp_path: Path
) -> None:
    before = linux.replica_bytes("disk-os")
    linux.do(TaskKind.HYDRATE)
    prepared = linux.do(TaskKind.PREPARE_GUEST, preparation=WANTED)
    assert any("serial console" in one for one in prepared.changes)
    staged = sum(path.stat().st_blocks * 512 for path in linux.staged())
    assert staged < 6 * MIB, "most of the disks was never written here"
    uploaded = linux.do(TaskKind.UPLOAD_DISKS)
    assert "imported" in uploaded.evidence
    os_disk, data_disk = (linux.bytes_of(one) for one in uploaded.disk_paths)
    assert "console=ttyS0" in grub_in(os_disk, tmp_path)
    differs = np.flatnonzero((os_disk[:SIZE] != linux.disks["disk-os"]).reshape(-1, BLOCK_SIZE).any(axis=1))
    assert 0 < differs.size < 40
    point = linux.disks["disk-data"]
    assert np.array_equal(data_disk[: point.size], point)
    moved = linux.store.written()
    assert moved < (differs.size + 40) * BLOCK_SIZE
    assert linux.replica_bytes("disk-os") == before, "neither run nor preparation writes to the replica"
    nothing_left(linux)
    linux.do(TaskKind.START_MACHINE)
    assert not linux.staged()
    linux.do(TaskKind.CLEAN_UP)
    assert ours(sim) == [] and not [one for one in linux.names() if "/runs/" in one or "@" in one]


def test_far_less_is_sent_than_without_a_replica(linux: WarmScene, tmp_path: Path) -> None:
    for kind in (TaskKind.HYDRATE, TaskKind.PREPARE_GUEST, TaskKind.UPLOAD_DISKS):
        linux.do(kind, preparation=WANTED)
    cold = Scene(linux.sim, linux.directory, disks=linux.disks, point=linux.point, run="cold", machine_name="cold-01")
    cold.own = tmp_path / "cold"
    cold.own.mkdir()
    cold.do(TaskKind.HYDRATE)
    cold.do(TaskKind.PREPARE_GUEST, preparation=WANTED)
    sent = cold.do(TaskKind.UPLOAD_DISKS).bytes_written
    assert sent is not None and linux.store.written() < sent / 2


def test_a_preparation_that_comes_again_begins_anew_and_the_copy_with_it(linux: WarmScene) -> None:
    """Its first try had been written to the copy, in part, when the process server was killed."""
    linux.do(TaskKind.HYDRATE)
    linux.do(TaskKind.PREPARE_GUEST, preparation=WANTED)
    linux.store.refuse = once_after(linux, 1)
    with pytest.raises(_Killed):
        linux.do(TaskKind.UPLOAD_DISKS)
    linux.store.refuse = lambda _: None
    linux.progress = None
    linux.do(TaskKind.PREPARE_GUEST, preparation=GuestPreparation())
    uploaded = linux.do(TaskKind.UPLOAD_DISKS)
    found = linux.bytes_of(uploaded.disk_paths[0])[:SIZE]
    differs = np.flatnonzero((found != linux.disks["disk-os"]).reshape(-1, BLOCK_SIZE).any(axis=1))
    assert b"console=ttyS0" not in found.tobytes(), "nothing of the first preparation is left"
    assert differs.size < 40
    nothing_left(linux)


class _Killed(BaseException):
    """The process is gone."""


def once_after(scene: WarmScene, writes: int) -> Any:
    """End the step, as a kill does, when so many pages of the preparation have been written."""
    seen: list[str] = []

    def watch(percent: int | None, sentence: str) -> None:
        if sentence.startswith("importing") and len(seen) > writes:
            raise _Killed

    scene.progress = watch

    def refuse(request: Any) -> None:
        if request.writes and "/runs/" in request.path:
            seen.append(request.path)

    return refuse


def test_without_fuse_the_disks_are_staged_and_it_is_said_why(
    linux: WarmScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux.do(TaskKind.HYDRATE)
    monkeypatch.setattr(files, "FUSE", tmp_path / "nothing")
    prepared = linux.do(TaskKind.PREPARE_GUEST, preparation=WANTED)
    assert prepared.changes and "warm replica was not used" in prepared.evidence
    uploaded = linux.do(TaskKind.UPLOAD_DISKS)
    assert "console=ttyS0" in grub_in(linux.bytes_of(uploaded.disk_paths[0]), tmp_path)


def test_an_import_that_azure_refuses_becomes_an_upload_of_the_same_bytes(
    linux: WarmScene, sim: AzureSim, tmp_path: Path
) -> None:
    linux.do(TaskKind.HYDRATE)
    linux.do(TaskKind.PREPARE_GUEST, preparation=WANTED)
    said = "The storage account does not let Azure in"
    sim.faults.refuse("PUT", "*/disks/*", 400, "StorageAccountNotAccessible", said)
    uploaded = linux.do(TaskKind.UPLOAD_DISKS)
    assert said in uploaded.evidence and "not used" in uploaded.evidence
    assert "console=ttyS0" in grub_in(linux.bytes_of(uploaded.disk_paths[0]), tmp_path)
    point = linux.disks["disk-data"]
    assert np.array_equal(linux.bytes_of(uploaded.disk_paths[1])[: point.size], point)
    linux.do(TaskKind.CLEAN_UP)
    assert ours(sim) == [] and not [one for one in linux.names() if "/runs/" in one or "@" in one]


def test_an_account_in_another_region_is_refused_by_name_before_anything_is_copied(
    linux: WarmScene, sim: AzureSim
) -> None:
    (account,) = sim.store.of("Microsoft.Storage/storageAccounts")
    account.body["location"] = "northeurope"
    hydrated = linux.do(TaskKind.HYDRATE)
    assert "northeurope" in hydrated.evidence and "within one region" in hydrated.evidence
    assert not [one for one in linux.names() if "/runs/" in one]


def nothing_left(scene: WarmScene) -> None:
    """There is neither a mount nor a loop device of a served point, nor a daemon's directory."""
    place = files.place_of(str(scene.context.machines_dir / scene.machine_name))
    assert not place.exists()
    assert str(place) not in Path("/proc/mounts").read_text()
    assert not [one for one in loop.attached() if one.backing.startswith(str(place))]
