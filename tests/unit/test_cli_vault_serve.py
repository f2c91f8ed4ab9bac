"""`farshore vault serve`, as somebody runs it with nothing but files: it listens, serves, streams and cleans up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.nbd.client import Client, Refused
from tests.unit.vault.rig import KEK, MACHINE, Rig
from typer.testing import CliRunner

from farshore_cli.main import build
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.vault.directory_store import DirectoryStore

SIZE = 40 * BLOCK_SIZE


class Night:
    """A vault with a machine of two disks, and the files that somebody has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "key").write_bytes(KEK)
        self.rig = Rig(DirectoryStore(directory / "vault", durable=False))
        self.rig.write("sda", {1: 1, 5: 5}, size=SIZE)
        self.rig.point("sdb", {2: 2}, size=SIZE)
        self.name = self.rig.names()[-1]

    def words(self, *more: str) -> list[str]:
        place = ["--directory", str(self.directory / "vault"), "--key-file", str(self.directory / "key")]
        return ["vault", "serve", "db", *more, *place]

    def pins(self) -> tuple[str, ...]:
        return self.rig.vault.find(self.name).pins

    @contextmanager
    def serving(self, *more: str) -> Iterator[list[dict[str, str]]]:
        """Run it until the context ends, then end it as a service manager does; gives the disks that it tells of."""
        words = [sys.executable, "-m", "farshore_cli.main", *self.words("Latest", *more, "-o", "json")]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.directory)
        try:
            assert server.stdout is not None
            told = ""
            while not told.endswith("}\n") or told.count("{") != told.count("}"):
                line = server.stdout.readline()
                assert line, server.communicate()[1]
                told += line
            assert self.pins()
            yield json.loads(told)["disks"]
            server.terminate()
            _, said = server.communicate(timeout=300)
            assert server.returncode == 0, said
        finally:
            server.kill()
            server.wait()
        assert self.pins() == ()


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    night = Night(tmp_path)
    yield night
    night.rig.sink.close()
    night.rig.vault.close()


def test_a_point_is_served_until_the_end(night: Night) -> None:
    content = night.rig.points[night.name]
    with night.serving() as disks:
        socket = night.directory / f"{MACHINE}.sock"
        assert [disk["uri"] for disk in disks] == [f"nbd+unix:///{name}?socket={socket}" for name in ("sda", "sdb")]
        for disk in ("sda", "sdb"):
            with Client(socket) as client:
                client.go(disk)
                assert client.read(0, SIZE) == content[disk]
                with pytest.raises(Refused):
                    client.write(0, b"x")
    assert not socket.exists()


def test_an_overlay_takes_writes_and_becomes_the_disk(night: Night) -> None:
    expected = bytearray(night.rig.points[night.name]["sda"])
    expected[100:105] = b"hello"
    overlay, socket = night.directory / "sda.raw", night.directory / "s"
    for turn in range(2):
        with (
            night.serving("--disk", "sda", "--overlay", str(overlay), "--socket", str(socket)),
            Client(socket) as client,
        ):
            client.go()
            if turn == 0:
                client.write(100, b"hello")
            assert client.read(0, SIZE) == expected
    assert overlay.read_bytes() == expected


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param(("Latest", "--listen", "0.0.0.0:10809"), "loopback", id="where others could connect"),
        pytest.param(("Latest", "--listen", "1", "--socket", "s"), "both --socket and --listen", id="two places"),
        pytest.param(("Latest", "--disk", "sdz"), "no disk sdz", id="a disk that is not there"),
        pytest.param(("Latest", "--overlay", "one.raw"), "2 disks", id="one overlay for two disks"),
        pytest.param(("p-20200101t000000z-9",), "no recovery point", id="a point that is not there"),
    ],
)
def test_what_cannot_be_served_is_said(night: Night, more: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(build(), night.words(*more))
    assert done.exit_code != 0
    assert said in str(done.exception)
    assert night.pins() == ()
