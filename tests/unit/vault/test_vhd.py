"""The footer of a fixed VHD, against QEMU's own and against the specification's numbers."""

from __future__ import annotations

import json
import struct
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.vault.rig import Rig

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.verify import verify
from farshore_engine.hydrate.vhd import Footer, checksum, geometry, hydrate_vhd, virtual_size
from farshore_engine.vault.reader import PointReader

MIB, GIB = 1 << 20, 1 << 30
VECTOR = (
    "636f6e65637469780000000200010000ffffffffffffffff2e5e4c0077696e20000a0000576932"
    "6b000000000030000000000000003000" + "00005a041100000002"
)


def test_a_vector() -> None:
    """Every field of the footer of a disk of 3 MiB, byte for byte."""
    footer = Footer(3 * MIB, uuid.UUID(int=0x0102030405060708090A0B0C0D0E0F10), 0x2E5E4C00).encode()
    assert len(footer) == 512
    assert footer[:64].hex() == VECTOR
    assert footer[64:68] == struct.pack(">I", 0xFFFFFFFF - (sum(footer[:64]) + sum(range(1, 17))))
    assert footer[68:84].hex() == "0102030405060708090a0b0c0d0e0f10"
    assert not any(footer[84:])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(1 * MIB, (30, 4, 17), id="1 MiB"),
        pytest.param(100 * MIB, (1003, 12, 17), id="100 MiB"),
        pytest.param(1 * GIB, (2080, 16, 63), id="1 GiB"),
        pytest.param(127 * GIB, (65278, 16, 255), id="127 GiB"),
        pytest.param(2048 * GIB, (65535, 16, 255), id="more than the geometry can say"),
    ],
)
def test_the_geometry(size: int, expected: tuple[int, int, int]) -> None:
    assert geometry(size // 512) == expected


@pytest.mark.parametrize("size", [MIB, 3 * MIB, 17 * MIB, GIB, 130 * GIB, 2000 * GIB])
def test_qemu_reads_the_same_size(tmp_path: Path, size: int) -> None:
    image = tmp_path / "i.vhd"
    with image.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(Footer(size, uuid.uuid4(), 1).encode())
    words = ["qemu-img", "info", "-f", "vpc", "--output=json", str(image)]
    found = subprocess.run(words, capture_output=True, check=True)
    assert json.loads(found.stdout)["virtual-size"] == size


def test_the_checksum_is_qemu_s(tmp_path: Path) -> None:
    image = tmp_path / "q.vhd"
    words = ["qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on", str(image), "3M"]
    subprocess.run(words, check=True)
    footer = image.read_bytes()[-512:]
    assert footer[64:68] == struct.pack(">I", checksum(footer))


@pytest.mark.parametrize(
    ("size", "expected"), [(1, MIB), (MIB, MIB), (MIB + 512, 2 * MIB)], ids=["a byte", "a MiB", "a sector more"]
)
def test_azure_takes_whole_mebibytes(size: int, expected: int) -> None:
    assert virtual_size(size) == expected


def test_a_disk_that_fits_into_no_page_blob_is_refused() -> None:
    with pytest.raises(StopFault) as caught:
        virtual_size(8 << 40)
    assert caught.value.reason == "TooLarge"


def test_a_footer_is_the_same_for_the_same_point() -> None:
    time = datetime(2025, 3, 1, tzinfo=UTC)
    assert Footer.of(5, "p-1", "sda", time) == Footer.of(5, "p-1", "sda", time)
    assert Footer.of(5, "p-1", "sda", time) != Footer.of(5, "p-2", "sda", time)


def test_a_point_as_a_vhd_holds_the_same(tmp_path: Path) -> None:
    rig = Rig(pack_target=1 << 18)
    rig.point("sda", {i: i + 1 for i in range(0, 60, 3)}, size=90 * BLOCK_SIZE + 512)
    vault = rig.open()
    reader = PointReader(vault, vault.find(rig.names()[0]))
    image = tmp_path / "i.vhd"
    hydrate_vhd(reader, "sda", image)
    assert image.stat().st_size == 6 * MIB + 512
    assert image.stat().st_blocks * 512 < 40 * BLOCK_SIZE
    assert verify(reader, "sda", image) == []
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", image, tmp_path / "raw"], check=True)
    content = rig.points[rig.names()[0]]["sda"]
    assert (tmp_path / "raw").read_bytes() == content.ljust(6 * MIB, b"\0")
    before = image.read_bytes()
    assert hydrate_vhd(reader, "sda", image).fetched == 0
    assert image.read_bytes() == before
