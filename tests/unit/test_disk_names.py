"""A disk has one name in the vault, wherever its machine runs: the agent of a recovered machine finds the same."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest

from farshore_engine.agent.config import parse
from farshore_engine.agent.disks import Disk, named, stable_id
from farshore_engine.agent.signatures import HEAD_SIZE
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.directory import MachineDirectory
from farshore_engine.machines.qemu_command import SERIAL_LENGTH, QemuSpec, serial_of
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.saved import save
from farshore_engine.machines.spec import DiskFile, MachineKind
from farshore_engine.processserver.installer import AgentIdentity, DataPort
from farshore_engine.processserver.push.install import agent_config
from farshore_engine.processserver.tasks.owndisks import can_be_told, match_disks
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


@pytest.mark.parametrize(
    "wwid",
    [
        pytest.param("naa.60022480a1b2c3d4e5f60718293a4b5c", id="of Hyper-V"),
        pytest.param("nvme.1af4-6161616161616161616161616161-51454d55204e564d65204374726c-00000001", id="of NVMe"),
    ],
)
def test_a_disk_with_a_world_wide_name_keeps_it_where_nobody_can_give_it_one(tmp_path: Path, wwid: str) -> None:
    at_home, machines = tmp_path / "home", tmp_path / "runtime"
    at_home.mkdir()
    (at_home / "wwid").write_text(wwid)
    name = stable_id(at_home, "/dev/sda", gpt())
    files = [DiskFile(tmp_path / f"disk-{n}.raw", id) for n, id in enumerate((name, f"{name[:-1]}0", f"gpt-{GUID}"))]
    serials = [serial_of(file) for file in files]
    assert len(set(serials)) == 3 and all(len(serial) <= SERIAL_LENGTH for serial in serials)
    directory = MachineDirectory(machines, "web-01")
    directory.create()
    directory.write("machine.json", {"kind": "qemu", "address": "10.160.0.200", "network": "shore"})
    save(directory, MachineKind.QEMU, QemuSpec(name="web-01", disks=tuple(files)))
    told = MachineRuntime(machines).disk_names("10.160.0.200")
    assert told == ((serials[0], name), (serials[1], files[1].id)), "it finds the third on the disk"
    assert MachineRuntime(machines).disk_names("10.160.0.201") == ()
    identity = AgentIdentity("demo.web-01", (DataPort("10.160.0.1", 9443),), "", "", "", told)
    read = parse(agent_config(Source(address="10.160.0.200"), identity, "/opt/farshore/x"))
    there = Disk(f"serial-{serials[0]}", "vda", "/dev/vda", 254, 0, HEAD_SIZE, serial=serials[0])
    assert [disk.id for disk in named([there], dict(read.disks.names))] == [name]


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


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param((4096, 8192, 12288), {"serial-a": 0, "serial-b": 2}, id="only one has the size"),
        pytest.param((4096, 12288), {"serial-a": 0, "serial-b": 1}, id="as many as there are: by place"),
        pytest.param((4096, 12288, 12288), None, id="two have the size"),
    ],
)
def test_a_machine_with_disks_that_are_not_replicated(
    sizes: tuple[int, ...], expected: dict[str, int] | None, tmp_path: Path
) -> None:
    files = [DiskFile(tmp_path / str(number), f"own{number}") for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        file.path.write_bytes(bytes(size))
    pointed = [
        PointDisk(id=name, name=name, size_bytes=size) for name, size in (("serial-a", 4096), ("serial-b", 12288))
    ]
    if expected is None:
        with pytest.raises(StopFault, match="the machine has"):
            match_disks(pointed, files)
    else:
        assert match_disks(pointed, files) == {name: files[at] for name, at in expected.items()}


GIB = 1 << 30


@pytest.mark.parametrize(
    ("pointed", "sizes", "told"),
    [
        pytest.param({"serial-a": GIB, "serial-b": GIB}, (GIB, GIB), True, id="as many: by place"),
        pytest.param({"serial-a": GIB}, (GIB, 2 * GIB), True, id="more, of other sizes"),
        pytest.param({"serial-a": GIB}, (GIB, GIB), False, id="more, of the same size"),
        pytest.param({"gpt-1": GIB}, (GIB, GIB), True, id="more, and what is on it tells"),
        pytest.param({"serial-a": GIB}, (0, 0), False, id="more, of unknown size"),
        pytest.param({"serial-a": GIB, "serial-b": GIB}, (GIB,), False, id="fewer"),
    ],
)
def test_whether_disks_will_be_known_is_told_before_they_are_looked_at(
    pointed: dict[str, int], sizes: tuple[int, ...], told: bool
) -> None:
    disks = [PointDisk(id=name, name=name, size_bytes=size) for name, size in pointed.items()]
    assert can_be_told(disks, sizes) is told
