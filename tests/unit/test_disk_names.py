"""A disk has one name in the vault, wherever its machine runs: the agent of a recovered machine finds the same."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest

from farshore_engine.agent.disks import stable_id
from farshore_engine.agent.signatures import HEAD_SIZE
from farshore_engine.machines.qemu_command import SERIAL_LENGTH, serial_of
from farshore_engine.machines.spec import DiskFile
from farshore_engine.processserver.tasks.owndisks import match_disks
from farshore_engine.vault.records import PointDisk

GUID = uuid.UUID("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9")


def gpt() -> bytes:
    head = bytearray(HEAD_SIZE)
    head[512:520] = b"EFI PART"
    head[568:584] = GUID.bytes_le
    return bytes(head)


def ext4() -> bytes:
    head = bytearray(HEAD_SIZE)
    head[1024 + 56 : 1024 + 58] = b"\x53\xef"
    struct.pack_into("<II", head, 1024 + 92, 4, 0x40)
    head[1024 + 104 : 1024 + 120] = GUID.bytes
    return bytes(head)


@pytest.mark.parametrize(
    ("head", "serial"),
    [
        pytest.param(gpt(), "", id="named by its partition table"),
        pytest.param(ext4(), "", id="named by its file system"),
        pytest.param(gpt(), "S3RIAL-0042", id="named by its serial number"),
        pytest.param(gpt(), "a-serial-number-of-20", id="by one that is as long as may be"),
        pytest.param(bytes(HEAD_SIZE), "disk0", id="empty"),
    ],
)
def test_a_recovered_machine_calls_its_disks_what_the_vault_does(tmp_path: Path, head: bytes, serial: str) -> None:
    at_home, there = tmp_path / "home", tmp_path / "there"
    for directory in (at_home, there):
        directory.mkdir()
    (at_home / "serial").write_text(serial[:SERIAL_LENGTH])
    name = stable_id(at_home, "/dev/vda", head)
    image = tmp_path / "disk-0.raw"
    image.write_bytes(head)
    file = DiskFile(image, name)
    (there / "serial").write_text(serial_of(file))
    assert stable_id(there, "/dev/vda", head) == name
    assert match_disks([PointDisk(id=name, name="vda", size_bytes=HEAD_SIZE)], [file]) == {name: file}


def test_disks_are_told_apart_by_what_is_on_them_whatever_their_order(tmp_path: Path) -> None:
    files = []
    for number, head in enumerate((ext4(), gpt())):
        path = tmp_path / f"own{number}.raw"
        path.write_bytes(head)
        files.append(DiskFile(path, f"disk{number}"))
    pointed = [
        PointDisk(id=f"gpt-{GUID}", name="sda", size_bytes=1),
        PointDisk(id=f"fs-{GUID}", name="sdb", size_bytes=1),
    ]
    found = match_disks(pointed, files)
    assert [found[disk.id].id for disk in pointed] == ["disk1", "disk0"]
