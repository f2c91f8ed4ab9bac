"""Points and overlays as disks: exact, never wrong bytes, and whole again after every kind of end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.contract.faulty_store import FaultyStore
from tests.unit.nbd import client as nbd
from tests.unit.nbd.client import Client, Refused
from tests.unit.vault.rig import MACHINE, Rig, packs

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import StopFault
from farshore_engine.nbd import streaming
from farshore_engine.nbd.device import Device, DeviceError
from farshore_engine.nbd.overlay import Overlay
from farshore_engine.nbd.pointdevice import PointDevice
from farshore_engine.nbd.presence import LIVE
from farshore_engine.nbd.serving import PointServer, ServeOptions, pin_name
from farshore_engine.nbd.streaming import Streaming
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.reader import PointReader

REPOSITORY = Path(__file__).parents[3]
SIZE = 40 * BLOCK_SIZE + 4608  # the last block is short


@pytest.fixture(scope="module")
def rig() -> Rig:
    rig = Rig(pack_target=1 << 18)
    rig.point("sda", {i: i + 1 for i in range(0, 41, 2)} | {i: i + 1 for i in range(11, 20)}, size=SIZE)
    return rig


def device_of(rig: Rig, **options: float) -> PointDevice:
    vault = rig.open()
    return PointDevice(PointReader(vault, vault.find(rig.names()[-1])), "sda", **options)  # type: ignore[arg-type]


def content_of(rig: Rig) -> bytes:
    return rig.points[rig.names()[-1]]["sda"]


def read(device: Device, offset: int, length: int) -> bytes:
    return b"".join(device.read(offset, length))


@given(ranges=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, 5 * BLOCK_SIZE)), min_size=1, max_size=20))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_point_reads_as_it_was(rig: Rig, ranges: list[tuple[int, int]]) -> None:
    content = content_of(rig)
    with closing(device_of(rig, cached=8 * BLOCK_SIZE)) as device:
        for offset, length in ranges:
            length = min(length, SIZE - offset)
            assert read(device, offset, length) == content[offset : offset + length]


def test_holes_are_told(rig: Rig) -> None:
    content = content_of(rig)
    with closing(device_of(rig)) as device:
        at = 0
        for length, kind in device.extents(0, SIZE):
            assert any(content[at : at + length]) is (kind == 0)
            at += length
        assert at == SIZE
        assert [length for length, _ in device.extents(100, 50)] == [50]


def test_many_clients_at_once_fetch_a_block_once(rig: Rig) -> None:
    asked: list[str] = []
    slow = FaultyStore(rig.store, lambda operation, name: asked.append(operation + name))  # type: ignore[func-returns-value]
    whole, rig.store = rig.store, slow
    try:
        device = device_of(rig)
    finally:
        rig.store = whole
    with closing(device):
        read(device, 0, 1)  # the map and the pack's key
        asked.clear()
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(read(device, 0, SIZE))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) == {content_of(rig)}
        assert len([one for one in asked if "/packs/" in one]) <= 2 * len(packs(rig.store)) + 1, asked


@contextmanager
def damaged(rig: Rig, block: int, how: Callable[[bytearray, int], None]) -> Iterator[None]:
    """Spoil the record of a block while the context lasts."""
    vault = rig.open()
    refs = PointReader(vault, vault.find(rig.names()[-1])).lookup("sda", block, 1)
    name = next(n for n in packs(rig.store) if n.endswith(f"-{int(refs[0]['random']):016x}"))
    before = rig.store.get(name)[0]
    data = bytearray(before)
    how(data, int(refs[0]["offset"]))
    rig.store.put(name, data)
    try:
        yield
    finally:
        rig.store.put(name, before)


def flip(data: bytearray, offset: int) -> None:
    data[offset + 40] ^= 1


def truncate(data: bytearray, offset: int) -> None:
    del data[offset + 10 :]


@pytest.mark.parametrize("how", [flip, truncate])
@pytest.mark.parametrize("served_as", ["a point", "an overlay"])
def test_a_damaged_block_is_an_error_and_never_wrong_bytes(
    rig: Rig, tmp_path: Path, how: Callable[[bytearray, int], None], served_as: str
) -> None:
    content = content_of(rig)
    with damaged(rig, 14, how), closing(device_of(rig)) as base, capture_logs() as logs:
        device: Device = base
        if served_as == "an overlay":
            device = Overlay(base, tmp_path / "o")
            stream = Streaming(device)
            stream.start()
            assert stream.wait(240)
            assert stream.progress.spoiled >= 1
            assert not stream.progress.complete
        failed = []
        for block in range(41):
            length = min(BLOCK_SIZE, SIZE - block * BLOCK_SIZE)
            try:
                assert read(device, block * BLOCK_SIZE, length) == content[block * BLOCK_SIZE :][:length]
            except DeviceError as error:
                assert error.error == nbd.EIO
                failed.append(block)
        assert 14 in failed
        assert failed == [14] or how is truncate, "neighbours in the pack are served"
        told = next(log for log in logs if log["event"] == "nbd read failed" and log["blocks"] == "14+1")
        assert (told["point"], told["disk"]) == (rig.names()[-1], "sda")
        with pytest.raises(DeviceError):
            read(device, 13 * BLOCK_SIZE, 3 * BLOCK_SIZE)
        if isinstance(device, Overlay):
            device.write(14 * BLOCK_SIZE, memoryview(b"z" * BLOCK_SIZE))  # what the machine overwrites is whole again
            assert read(device, 14 * BLOCK_SIZE, BLOCK_SIZE) == b"z" * BLOCK_SIZE
            device.close()


def test_a_store_that_is_away_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farshore_engine.nbd.pointdevice.PAUSE", 0.05)
    left = {"refusals": 0}

    def plan(operation: str, name: str) -> str | None:
        left["refusals"] -= 1
        return "503" if left["refusals"] >= 0 and "/packs/" in name else None

    whole, rig.store = rig.store, FaultyStore(rig.store, plan)
    try:
        device = device_of(rig, patience=30)
        impatient = device_of(rig, patience=0.0)
    finally:
        rig.store = whole
    with closing(device), closing(impatient):
        left["refusals"] = 6
        assert read(device, 0, BLOCK_SIZE) == content_of(rig)[:BLOCK_SIZE]
        left["refusals"] = 3
        with pytest.raises(DeviceError):
            read(impatient, 0, BLOCK_SIZE)
        left["refusals"] = 0
        assert read(impatient, 0, BLOCK_SIZE) == content_of(rig)[:BLOCK_SIZE], "a failure is not remembered"


STEP = st.tuples(
    st.sampled_from(
        ["write", "write", "zero", "zero in place", "trim", "read", "flush", "stream", "restart", "power cut"]
    ),
    st.one_of(st.integers(0, SIZE - 1), st.integers(0, 40).map(lambda block: block * BLOCK_SIZE)),
    st.one_of(st.integers(1, 3 * BLOCK_SIZE), st.integers(1, 4).map(lambda blocks: blocks * BLOCK_SIZE)),
)


@given(steps=st.lists(STEP, min_size=1, max_size=25), seed=st.integers(0, 255))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_an_overlay_behaves_like_a_disk(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], seed: int
) -> None:
    """Against a model: trim may leave parts of blocks as they were; a power cut loses nothing that was flushed."""
    path = tmp_path_factory.mktemp("overlay") / "o"
    model = bytearray(content_of(rig))
    base = device_of(rig)
    overlay = Overlay(base, path)
    random_ = random.Random(seed)
    for action, offset, length in steps:
        length = min(length, SIZE - offset)
        if action == "write":
            data = random_.randbytes(length)
            overlay.write(offset, memoryview(data))
            model[offset : offset + length] = data
        elif action in ("zero", "zero in place"):
            overlay.zero(offset, length, keep_space=action != "zero")
            model[offset : offset + length] = bytes(length)
        elif action == "trim":
            overlay.trim(offset, length)
            found = read(overlay, offset, length)
            for at in range(length):
                assert found[at] in (0, model[offset + at])
            model[offset : offset + length] = found
        elif action == "read":
            assert read(overlay, offset, length) == model[offset : offset + length]
        elif action == "flush":
            overlay.flush()
        elif action == "stream":
            stream = Streaming(overlay)
            stream.start()
            assert stream.wait(240)
            assert stream.progress.complete
            assert path.read_bytes() == model, "the file alone is the disk"
        else:
            if action == "power cut":
                overlay.flush()
            overlay.close()
            if action == "power cut":
                path.with_name("o" + LIVE).unlink()
            overlay = Overlay(base, path)
    assert read(overlay, 0, SIZE) == model
    total = 0
    for length, kind in overlay.extents(0, SIZE):
        if kind:
            assert not any(model[total : total + length])
        total += length
    assert total == SIZE
    overlay.close()
    base.close()


def test_streaming_never_overwrites_what_the_machine_wrote(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WINDOW", 8)
    monkeypatch.setattr(streaming, "RECORDS", 4)
    for turn in range(10):
        path = tmp_path / f"o{turn}"
        model = bytearray(content_of(rig))
        with closing(device_of(rig)) as base, closing(Overlay(base, path)) as overlay:
            stream = Streaming(overlay)
            stream.start()
            random_ = random.Random(turn)
            while not stream.wait(0):
                offset = random_.randrange(SIZE)
                data = random_.randbytes(min(random_.choice([512, 4096, 70_000]), SIZE - offset))
                overlay.write(offset, memoryview(data))
                model[offset : offset + len(data)] = data
            assert read(overlay, 0, SIZE) == model
        assert path.read_bytes() == model


@pytest.mark.parametrize("case", ["a foreign file", "another point's", "in use"])
def test_an_overlay_of_something_else_is_not_touched(rig: Rig, tmp_path: Path, case: str) -> None:
    path = tmp_path / "o"
    other = Rig(machine="team-a.other")
    other.point("sda", {1: 1}, size=SIZE)
    with closing(device_of(rig)) as base, closing(device_of(other)) as foreign:
        held: Overlay | None = None
        if case == "a foreign file":
            path.write_bytes(b"precious")
        else:
            held = Overlay(base if case == "in use" else foreign, path)
        if held is not None and case != "in use":
            held.close()
        before = path.read_bytes()
        with pytest.raises(StopFault) as caught:
            Overlay(base, path)
        assert caught.value.reason == ("InUse" if case == "in use" else "WrongImage")
        assert path.read_bytes() == before
        if case == "in use" and held is not None:
            held.close()


SERVER = """
import sys, time
from pathlib import Path
from farshore_engine.nbd.serving import PointServer, ServeOptions
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
store, machine, point, place = sys.argv[1:]
vault = MachineVault.open(DirectoryStore(Path(store)), bytes(range(32)), machine)
options = ServeOptions(overlays={"sda": Path(place) / "o"})
with PointServer(vault, point, Path(place) / "s", options):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(600)
def test_a_server_that_is_killed_loses_no_write_that_it_acknowledged(tmp_path: Path) -> None:
    rig = Rig(store=DirectoryStore(tmp_path / "store"), pack_target=1 << 18)
    rig.point("sda", {i: i + 1 for i in range(300)}, size=400 * BLOCK_SIZE + 512)
    size = 400 * BLOCK_SIZE + 512
    name = rig.names()[-1]
    model = bytearray(rig.points[name]["sda"])
    random_ = random.Random(7)
    arguments = [str(tmp_path / "store"), MACHINE, name, str(tmp_path)]
    for turn in range(4):
        server = subprocess.Popen([sys.executable, "-c", SERVER, *arguments], stdout=subprocess.PIPE, cwd=REPOSITORY)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
            with Client(tmp_path / "s") as client:
                client.go("sda")
                for at in range(0, size, 1 << 20):
                    length = min(1 << 20, size - at)
                    assert client.read(at, length) == model[at : at + length], f"turn {turn} at {at}"
                ends = time.monotonic() + random_.random() * 0.3
                while time.monotonic() < ends:
                    offset = random_.randrange(size - 9000)
                    data = random_.randbytes(random_.choice([512, 4096, 9000]))
                    client.write(offset, data)
                    model[offset : offset + len(data)] = data
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()
            assert server.stdout is not None
            server.stdout.close()
    vault = rig.open()
    with PointServer(vault, name, tmp_path / "s", ServeOptions(overlays={"sda": tmp_path / "o"})) as served:
        assert served.wait_streamed(240)
    assert (tmp_path / "o").read_bytes() == model
    assert vault.find(name).pins == (), "the killed servers' pin is gone too"


