"""Moves of machines between sites, carried out again after a crash anywhere, and never onto disks that are in use."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import SecretBytes

from farshore_engine.agent.final import NOTE
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import DirectoryAccess, Source, VaultAccess
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.contract.tasks import TaskAssignment, TaskInput, TaskKind
from farshore_engine.hydrate.compare import rewrite
from farshore_engine.hydrate.raw import hydrate as hydrate_disk
from farshore_engine.hydrate.windows import Progress
from farshore_engine.machines.spec import DiskFile, MachineKind, MachineSpec, MachineState, Removal, RunningMachine
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_engine.processserver.tasks import EXECUTORS
from farshore_engine.processserver.tasks.cleanup import clean_up
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.processserver.tasks.finalpoint import final_point
from farshore_engine.processserver.tasks.hydrate import hydrate
from farshore_engine.processserver.tasks.shutdownsource import shutdown_source
from farshore_engine.processserver.tasks.startmachine import start_machine
from farshore_engine.processserver.tasks.writeback import write_back
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.stores import open_machine
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

KEY = b"k" * 32
BLOCKS = 8
SIZE = BLOCKS * BLOCK_SIZE - 4096  # the last block is a short one


@dataclass
class Host:
    """A host of machines whose power and disks are in the test's hands."""

    disk: Path
    states: dict[str, MachineState] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    refuses: bool = False

    def knows(self, name: str) -> bool:
        return name in self.states

    def inspect(self, name: str) -> RunningMachine | None:
        if name not in self.states:
            return None
        return RunningMachine(name, MachineKind.QEMU, self.states[name], "127.0.0.1", 1, 1, Path("console"))

    def disks(self, name: str) -> tuple[DiskFile, ...]:
        return (DiskFile(self.disk, "disk-a", "sda"),)

    def cut_power(self, name: str) -> Removal:
        self.cut.append(name)
        if self.refuses:
            raise StopFault("it does not answer")
        self.states[name] = MachineState.STOPPED
        return Removal()

    def power_off(self, name: str, *, grace: float) -> Removal:
        self.states[name] = MachineState.STOPPED
        return Removal()

    def start(self, spec: MachineSpec) -> RunningMachine:
        self.states[spec.name] = MachineState.RUNNING
        found = self.inspect(spec.name)
        assert found is not None
        return found

    def stop(self, name: str) -> Removal:
        self.states.pop(name, None)
        return Removal()


