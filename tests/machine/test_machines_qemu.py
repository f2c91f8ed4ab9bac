"""QEMU machines: what counts as bootable, one process for one name, and a guest that lives through its own recovery."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.machine.traces import processes_of, traces
from tests.machines.backing import stopped
from tests.machines.namespace_source import SourceDisk
from tests.machines.qemu_source import QemuSource

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import BootMode, MachineDescription, MachineDisk, NetworkInterface
from farshore_engine.machines import qemu_command
from farshore_engine.machines.bootable import boot_modes
from farshore_engine.machines.process import ProcessRef
from farshore_engine.machines.qemu import QemuMachines
from farshore_engine.machines.qemu_command import QMP_SOCKET, QemuSpec, same_place
from farshore_engine.machines.qmp import QmpSession
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import DiskFile, MachineKind, MachineSpec, MachineState

REPOSITORY = Path(__file__).parents[2]
HALT_FOR_EVER = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp back to hlt


def halting_disk(path: Path) -> Path:
    """A disk whose boot code halts the processor: QEMU runs it at no cost."""
    entry = struct.pack("<B3sB3sII", 0x80, bytes(3), 0x83, bytes(3), 2048, 2048)
    path.write_bytes(HALT_FOR_EVER.ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa")
    os.truncate(path, 4 << 20)
    return path


def made_by(*commands: str) -> object:
    def make(path: Path) -> Path:
        path.touch()
        os.truncate(path, 64 << 20)
        for command in commands:
            subprocess.run(["sh", "-c", command.format(path)], check=True, capture_output=True)
        return path

    return make


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(made_by(), set(), id="zeros"),
        pytest.param(made_by("mkfs.ext4 -q -F {}"), set(), id="ext4 on the bare disk"),
        pytest.param(
            made_by("mkfs.ext4 -q -F {0} && printf x | dd of={0} conv=notrunc"), set(), id="ext4 with a stain"
        ),
        pytest.param(
            made_by("parted -s {} mklabel msdos mkpart primary 1MiB 100%"),
            set(),
            id="DOS table with a tool's generic code",
        ),
        pytest.param(
            made_by("parted -s {} mklabel msdos mkpart primary 1MiB 100% set 1 boot on"),
            {"bios"},
            id="active partition",
        ),
        pytest.param(made_by("parted -s {} mklabel gpt mkpart data 1MiB 100%"), set(), id="GPT of data"),
        pytest.param(
            made_by("parted -s {} mklabel gpt mkpart esp fat32 1MiB 100% set 1 esp on"), {"uefi"}, id="GPT with an ESP"
        ),
        pytest.param(halting_disk, {"bios"}, id="boot code and an active partition"),
    ],
)
def test_bootable_is_read_from_the_disk(make: object, expected: set[str], tmp_path: Path) -> None:
    assert callable(make)
    assert boot_modes(make(tmp_path / "disk.raw")) == {BootMode(mode) for mode in expected}


@pytest.mark.parametrize(
    ("fixed", "gateway", "expected"),
    [
        pytest.param("", "", None, id="no fixed address"),
        pytest.param(
            "10.1.2.30/24", "10.1.2.1", "net=10.1.2.0/24,host=10.1.2.1,dns=10.1.2.2,dhcpstart=10.1.2.30", id="the usual"
        ),
        pytest.param(
            "10.1.2.1/24",
            "10.1.2.254",
            "net=10.1.2.0/24,host=10.1.2.17,dns=10.1.2.18,dhcpstart=10.1.2.1",
            id="first address",
        ),
        pytest.param("10.1.2.250/24", "10.1.2.1", None, id="too near the end for QEMU's sixteen leases"),
        pytest.param("203.0.113.9/32", "", None, id="no network around it"),
        pytest.param("fd00::5/64", "", None, id="version 6"),
    ],
)
def test_a_guest_finds_the_network_it_came_from(fixed: str, gateway: str, expected: str | None) -> None:
    assert same_place(fixed, gateway) == expected


def halting_spec(base: Path, name: str = "web1") -> QemuSpec:
    path = base / f"{name}.raw"
    return QemuSpec(name, (DiskFile(path if path.exists() else halting_disk(path), "d0"),), memory_mib=32)


def start_in(base: str) -> None:
    """What the test with a killed creator kills."""
    QemuMachines(Path(base) / "run").start(halting_spec(Path(base)))


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[QemuMachines]:
    machines = QemuMachines(tmp_path / "run")
    yield machines
    stopped(lambda: machines.stop("web1"))
    assert traces(machines.run_dir, ["web1"], ["lan"]) == []


def test_start_twice_is_one_machine_and_stop_twice_is_fine(machines: QemuMachines, tmp_path: Path) -> None:
    first = machines.start(halting_spec(tmp_path))
    assert first.state is MachineState.RUNNING
    assert machines.start(halting_spec(tmp_path)) == first
    assert machines.list() == (first,)
    assert len(processes_of(str(tmp_path))) == 1
    with pytest.raises(StopFault, match="runs already"):
        machines.start(QemuSpec("web1", (DiskFile(tmp_path / "other.raw", "d0"),)))
    assert f"process {first.pid}" in machines.stop("web1").removed
    assert machines.stop("web1").removed == ()
    assert machines.inspect("web1") is None


def test_a_guest_that_ends_is_seen_to_be_stopped(machines: QemuMachines, tmp_path: Path) -> None:
    running = machines.start(halting_spec(tmp_path))
    assert running.pid is not None
    process = ProcessRef.of(running.pid)
    assert process is not None and process.kill()
    found = machines.inspect("web1")
    assert found is not None and found.state is MachineState.STOPPED
    assert machines.start(halting_spec(tmp_path)).state is MachineState.RUNNING


def test_a_start_killed_anywhere_can_be_repeated_or_taken_back(machines: QemuMachines, tmp_path: Path) -> None:
    halting_spec(tmp_path)
    target = "tests.machine.test_machines_qemu:start_in"
    for step in range(1, 20):
        words = [sys.executable, "-m", "tests.machine.killed_start", str(step), target, str(tmp_path)]
        killed = subprocess.run(words, cwd=REPOSITORY)
        assert machines.start(halting_spec(tmp_path)).state is MachineState.RUNNING
        assert len(processes_of(str(tmp_path))) == 1
        machines.stop("web1")
        assert traces(machines.run_dir, ["web1"], ["lan"]) == []
        if killed.returncode == 0:
            return
    pytest.fail("the start never ended")


def test_a_disk_that_is_in_use_is_refused_in_words(machines: QemuMachines, tmp_path: Path) -> None:
    spec = halting_spec(tmp_path)
    machines.start(spec)
    second = QemuMachines(tmp_path / "another-run")
    with pytest.raises(StopFault, match="lock"):
        second.start(spec)
    second.stop("web1")


def test_uefi_without_firmware_says_what_to_install(
    machines: QemuMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_command, "FIRMWARE", ())
    plain = halting_spec(tmp_path)
    with pytest.raises(StopFault, match="Install the package ovmf"):
        machines.start(QemuSpec("web1", plain.disks, boot=BootMode.UEFI))


@pytest.mark.timeout(1800)  # two boots without hardware acceleration, on busy cores
def test_a_guest_is_reached_used_powered_off_and_recovered_from_its_disks(tmp_path: Path) -> None:
    """A Debian with systemd boots on a bridge; copies of its disks boot as the recovered machine, cut off from all."""
    recovered = tmp_path / "recovered"
    recovered.mkdir()
    with QemuSource(data=SourceDisk(fs="xfs"), directory=tmp_path / "source", name="guest") as source:
        assert source.ssh("hostname; systemctl is-active ssh").stdout.split() == ["guest", "active"]
        assert source.ssh("command -v python3", check=False).returncode != 0, "the agent must not find one"
        source.ssh("echo kept > /data/file; echo kept > /root/file; sync")
        interface = NetworkInterface(name="eth0", addresses=(f"{source.address}/24",), gateway=source.gateway)
        source.ssh("poweroff", check=False)
        deadline = time.monotonic() + 300
        while source.is_running():
            assert time.monotonic() < deadline, source.console
            time.sleep(0.2)
        for index in range(2):
            shutil.copy(source.backing_file(index), recovered / f"{index}.raw")
        key = shutil.copy(source.key_path, recovered / "key")
        address = source.address
    assert traces(tmp_path / "source/machines", ["guest"], ["site"]) == []

    description = MachineDescription(
        hostname="guest",
        cpus=2,
        memory_bytes=1 << 30,
        disks=(
            MachineDisk(id="a", name="vda", size_bytes=0, bootable=True),
            MachineDisk(id="b", name="vdb", size_bytes=0),
        ),
        interfaces=(interface,),
    )
    disks = (DiskFile(recovered / "0.raw", "a"), DiskFile(recovered / "1.raw", "b"))
    spec = MachineSpec("guest.drill", "drill-1", disks, description)
    runtime = MachineRuntime(tmp_path / "run")
    try:
        running = runtime.start(spec)
        assert (running.kind, running.owner, running.address) == (MachineKind.QEMU, "drill-1", "127.0.0.1")
        assert runtime.start(spec).pid == running.pid
        assert runtime.probe(running, timeout=600).banner.startswith("SSH-2.0-OpenSSH")
        options = ["-i", key, "-p", str(running.port), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]
        options += ["-o", f"UserKnownHostsFile={recovered / 'known'}", "-o", "BatchMode=yes"]

        def inside(command: str) -> str:
            line = ["ssh", *options, "root@127.0.0.1", command]
            return subprocess.run(line, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL).stdout

        assert inside("hostname; cat /data/file /root/file").split() == ["guest", "kept", "kept"]
        assert address in inside("ip -4 -brief address show eth0"), "it keeps its address"
        assert inside("timeout 3 bash -c '</dev/tcp/192.0.2.2/22' && echo out") == "", "and reaches nobody"
        assert runtime.power_off("guest.drill", grace=400).orderly
    finally:
        runtime.stop("guest.drill")
    assert runtime.stop("guest.drill").removed == ()
    assert traces(tmp_path / "run", ["guest.drill"], ["default"]) == []


def forwarded(machines: QemuMachines) -> list[list[str]]:
    """Port of this host, address and port of the guest of all that QEMU forwards."""
    with QmpSession(machines.run_dir / "web1", QMP_SOCKET) as session:
        return [line.split()[3:6] for line in session.monitor("info usernet").splitlines()]


def test_a_port_of_a_guest_is_reached_as_long_as_it_is_asked(machines: QemuMachines, tmp_path: Path) -> None:
    spec = replace(halting_spec(tmp_path), fixed_address="10.7.0.5/24", gateway="10.7.0.1")
    machines.start(spec)
    with machines.reach("web1", 5432) as (address, port):
        assert address == "127.0.0.1"
        assert [str(port), "10.7.0.5", "5432"] in forwarded(machines)
    assert [str(port), "10.7.0.5", "5432"] not in forwarded(machines)
    with machines.reach("web1", 22) as (_, port):
        found = machines.inspect("web1")
        assert found is not None
        assert port == found.port, "the way to its sshd is there as long as it runs"
