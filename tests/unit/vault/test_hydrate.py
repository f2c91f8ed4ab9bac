"""From points to images: whole, resumed, and moved between points."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.contract.faulty_store import FaultyStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import Rig, packs

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.hydrate import raw, windows
from farshore_engine.hydrate.progress import forget_state, read_state, sidecar
from farshore_engine.hydrate.qcow2 import hydrate_qcow2
from farshore_engine.hydrate.raw import Progress, hydrate, update
from farshore_engine.hydrate.verify import verify
from farshore_engine.vault.reader import PointReader, PointSpoiled


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several windows even for small disks."""
    monkeypatch.setattr(windows, "WINDOW", 100)


def reader(rig: Rig, name: str) -> PointReader:
    vault = rig.open()
    return PointReader(vault, vault.find(name))


def machine() -> Rig:
    rig = Rig(pack_target=1 << 18)
    size = 500 * BLOCK_SIZE + 4096
    rig.point("sda", {i: i + 1 for i in range(150)} | {i: i for i in range(300, 320)} | {500: 9}, size=size)
    rig.point("sda", {3: 1000, 120: 0, 310: 1001, 420: 1002, 500: 10})
    rig.point("sda", {3: 4, 421: 1003})
    return rig


def test_an_image_equals_the_disk_and_is_sparse(tmp_path: Path) -> None:
    rig = machine()
    for name, disks in rig.points.items():
        image = tmp_path / name
        seen: list[Progress] = []
        done = hydrate(reader(rig, name), "sda", image, report=seen.append)
        assert image.read_bytes() == disks["sda"]
        assert image.stat().st_blocks * 512 < 200 * BLOCK_SIZE
        assert done.done == done.total == len(disks["sda"])
        assert done.written == sum(
            BLOCK_SIZE for at in range(0, len(disks["sda"]), BLOCK_SIZE) if any(disks["sda"][at : at + BLOCK_SIZE])
        )
        assert 0 < done.fetched < done.written
        assert [p.done for p in seen] == sorted(p.done for p in seen)
        assert verify(reader(rig, name), "sda", image) == []


def test_an_empty_disk_is_a_hole(tmp_path: Path) -> None:
    rig = Rig()
    rig.point("sda", {})
    name = rig.names()[0]
    hydrate(reader(rig, name), "sda", tmp_path / "i")
    assert (tmp_path / "i").stat().st_size == 64 * BLOCK_SIZE
    assert (tmp_path / "i").stat().st_blocks == 0


def test_an_interrupted_hydration_resumes_where_it_was_durable(tmp_path: Path) -> None:
    rig = machine()
    name = rig.names()[-1]
    image = tmp_path / "i"
    left = {"reads": 12}

    def plan(operation: str, object_name: str) -> str | None:
        if operation == "get_range":
            left["reads"] -= 1
        return "503" if left["reads"] < 0 else None

    whole, rig.store = rig.store, FaultyStore(rig.store, plan)
    interrupted = reader(rig, name)
    with pytest.raises(WaitFault):
        hydrate(interrupted, "sda", image, threads=1)
    state = read_state(image)
    assert state is not None and state.blocks and not state.complete
    rig.store = whole
    done = hydrate(reader(rig, name), "sda", image)
    assert image.read_bytes() == rig.points[name]["sda"]
    assert done.written < 170 * BLOCK_SIZE
    assert hydrate(reader(rig, name), "sda", image).fetched == 0


@pytest.mark.parametrize(
    "leftover", ["another point's image", "a foreign file", "a sidecar without its image", "a broken sidecar"]
)
def test_what_lies_there_is_not_trusted(tmp_path: Path, leftover: str) -> None:
    rig = machine()
    first, last = rig.names()[0], rig.names()[-1]
    image = tmp_path / "i"
    if leftover == "a foreign file":
        image.write_bytes(b"\xff" * (600 * BLOCK_SIZE))
    else:
        hydrate(reader(rig, first if leftover == "another point's image" else last), "sda", image)
    if leftover == "a sidecar without its image":
        image.unlink()
    if leftover == "a broken sidecar":
        sidecar(image).write_text("{")
        image.write_bytes(b"\xff" * 1000)
    hydrate(reader(rig, last), "sda", image)
    assert image.read_bytes() == rig.points[last]["sda"]


def test_moving_between_points_writes_only_what_differs(tmp_path: Path) -> None:
    rig = machine()
    names = rig.names()
    image = tmp_path / "i"
    hydrate(reader(rig, names[0]), "sda", image)
    for base, target, blocks in [(0, 2, 5), (2, 1, 2), (1, 0, 5)]:
        done = update(reader(rig, names[base]), reader(rig, names[target]), "sda", image)
        assert image.read_bytes() == rig.points[names[target]]["sda"]
        assert done.written <= blocks * BLOCK_SIZE
        assert verify(reader(rig, names[target]), "sda", image) == []
    assert update(reader(rig, names[1]), reader(rig, names[0]), "sda", image).written == 0


def test_moving_follows_the_disks_size(tmp_path: Path) -> None:
    rig = machine()
    rig.point("sda", {600: 5}, size=700 * BLOCK_SIZE)
    rig.point("sda", {}, size=50 * BLOCK_SIZE)
    rig.point("sda", {}, size=20 * BLOCK_SIZE + 512)
    names = rig.names()
    image = tmp_path / "i"
    hydrate(reader(rig, names[2]), "sda", image)
    for base, target in [(2, 3), (3, 4), (4, 3), (3, 5), (5, 2)]:
        update(reader(rig, names[base]), reader(rig, names[target]), "sda", image)
        assert image.read_bytes() == rig.points[names[target]]["sda"]