@dataclass
class Scene:
    """A vault with two points of one disk, and a host."""

    directory: Path
    access: VaultAccess
    points: list[RecoveryPoint]
    content: list[bytes]
    host: Host
    released: list[str] = field(default_factory=list)
    asked: int = 0

    def context(self, **changes: object) -> TaskContext:
        context = TaskContext(
            machines_dir=self.directory / "machines",
            runtime=cast(Any, self.host),
            installer=cast(Any, None),
            data_port=lambda: DataPort("ps", 9443),
            take_point=cast(Any, None),
            now=lambda: datetime.now(UTC),
            progress=lambda percent, sentence: None,
            take_last=self.take_last,
        )
        return replace(context, **changes)  # type: ignore[arg-type]

    def take_last(self, machine: str, hold: float, power_off: bool, seconds: float) -> HeldPoint:
        self.asked += 1
        return HeldPoint(self.points[-1], lambda: hold, self.released.append, lambda: "")

    def commit(self, *notes: str) -> None:
        """Commit another point of the same content."""
        opened = open_machine(self.access, "demo.vm")
        sink = PackUploader(opened.access.store, opened.access.names)
        writer = PointWriter(opened, opened.claim(writer="ps", epoch=1, reason="test"), sink)
        time, disks = datetime(2030, 1, 1, 1, tzinfo=UTC), (DiskFields("disk-a", "sda", SIZE),)
        fields = PointFields(time, Consistency.CRASH, disks, MachineDescription(hostname="db"), notes)
        self.points.append(writer.commit(fields))
        sink.close()
        opened.close()

    def task(self, kind: TaskKind, name: str = "run-vm-step", run: str = "run", **given: object) -> TaskAssignment:
        wanted = TaskInput(machine_id="demo.vm", **given)  # type: ignore[arg-type]
        return TaskAssignment(
            name=name, kind=kind, run=run, input=wanted, vault=self.access, source=Source(address="127.0.0.1")
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    store = DirectoryStore(tmp_path / "vault")
    opened = MachineVault.open(store, KEY, "demo.vm", create=True)
    sink = PackUploader(store, opened.access.names)
    writer = PointWriter(opened, opened.claim(writer="ps", epoch=1, reason="test"), sink)
    disks = (DiskFields("disk-a", "sda", SIZE),)
    points, contents = [], []
    content = bytearray(SIZE)
    for number, blocks in enumerate(((0, 1, 7), (1, 4))):
        for block in blocks:
            data = bytes([10 + number + block]) * min(BLOCK_SIZE, SIZE - block * BLOCK_SIZE)
            writer.add("disk-a", np.array([block]), data)
            content[block * BLOCK_SIZE : block * BLOCK_SIZE + len(data)] = data
        time = datetime(2030, 1, 1, 0, number, tzinfo=UTC)
        fields = PointFields(time, Consistency.CRASH, disks, MachineDescription(hostname="db"))
        points.append(writer.commit(fields))
        contents.append(bytes(content))
    sink.close()
    opened.close()
    access = VaultAccess(name="v", storage=DirectoryAccess(path=tmp_path / "vault"), key=SecretBytes(KEY))
    disk = tmp_path / "own.raw"
    disk.write_bytes(contents[-1])
    return Scene(tmp_path, access, points, contents, Host(disk, {"db": MachineState.RUNNING}))


def test_the_plug_is_pulled_once_the_point_is_there_and_the_disks_are_compared(scene: Scene) -> None:
    task = scene.task(TaskKind.FINAL_POINT, source_machine="db")
    result = final_point(task, scene.context())
    assert (result.confirmed, result.disks_verified, scene.host.cut) == (True, True, ["db"])
    assert result.point == scene.points[-1]
    again = final_point(task, scene.context())
    assert again.point == result.point
    assert scene.asked == 1, "killed before it told: the noted point is found again, the machine is off already"


def test_a_machine_that_thawed_when_its_process_server_died_makes_another_last_point(scene: Scene) -> None:
    note = scene.directory / "final-points" / "run-vm-step"
    note.parent.mkdir()
    note.write_text(json.dumps({"point": scene.points[0].name}))
    result = final_point(scene.task(TaskKind.FINAL_POINT, source_machine="db"), scene.context())
    assert (scene.asked, result.point) == (1, scene.points[-1])


@pytest.mark.parametrize("last", [True, False], ids=["the last point was committed", "only an ordinary one"])
def test_a_last_point_that_was_committed_and_not_noted_is_known_by_what_it_says_of_itself(
    scene: Scene, last: bool
) -> None:
    """The process server was killed right behind the commit, and the machine cut its own power."""
    note = scene.directory / "final-points" / "run-vm-step"
    note.parent.mkdir()
    note.write_text(json.dumps({"asked": "2030-01-01T00:00:30+00:00"}))
    scene.host.states["db"] = MachineState.STOPPED
    if last:
        scene.commit(NOTE)
    result = final_point(scene.task(TaskKind.FINAL_POINT, source_machine="db"), scene.context())
    assert scene.asked == (0 if last else 1)
    assert result.point == scene.points[-1]


def test_a_power_off_that_is_refused_thaws(scene: Scene) -> None:
    scene.host.refuses = True
    with pytest.raises(StopFault) as failed:
        final_point(scene.task(TaskKind.FINAL_POINT, source_machine="db"), scene.context())
    assert failed.value.reason == "NotPoweredOff"
    assert scene.released == ["its power-off was not confirmed"]
    assert not list((scene.directory / "final-points").iterdir())


def test_disks_that_hold_more_than_the_point_are_told(scene: Scene) -> None:
    with scene.host.disk.open("r+b") as file:
        file.seek(3 * BLOCK_SIZE)
        file.write(b"written after the point")
    with pytest.raises(StopFault, match="sda at blocks 3\\+1") as failed:
        final_point(scene.task(TaskKind.FINAL_POINT, source_machine="db"), scene.context())
    assert failed.value.reason == "DisksDiffer"


def test_only_blocks_that_differ_are_fetched_and_written_back(scene: Scene) -> None:
    scene.host.states["db"] = MachineState.STOPPED
    content = bytearray(scene.content[-1])
    content[2 * BLOCK_SIZE] = 99  # a hole of the point
    content[4 * BLOCK_SIZE] = 99
    scene.host.disk.write_bytes(content)
    result = write_back(
        scene.task(TaskKind.WRITE_BACK, source_machine="db", point=scene.points[-1].name), scene.context()
    )
    assert scene.host.disk.read_bytes() == scene.content[-1]
    assert result.bytes_written == BLOCK_SIZE
    assert result.disks_verified
    scene.host.states["db"] = MachineState.RUNNING
    scene.host.disk.write_bytes(content)
    again = write_back(
        scene.task(TaskKind.WRITE_BACK, source_machine="db", point=scene.points[-1].name), scene.context()
    )
    assert again == result
    assert scene.host.disk.read_bytes() == content, "a machine that runs since is left alone"


@pytest.mark.parametrize("size", [SIZE - 3 * BLOCK_SIZE, SIZE, SIZE + BLOCK_SIZE], ids=["smaller", "equal", "larger"])
def test_an_image_of_any_size_becomes_the_disk(scene: Scene, size: int) -> None:
    image = scene.directory / "image.raw"
    image.write_bytes(b"\x55" * size)
    vault = open_machine(scene.access, "demo.vm")
    rewrite(PointReader(vault, vault.find(scene.points[0].name)), "disk-a", image)
    vault.close()
    assert image.read_bytes() == scene.content[0]


def test_a_write_back_that_was_cut_off_goes_on_whatever_it_had_done(scene: Scene) -> None:
    image = scene.directory / "image.raw"
    image.write_bytes(b"\x55" * SIZE)
    vault = open_machine(scene.access, "demo.vm")
    reader = PointReader(vault, vault.find(scene.points[1].name))

    def cut_off(progress: Progress) -> None:
        if progress.written:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(reader, "disk-a", image, threads=1, report=cut_off)
    rewrite(reader, "disk-a", image)
    assert image.read_bytes() == scene.content[1]
    assert rewrite(reader, "disk-a", image).fetched == 0
    vault.close()


def test_a_larger_disk_is_another_disk(scene: Scene) -> None:
    scene.host.states["db"] = MachineState.STOPPED
    scene.host.disk.write_bytes(bytes(SIZE + BLOCK_SIZE))
    with pytest.raises(StopFault, match="it is another one"):
        write_back(scene.task(TaskKind.WRITE_BACK, source_machine="db", point=scene.points[0].name), scene.context())
    assert scene.host.disk.read_bytes() == bytes(SIZE + BLOCK_SIZE)


def recovered(scene: Scene, point: int, run: str, replaces: str = "") -> Callable[[], Path]:
    """Hydrate a point for a run, and return what starts the machine and gives its disk."""
    given = {"machine_name": "web", "point": scene.points[point].name, "replaces": replaces}
    (image,) = hydrate(scene.task(TaskKind.HYDRATE, run=run, **given), scene.context()).disk_paths

    def start() -> Path:
        start_machine(scene.task(TaskKind.START_MACHINE, run=run, **given), scene.context())
        return Path(image)

    return start


def test_a_change_of_point_moves_the_disks_by_what_differs_and_an_old_task_cannot_turn_it_back(scene: Scene) -> None:
    image = recovered(scene, 1, "run-1")()
    content = bytearray(scene.content[1])
    content[0] = 77  # the machine lived
    image.write_bytes(content)
    with pytest.raises(StopFault, match="made from another point"):
        recovered(scene, 0, "run-9")
    moved = hydrate(
        scene.task(TaskKind.HYDRATE, run="run-2", machine_name="web", point=scene.points[0].name, replaces="run-1"),
        scene.context(),
    )
    assert image.read_bytes() == scene.content[0]
    assert moved.bytes_written == 2 * BLOCK_SIZE, "block 0, which it wrote, and block 1; block 4 is cleared"
    recovered(scene, 0, "run-2", "run-1")()
    for run, replaces in (("run-1", ""), ("run-2b", "run-1")):
        with pytest.raises(StopFault, match="made from another point"):
            recovered(scene, 1, run, replaces)
    assert scene.host.states["web"] is MachineState.RUNNING


def test_a_machine_of_this_host_is_shut_down_by_its_provider(scene: Scene) -> None:
    assert shutdown_source(scene.task(TaskKind.SHUTDOWN_SOURCE, source_machine="db"), scene.context()).confirmed
    assert scene.host.states["db"] is MachineState.STOPPED


def test_a_machine_that_was_not_recovered_here_is_never_taken_away(scene: Scene) -> None:
    with pytest.raises(StopFault, match="was not recovered here"):
        clean_up(scene.task(TaskKind.CLEAN_UP, machine_name="db"), scene.context())
    assert scene.host.states["db"] is MachineState.RUNNING


def delete_points(scene: Scene, epoch: int) -> tuple[str, ...]:
    task = scene.task(TaskKind.DELETE_POINTS, epoch=epoch)
    later = scene.context(now=lambda: datetime(2030, 2, 1, tzinfo=UTC))
    return EXECUTORS[TaskKind.DELETE_POINTS](task, later).removed


def test_a_commit_may_delete_all_points_but_the_one_that_the_machine_runs_from(scene: Scene) -> None:
    first, second = scene.points
    scene.commit()
    EXECUTORS[TaskKind.FENCE](scene.task(TaskKind.FENCE, epoch=5, writer="run"), scene.context())
    pin = scene.task(TaskKind.SELECT_POINT, selector=second.name, pin="run")
    EXECUTORS[TaskKind.SELECT_POINT](pin, scene.context())
    newest = scene.points[-1]
    assert delete_points(scene, 5) == (first.name,)
    assert delete_points(scene, 5) == (), "a repeated task finds nothing more"
    with closing(open_machine(scene.access, "demo.vm")) as vault:
        assert [point.name for point in vault.catalogue().summaries()] == [second.name, newest.name]
        image = scene.directory / "restored.raw"
        hydrate_disk(PointReader(vault, vault.find(second.name)), "disk-a", image)
    assert image.read_bytes() == scene.content[1]


def test_no_point_is_deleted_once_the_machine_is_replicated_again(scene: Scene) -> None:
    EXECUTORS[TaskKind.FENCE](scene.task(TaskKind.FENCE, epoch=5, writer="run"), scene.context())
    EXECUTORS[TaskKind.FENCE](scene.task(TaskKind.FENCE, epoch=6, writer="ps-2"), scene.context())
    with pytest.raises(StopFault, match="no point was deleted"):
        delete_points(scene, 5)
    with closing(open_machine(scene.access, "demo.vm")) as vault:
        assert len(vault.catalogue().points) == 2
