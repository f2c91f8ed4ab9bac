"""The runtime of recovered machines: a machine of data disks comes up with its file systems and its application."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.machine.traces import processes_of, traces
from tests.machines.backing import stopped
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.machine import (
    FileSystem,
    MachineDescription,
    MachineDisk,
    NetworkInterface,
    Partition,
    RecoveryScript,
)
from farshore_engine.machines.probe import ProbeKind
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import DiskFile, MachineKind, MachineSpec, MachineState

# sshd on a second port stands for the application: it answers TCP, and is on every host that runs machines.
START_APPLICATION = "#!/bin/sh\ntest -s /data/greeting && exec /usr/sbin/sshd -p 7000\n"


def whole(disk: str, mount: str, kind: str = "ext4", uuid: str = "", options: str = "") -> MachineDisk:
    system = FileSystem(kind=kind, uuid=uuid, mount_point=mount, mount_options=options)
    return MachineDisk(id=disk, name=disk, size_bytes=64 << 20, file_system=system)


def described(*disks: MachineDisk, scripts: tuple[RecoveryScript, ...] = ()) -> MachineDescription:
    lan = NetworkInterface(name="eth0", addresses=("10.0.0.5/24",))
    return MachineDescription(hostname="shop-db.example", disks=disks, recovery_scripts=scripts, interfaces=(lan,))


def ext4_disk(path: Path) -> str:
    """Make a disk; gives the UUID of its file system."""
    path.touch()
    os.truncate(path, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return subprocess.check_output(["blkid", "-p", "-o", "value", "-s", "UUID", path], text=True).strip()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[MachineRuntime]:
    secret = tmp_path / "keys"
    secret.mkdir()
    (secret / "private.pem").write_text("secret")
    runtime = MachineRuntime(tmp_path / "run", masked=(str(secret),))
    yield runtime
    for name in ("shop.db", "shop.db2"):
        stopped(lambda name=name: runtime.stop(name))  # type: ignore[misc]
    assert traces(runtime.run_dir, ["shop.db", "shop.db2"], ["default", "drill"]) == []


@contextmanager
def stopped_at_the_end(runtime: MachineRuntime) -> Iterator[None]:
    """For a machine whose disks end before the fixture does."""
    try:
        yield
    finally:
        stopped(lambda: runtime.stop("shop.db"))


def inside(runtime: MachineRuntime, command: str) -> str:
    """What a command says inside the machine, by way of its process 1."""
    found = runtime.inspect("shop.db")
    assert found is not None and found.pid is not None
    enter = ["nsenter", "--target", str(found.pid), "--all", "--root", "--wd", "sh", "-c", command]
    return subprocess.run(enter, capture_output=True, text=True).stdout.strip()


def test_a_copy_of_a_running_machine_comes_up_beside_it_with_its_application(
    runtime: MachineRuntime, tmp_path: Path
) -> None:
    """Crash-consistent copies, one xfs and one ext4 in a partition, on the kernel that has the originals mounted."""
    disks = (SourceDisk(fs="xfs"), SourceDisk(fs="ext4", partitioned=True, mount="/data/logs"))
    with (
        NamespaceSource(disks, directory=tmp_path / "source", name="src", store="xfs") as source,
        stopped_at_the_end(runtime),
    ):
        source.exec("echo hello > /data/greeting; echo entry > /data/logs/log; sync /data/greeting /data/logs/log")
        copies = [source.clone_backing(index, source.store.path / f"copy{index}") for index in range(2)]
        files = tuple(DiskFile(copy, f"d{index}") for index, copy in enumerate(copies))
        probe = ["blkid", "-p", "-o", "value", "-s", "UUID", source.loop_device(1) + "p1"]
        uuid = subprocess.check_output(probe, text=True).strip()
        second = MachineDisk(
            id="d1",
            name="sdb",
            size_bytes=512 << 20,
            partitions=(
                Partition(
                    name="sdb1",
                    number=1,
                    start_bytes=1 << 20,
                    size_bytes=510 << 20,
                    file_system=FileSystem(
                        kind="ext4", uuid=uuid, mount_point="/data/logs", mount_options="rw,noatime,data=ordered"
                    ),
                ),
            ),
        )
        scripts = (
            RecoveryScript(name="20-start", content=START_APPLICATION),
            RecoveryScript(name="10-first", content="#!/bin/sh\necho first >> /data/order\n"),
        )
        spec = MachineSpec("shop.db", "run-1", files, described(whole("d0", "/data", "xfs"), second, scripts=scripts))
        running = runtime.start(spec)

        assert (running.kind, running.state, running.owner) == (MachineKind.NAMESPACE, MachineState.RUNNING, "run-1")
        assert [(script.name, script.exit) for script in running.scripts] == [("10-first", 0), ("20-start", 0)]
        assert inside(runtime, "hostname; cat /data/greeting /data/logs/log").split() == ["shop-db", "hello", "entry"]
        assert "noatime" in inside(runtime, "findmnt -no OPTIONS /data/logs")
        assert inside(runtime, f"ls {runtime.masked[0]}") == "", "the appliance's keys are not to be seen"
        banner = runtime.probe(running)
        assert banner.banner.startswith("SSH-2.0-OpenSSH") and banner.latency_seconds < 60
        assert runtime.probe(running, ProbeKind.TCP, 7000, timeout=120).port == 7000

        again = runtime.start(spec)
        assert again == running, "started twice, it is one machine, and its scripts ran once"
        assert inside(runtime, "cat /data/order") == "first"
        assert len(processes_of(str(runtime.run_dir))) == 1
        assert source.exec("cat /data/greeting").stdout == "hello\n", "the source goes on"
        assert runtime.stop("shop.db").removed
        assert runtime.stop("shop.db").removed == ()


def test_a_script_that_fails_is_named_and_leaves_the_machine_to_be_looked_at(
    runtime: MachineRuntime, tmp_path: Path
) -> None:
    ext4_disk(tmp_path / "d0.raw")
    scripts = (
        RecoveryScript(name="10-bad", content="#!/bin/sh\necho no such database\nexit 3\n"),
        RecoveryScript(name="20-good", content="#!/bin/sh\ntouch /data/done\n"),
    )
    files = (DiskFile(tmp_path / "d0.raw", "d0"),)
    spec = MachineSpec("shop.db", "run-1", files, described(whole("d0", "/data"), scripts=scripts))
    with pytest.raises(StopFault, match=r"10-bad \(code 3\)") as caught:
        runtime.start(spec)
    assert caught.value.reason == "RecoveryScriptFailed"
    found = runtime.inspect("shop.db")
    assert found is not None and found.state is MachineState.RUNNING
    assert "no such database" in found.console.read_text()
    assert inside(runtime, "ls /data/done") == "/data/done"


def test_a_file_system_is_found_by_its_uuid_whatever_its_disk(runtime: MachineRuntime, tmp_path: Path) -> None:
    uuids = [ext4_disk(tmp_path / f"d{index}.raw") for index in range(2)]
    files = (DiskFile(tmp_path / "d1.raw", "d0"), DiskFile(tmp_path / "d0.raw", "d1"))  # the other way round
    description = described(whole("d0", "/zero", uuid=uuids[0]), whole("d1", "/one", uuid=uuids[1]))
    runtime.start(MachineSpec("shop.db", "run-1", files, description))
    assert inside(runtime, "findmnt -no UUID /zero; findmnt -no UUID /one").split() == uuids


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param("mkfs.ext4 -q -F {0}", "FileSystemMissing", id="another file system is there"),
        pytest.param(
            "debugfs -w -R 'ssv state 2' {0} && debugfs -w -R 'clri <2>' {0}",
            "FileSystemDamaged",
            id="its root directory is gone",
        ),
        pytest.param("rm {0}", "DiskMissing", id="no disk is there"),
    ],
)
def test_what_cannot_be_mounted_is_said(spoil: str, reason: str, runtime: MachineRuntime, tmp_path: Path) -> None:
    uuid = ext4_disk(tmp_path / "d0.raw")
    subprocess.run(spoil.format(tmp_path / "d0.raw"), shell=True, check=True, capture_output=True)
    files = (DiskFile(tmp_path / "d0.raw", "d0"),)
    with pytest.raises(StopFault) as caught:
        runtime.start(MachineSpec("shop.db", "run-1", files, described(whole("d0", "/data", uuid=uuid))))
    assert caught.value.reason == reason
    assert caught.value.remedy


def test_a_machine_is_powered_off_in_order_and_started_again(runtime: MachineRuntime, tmp_path: Path) -> None:
    ext4_disk(tmp_path / "d0.raw")
    spec = MachineSpec("shop.db", "run-1", (DiskFile(tmp_path / "d0.raw", "d0"),), described(whole("d0", "/data")))
    runtime.start(spec)
    inside(runtime, "echo kept > /data/file")
    assert runtime.power_off("shop.db").orderly
    assert [machine.state for machine in runtime.list()] == [MachineState.STOPPED]
    runtime.start(spec)
    assert inside(runtime, "cat /data/file") == "kept"


def test_machines_of_one_network_reach_each_other(runtime: MachineRuntime, tmp_path: Path) -> None:
    for index, name in enumerate(("shop.db", "shop.db2")):
        ext4_disk(tmp_path / f"{index}.raw")
        files = (DiskFile(tmp_path / f"{index}.raw", "d0"),)
        runtime.start(MachineSpec(name, "run-1", files, described(whole("d0", "/data")), network="drill"))
    other = runtime.inspect("shop.db2")
    assert other is not None
    assert inside(runtime, f"ssh-keyscan -T 60 -t ed25519 {other.address} 2>/dev/null | grep -c ssh-ed25519") == "1"


def test_silence_is_not_taken_for_an_answer(runtime: MachineRuntime, tmp_path: Path) -> None:
    ext4_disk(tmp_path / "d0.raw")
    files = (DiskFile(tmp_path / "d0.raw", "d0"),)
    running = runtime.start(MachineSpec("shop.db", "run-1", files, described(whole("d0", "/data"))))
    with pytest.raises(WaitFault, match="7000 within 1 s") as caught:
        runtime.probe(running, ProbeKind.TCP, 7000, timeout=1)
    assert caught.value.reason == "ProbeUnanswered"
    stopped(lambda: runtime.stop("shop.db"))
    with pytest.raises(WaitFault):
        runtime.probe(running, timeout=1)
