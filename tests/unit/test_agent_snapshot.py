"""Which blocks a snapshot holds, where they are read from, and what becomes of LVM's metadata; no device is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from farshore_engine.agent import lvm
from farshore_engine.agent.devicemapper import Segment
from farshore_engine.agent.lvm import Extent, Volume
from farshore_engine.agent.mounts import Mount
from farshore_engine.agent.snapshot import Snapshot, _Metadata, _Shadow
from farshore_engine.blocks.grid import BLOCK_SIZE

MIB = 1 << 20


class Numbered:
    """A volume whose bytes tell their own place, in KiB."""

    def __init__(self, salt: int) -> None:
        self.salt = salt

    def read(self, offset: int, length: int) -> bytes:
        return bytes((self.salt + at // 1024) % 251 for at in range(offset, offset + length))


def snapshot() -> Snapshot:
    """Two volumes; the first is in two parts, of which the second comes first on the disk."""
    made: Any = object.__new__(Snapshot)
    first = Volume("vg-a", "vg", 3 * MIB, (Extent("d", 0, 9 * MIB, MIB), Extent("d", MIB, 4 * MIB, 2 * MIB)))
    second = Volume("vg-b", "vg", MIB + 1024, (Extent("d", 0, 6 * MIB, MIB + 1024),))
    made._shadows = [_Shadow(volume, [], "") for volume in (first, second)]
    for salt, shadow in enumerate(made._shadows):
        shadow.reader = cast(Any, Numbered(salt))
    made._metadata = [_Metadata("d", 4096, b"m" * (BLOCK_SIZE - 4096 + 512))]
    made._readers = {"d": type("Disk", (), {"size": 16 * MIB})()}
    return cast(Snapshot, made)


def blocks_of(*ranges: tuple[int, int]) -> list[int]:
    return [block for low, high in ranges for block in range(low // BLOCK_SIZE, high // BLOCK_SIZE)]


def test_only_blocks_that_lie_wholly_in_a_volume_come_from_the_snapshot() -> None:
    inside, outside = snapshot().split("d", np.arange(16 * MIB // BLOCK_SIZE, dtype=np.int64))
    assert inside.tolist() == blocks_of((4 * MIB, 7 * MIB), (9 * MIB, 10 * MIB))
    assert outside.tolist() == blocks_of((0, 4 * MIB), (7 * MIB, 9 * MIB), (10 * MIB, 16 * MIB))


def test_a_read_follows_the_extents_across_volumes() -> None:
    found = snapshot().reader("d").read(6 * MIB - BLOCK_SIZE, 2 * BLOCK_SIZE)
    assert found == Numbered(0).read(3 * MIB - BLOCK_SIZE, BLOCK_SIZE) + Numbered(1).read(0, BLOCK_SIZE)
    with pytest.raises(OSError, match="holds nothing"):
        snapshot().reader("d").read(0, BLOCK_SIZE)


def test_metadata_is_put_back_where_a_read_meets_it() -> None:
    made = snapshot()
    assert {disk: blocks.tolist() for disk, blocks in made.metadata_blocks().items()} == {"d": [0, 1]}
    read = bytearray(2 * BLOCK_SIZE)
    made.restore_metadata("d", 0, memoryview(read))
    assert read == bytes(4096) + b"m" * (BLOCK_SIZE - 4096 + 512) + bytes(BLOCK_SIZE - 512)
    elsewhere = bytearray(BLOCK_SIZE)
    made.restore_metadata("d", 2 * BLOCK_SIZE, memoryview(elsewhere))
    made.restore_metadata("other", 0, memoryview(elsewhere))
    assert elsewhere == bytes(BLOCK_SIZE)


TWO_PARTS = [Segment(0, 2048, "linear", "8:1 2048"), Segment(2048, 2048, "linear", "8:1 9216")]


@pytest.mark.parametrize(
    ("table", "group"),
    [
        pytest.param(TWO_PARTS, "my-vg", id="linear"),
        pytest.param([Segment(0, 2048, "linear", "8:33 2048")], None, id="on a disk that is not protected"),
        pytest.param([Segment(0, 2048, "striped", "2 128 8:1 2048 8:2 2048")], None, id="striped"),
    ],
)
def test_volumes_are_found_below_their_file_systems(
    monkeypatch: pytest.MonkeyPatch, table: list[Segment], group: str | None
) -> None:
    monkeypatch.setattr(lvm, "name_of", lambda number: "my--vg-home" if number == "254:0" else "")
    mapper = type("Tables", (), {"table": lambda self, name: table})()
    mounts = [Mount(device, "/x", "ext4", "", "", "/") for device in ("254:0", "8:1", "254:0")]
    found = lvm.volumes(mapper, mounts, {"8:1": ("d", MIB)})  # type: ignore[arg-type]
    assert [volume.group for volume in found] == ([group] if group else [])
    if group:
        assert found[0].extents == (Extent("d", 0, 2 * MIB, MIB), Extent("d", MIB, MIB + 9216 * 512, MIB))
        assert found[0].size == 2 * MIB


def test_partitions_are_found_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvm, "device_number", lambda path: "8:0")
    part = tmp_path / "8:0" / "sda1"
    part.mkdir(parents=True)
    for name, text in (("partition", "1"), ("start", "2048"), ("dev", "8:1")):
        (part / name).write_text(f"{text}\n")
    assert lvm.ranges_of({"d": "/dev/sda"}, tmp_path) == {"8:0": ("d", 0), "8:1": ("d", MIB)}