def test_an_interrupted_move_resumes(tmp_path: Path) -> None:
    rig = machine()
    names = rig.names()
    image = tmp_path / "i"
    hydrate(reader(rig, names[0]), "sda", image)
    stopped = {"at": 2}

    def stop(progress: Progress) -> None:
        stopped["at"] -= 1
        if stopped["at"] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(reader(rig, names[0]), reader(rig, names[2]), "sda", image, report=stop)
    with pytest.raises(StopFault, match="is not complete"):
        update(reader(rig, names[1]), reader(rig, names[2]), "sda", image)
    update(reader(rig, names[0]), reader(rig, names[2]), "sda", image)
    assert image.read_bytes() == rig.points[names[2]]["sda"]


@pytest.mark.parametrize("case", ["another point", "used since", "never hydrated"])
def test_an_image_that_is_not_the_base_is_not_touched(tmp_path: Path, case: str) -> None:
    rig = machine()
    names = rig.names()
    image = tmp_path / "i"
    if case != "never hydrated":
        hydrate(reader(rig, names[1]), "sda", image)
    if case == "used since":
        forget_state(image)
    base = names[0] if case == "another point" else names[1]
    before = image.read_bytes() if image.exists() else None
    with pytest.raises(StopFault) as caught:
        update(reader(rig, base), reader(rig, names[2]), "sda", image)
    assert caught.value.reason == "WrongImage"
    assert (image.read_bytes() if image.exists() else None) == before


def test_a_damaged_block_stops_the_hydration_and_is_not_written(tmp_path: Path) -> None:
    rig = machine()
    name = rig.names()[0]
    refs = reader(rig, name).lookup("sda", 0, 10)
    pack = next(n for n in packs(rig.store) if n.endswith(f"-{int(refs[5]['random']):016x}"))
    data = bytearray(rig.store.get(pack)[0])
    data[int(refs[5]["offset"]) + 99] ^= 4
    rig.store.put(pack, data)
    image = tmp_path / "i"
    with pytest.raises(PointSpoiled) as caught:
        hydrate(reader(rig, name), "sda", image)
    assert (caught.value.point, caught.value.disk, caught.value.first) == (name, "sda", 5)
    written = image.read_bytes()[5 * BLOCK_SIZE : 6 * BLOCK_SIZE]
    assert written == bytes(BLOCK_SIZE)
    state = json.loads(sidecar(image).read_text())
    assert not state["complete"]


def test_verify_names_the_blocks_that_differ(tmp_path: Path) -> None:
    rig = machine()
    name = rig.names()[0]
    image = tmp_path / "i"
    hydrate(reader(rig, name), "sda", image)
    with image.open("r+b") as file:
        for block in (7, 8, 400):
            file.seek(block * BLOCK_SIZE + 77)
            file.write(b"!")
    assert verify(reader(rig, name), "sda", image) == [(7, 2), (400, 1)]
    with image.open("r+b") as file:
        file.truncate(499 * BLOCK_SIZE)
    assert verify(reader(rig, name), "sda", image) == [(7, 2), (400, 1), (499, 2)]


def test_qcow2_holds_the_same(tmp_path: Path) -> None:
    rig = machine()
    name = rig.names()[1]
    image = tmp_path / "i.qcow2"
    hydrate_qcow2(reader(rig, name), "sda", image)
    assert [p.name for p in tmp_path.iterdir()] == ["i.qcow2"]
    tool = shutil.which("qemu-img")
    assert tool is not None
    subprocess.run([tool, "convert", "-O", "raw", str(image), str(tmp_path / "back")], check=True)
    content = rig.points[name]["sda"]
    assert (tmp_path / "back").read_bytes()[: len(content)] == content


def test_a_disk_that_the_point_lacks_is_named(tmp_path: Path) -> None:
    rig = machine()
    with pytest.raises(StopFault, match="has no disk sdz") as caught:
        hydrate(reader(rig, rig.names()[0]), "sdz", tmp_path / "i")
    assert "sda" in caught.value.remedy
    assert isinstance(rig.store, MemoryStore)


@pytest.mark.parametrize("where", ["while it is emptied", "when it is empty"])
def test_an_image_that_is_overwritten_is_not_what_it_was_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A kill after the image was emptied and before its new sidecar was written must not leave the old sidecar."""
    rig = machine()
    first, last = rig.names()[0], rig.names()[-1]
    image = tmp_path / "i"
    hydrate(reader(rig, first), "sda", image)

    def kill(*_: object, **__: object) -> None:
        if where == "when it is empty":
            image.write_bytes(b"")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(raw, "Image" if where == "while it is emptied" else "write_state", kill)
        hydrate(reader(rig, last), "sda", image)
    with pytest.raises(StopFault):
        update(reader(rig, first), reader(rig, last), "sda", image)
    hydrate(reader(rig, first), "sda", image)
    assert image.read_bytes() == rig.points[first]["sda"]


def test_an_image_that_is_cut_is_not_what_it_was_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move to a smaller disk cuts the image: from before that on, the sidecar must not call it whole."""
    rig = machine()
    rig.point("sda", {}, size=50 * BLOCK_SIZE)
    names = rig.names()
    image = tmp_path / "i"
    hydrate(reader(rig, names[2]), "sda", image)

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(raw, "Image", kill)
        update(reader(rig, names[2]), reader(rig, names[3]), "sda", image)
    with pytest.raises(StopFault, match="is not complete"):
        update(reader(rig, names[2]), reader(rig, names[1]), "sda", image)
    update(reader(rig, names[2]), reader(rig, names[3]), "sda", image)
    assert image.read_bytes() == rig.points[names[3]]["sda"]