def test_serving_pins_the_point_and_lets_go_of_it(rig: Rig, tmp_path: Path) -> None:
    vault = rig.open()
    name = rig.names()[-1]
    place = tmp_path / "s"
    with PointServer(vault, name, place) as served:
        assert vault.find(name).pins == (pin_name(place),)
        with Client(place) as client:
            client.go("sda")
            assert client.read(0, 100) == content_of(rig)[:100]
            with pytest.raises(Refused):
                client.write(0, b"x")
        assert served.uri("sda").startswith("nbd+unix:///sda?socket=")
    assert vault.find(name).pins == ()
    with pytest.raises(StopFault, match="no disk sdz"), PointServer(vault, name, place, ServeOptions(disks=("sdz",))):
        pass
    assert vault.find(name).pins == ()


def test_qemu_s_own_tools_agree(rig: Rig, tmp_path: Path) -> None:
    content = content_of(rig)
    (tmp_path / "truth").write_bytes(content)
    overlay = tmp_path / "o"
    with PointServer(rig.open(), rig.names()[-1], tmp_path / "r") as served:
        uri = served.uri("sda")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri, tmp_path / "copy"], check=True)
        assert (tmp_path / "copy").read_bytes() == content
        assert os.stat(tmp_path / "copy").st_blocks * 512 < SIZE, "holes are told, so that the copy is sparse"
    options = ServeOptions(overlays={"sda": overlay}, streaming=False)
    with PointServer(rig.open(), rig.names()[-1], tmp_path / "w", options) as served:
        uri = served.uri("sda")
        steps = ["write -P 7 1000 3000", "flush", "read -P 7 1000 3000", "discard 128k 128k", "write -z 512k 100k"]
        commands = [part for step in steps for part in ("-c", step)]
        done = subprocess.run(["qemu-io", "-f", "raw", *commands, uri], capture_output=True, text=True, check=True)
        assert "failed" not in done.stdout + done.stderr
        expected = bytearray(content)
        expected[1000:4000] = b"\x07" * 3000
        expected[128 << 10 : 256 << 10] = bytes(128 << 10)
        expected[512 << 10 : 612 << 10] = bytes(100 << 10)
        (tmp_path / "expected").write_bytes(expected)
        compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", uri, str(tmp_path / "expected")]
        subprocess.run(compare, check=True, stdout=subprocess.DEVNULL)
