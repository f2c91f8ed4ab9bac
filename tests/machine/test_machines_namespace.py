"""Namespace machines: up, reachable with real SSH, and gone without a trace, whoever was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.traces import processes_of, traces
from tests.machines.backing import stopped
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.contract.faults import StopFault
from farshore_engine.machines import loop
from farshore_engine.machines.namespace import NamespaceMachines, NamespaceSpec
from farshore_engine.machines.process import ProcessRef
from farshore_engine.machines.spec import Account, DiskFile, MachineState, Mount, Removal

REPOSITORY = Path(__file__).parents[2]


def spec_of(base: Path, *, name: str = "db1", disks: int = 1) -> NamespaceSpec:
    files = []
    for index in range(disks):
        path = base / f"{name}-{index}.raw"
        if not path.exists():
            path.touch()
            os.truncate(path, 64 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
        files.append(DiskFile(path, f"disk{index}"))
    mounts = tuple(Mount(index, f"/data{index}", "ext4") for index in range(disks))
    return NamespaceSpec(name, name, "lan", tuple(files), mounts, (Account("root", "secret"),))


def start_in(base: str) -> None:
    """What the tests with a killed creator kill."""
    NamespaceMachines(Path(base) / "run").start(spec_of(Path(base)))


def start_and_linger(base: str) -> None:
    start_in(base)
    time.sleep(600)


class Patient(NamespaceMachines):
    """Stops a machine as whoever uses machines does: again, while the kernel still holds something of it."""

    def stop(self, name: str, *, grace: float = 5) -> Removal:
        once = super().stop
        return stopped(lambda: once(name, grace=grace))


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[NamespaceMachines]:
    machines = Patient(tmp_path / "run")
    yield machines
    for name in ("db1", "db2"):
        machines.stop(name, grace=0)
    assert traces(machines.run_dir, ["db1", "db2"], ["lan"]) == []


def test_a_machine_has_a_place_of_its_own(machines: NamespaceMachines, tmp_path: Path) -> None:
    running = machines.start(spec_of(tmp_path))
    assert running.state is MachineState.RUNNING

    def inside(command: str) -> str:
        return machines.exec("db1", ["sh", "-c", command]).stdout.strip()

    assert inside("hostname; cat /etc/hostname").split() == ["db1", "db1"]
    assert inside("getent hosts db1").split()[0] == running.address
    assert inside("ls /sys/class/net").split() == ["eth0", "lo"]
    assert inside("ip route show default") == "", "no way out"
    assert inside("cat /proc/1/comm") == "python"
    blocks = inside("find /dev -type b")
    assert blocks == loop.devices_of(tmp_path / "db1-0.raw")[0], "its own disk and no other"
    assert inside("findmnt -no SOURCE /data0") == blocks
    assert inside("ls /sys/kernel/tracing/events | head -1") != ""
    assert inside("ls /root /home; ls " + str(machines.run_dir) + " 2>&1 | grep -c db1") == "/home:\n\n/root:\n0"
    assert inside("cut -d: -f2 /etc/shadow | grep -v '^[*]$' | cut -c1-3") == "$6$", "only root's new password"


def test_what_is_written_stays_with_the_disk_and_the_root_layer(machines: NamespaceMachines, tmp_path: Path) -> None:
    machines.start(spec_of(tmp_path))
    machines.exec(
        "db1", ["sh", "-c", "echo kept > /data0/file; mkdir -p /opt/farshore; echo agent > /opt/farshore/file"]
    )
    assert machines.power_off("db1", grace=120).orderly
    found = machines.inspect("db1")
    assert found is not None and found.state is MachineState.STOPPED
    machines.start(spec_of(tmp_path))
    assert machines.exec("db1", ["cat", "/data0/file", "/opt/farshore/file"]).stdout == "kept\nagent\n"
    machines.stop("db1")
    machines.start(spec_of(tmp_path))
    assert machines.exec("db1", ["cat", "/data0/file"]).stdout == "kept\n"
    assert machines.exec("db1", ["test", "-e", "/opt/farshore/file"]).returncode == 1, "a new machine has a new root"


def test_direct_io_reaches_the_disk(machines: NamespaceMachines, tmp_path: Path) -> None:
    machines.start(spec_of(tmp_path))
    device = loop.devices_of(tmp_path / "db1-0.raw")[0]
    read = machines.exec("db1", ["dd", f"if={device}", "of=/dev/null", "bs=1M", "count=4", "iflag=direct"])
    assert read.returncode == 0, read.stderr
    listing = json.loads(subprocess.check_output(["losetup", "--json", "--list", "--output", "NAME,DIO", device]))
    assert listing["loopdevices"][0]["dio"] is True


def test_two_machines_of_a_network_reach_each_other_and_not_another_network(
    machines: NamespaceMachines, tmp_path: Path
) -> None:
    one = machines.start(spec_of(tmp_path, name="db1"))
    two = machines.start(spec_of(tmp_path, name="db2"))
    assert one.address != two.address
    ask = f"timeout 60 bash -c 'read -r line < /dev/tcp/{two.address}/22; echo $line'"
    assert machines.exec("db1", ["sh", "-c", ask]).stdout.startswith("SSH-2.0")
    with NamespaceSource((), name="other", directory=tmp_path / "elsewhere") as other:
        route = f"ip route add {two.address} dev eth0; timeout 1 bash -c '</dev/tcp/{two.address}/22'"
        assert other.exec(route, check=False).returncode != 0


@pytest.mark.parametrize("user", ["root", "operator1"])
def test_ssh_with_key_and_with_password(user: str, tmp_path: Path) -> None:
    with NamespaceSource((), user=user, directory=tmp_path) as source:
        assert source.ssh("id -un; hostname").stdout.split() == [user, source.name]
        become = "id -u" if user == "root" else f"echo {source.password} | sudo -S -p '' id -u"
        assert source.ssh(become).stdout.strip() == "0"
        askpass = tmp_path / "askpass"
        askpass.write_text(f"#!/bin/sh\necho '{source.password}'\n")
        askpass.chmod(0o700)
        environment = os.environ | {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
        options = ["-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=accept-new"]
        options += ["-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "NumberOfPasswordPrompts=1"]
        line = ["ssh", *options, f"{user}@{source.address}", "echo", "in"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.stdout == "in\n", done.stderr


def test_start_twice_is_one_machine_and_stop_twice_is_fine(machines: NamespaceMachines, tmp_path: Path) -> None:
    first = machines.start(spec_of(tmp_path))
    assert machines.start(spec_of(tmp_path)) == first
    assert len(processes_of(str(tmp_path))) == 1
    assert any(word.startswith("process") for word in machines.stop("db1").removed)
    assert machines.stop("db1").removed == ()
    assert machines.inspect("db1") is None


def test_a_disk_belongs_to_one_machine(machines: NamespaceMachines, tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    machines.start(spec)
    thief = NamespaceSpec("db2", "db2", "lan", spec.disks, spec.mounts)
    with pytest.raises(StopFault, match="attached already") as caught:
        machines.start(thief)
    assert caught.value.reason == "DiskInUse"
    machines.stop("db2")
    assert machines.exec("db1", ["cat", "/data0/lost+found"]).returncode == 1, "the first one still has its disk"
    with pytest.raises(StopFault, match="runs already"):
        machines.start(NamespaceSpec("db1", "db1", "lan", (DiskFile(tmp_path / "another.raw", "disk0"),)))


def test_poweroff_inside_ends_the_machine_and_its_disk_is_clean(machines: NamespaceMachines, tmp_path: Path) -> None:
    running = machines.start(spec_of(tmp_path))
    assert running.pid is not None
    init = ProcessRef.of(running.pid)
    machines.exec("db1", ["poweroff"])
    assert init is not None and init.wait(120)
    machines.stop("db1")
    said = subprocess.check_output(["dumpe2fs", "-h", tmp_path / "db1-0.raw"], stderr=subprocess.DEVNULL, text=True)
    assert "needs_recovery" not in said


@pytest.mark.parametrize("also", ["nothing else", "process 1 of the machine"])
def test_a_frozen_file_system_with_a_blocked_writer_is_no_obstacle(
    also: str, machines: NamespaceMachines, tmp_path: Path
) -> None:
    """An agent that is killed inside a freeze must not pin a machine: D state, superblock and loop device."""
    running = machines.start(spec_of(tmp_path))
    machines.exec("db1", ["sh", "-c", "fsfreeze -f /data0; (dd if=/dev/zero of=/data0/x count=1 >/dev/null 2>&1 &)"])
    if also != "nothing else":
        assert running.pid is not None
        os.kill(running.pid, signal.SIGKILL)
        time.sleep(0.2)
    machines.stop("db1", grace=0)
    assert traces(machines.run_dir, ["db1"], ["lan"]) == []


def test_it_outlives_a_creator_that_is_killed(machines: NamespaceMachines, tmp_path: Path) -> None:
    code = "import sys; from tests.machine.test_machines_namespace import start_and_linger as go; go(sys.argv[1])"
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, cwd=REPOSITORY) as creator:
        deadline = time.monotonic() + 150
        while (found := machines.inspect("db1")) is None or found.state is not MachineState.RUNNING:
            assert time.monotonic() < deadline and creator.poll() is None
            time.sleep(0.05)
        creator.kill()
    assert machines.exec("db1", ["hostname"]).stdout == "db1\n"
    machines.stop("db1")
    assert traces(machines.run_dir, ["db1"], ["lan"]) == []


def test_a_start_killed_anywhere_can_be_repeated_or_taken_back(machines: NamespaceMachines, tmp_path: Path) -> None:
    spec_of(tmp_path)
    target = "tests.machine.test_machines_namespace:start_in"
    for step in range(1, 100):
        words = [sys.executable, "-m", "tests.machine.killed_start", str(step), target, str(tmp_path)]
        killed = subprocess.run(words, cwd=REPOSITORY)
        if step % 2:
            running = machines.start(spec_of(tmp_path))
            assert running.state is MachineState.RUNNING
            assert len(processes_of(str(tmp_path))) == 1
            assert machines.exec("db1", ["findmnt", "-n", "/data0"]).returncode == 0
        machines.stop("db1", grace=0)
        assert traces(machines.run_dir, ["db1"], ["lan"]) == [], f"after step {step}"
        if killed.returncode == 0:
            assert step > 10, "the start was not killed at all"
            return
    pytest.fail("the start never ended")


def test_a_mount_that_fails_says_which_and_leaves_nothing(machines: NamespaceMachines, tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with (tmp_path / "db1-0.raw").open("r+b") as disk:
        disk.write(bytes(1 << 20))
    with pytest.raises(StopFault, match="/data0"):
        machines.start(spec)
    machines.stop("db1")


def test_a_load_runs_and_its_disk_can_be_cloned_meanwhile(tmp_path: Path) -> None:
    disks = (SourceDisk(fs="ext4"), SourceDisk(fs="xfs", partitioned=True))
    with NamespaceSource(disks, directory=tmp_path, name="src", store="xfs", public=True) as source:
        source.start_fio(0, rate="5m")
        source.start_fio(1, rate="5m", name="second")
        time.sleep(1.5)
        clone = source.clone_backing(0)
        assert clone.stat().st_size == source.backing_file(0).stat().st_size
        assert source.stop_fio()["write"]["total_ios"] > 0
        assert source.stop_fio("second")["write"]["total_ios"] > 0
        assert source.public_address in source.exec("ip -br address").stdout
        asked = ["ssh-keyscan", "-T", "60", "-t", "ed25519", source.public_address]
        assert "ssh-ed25519" in subprocess.run(asked, capture_output=True, text=True).stdout
        source.power_off()
        source.open()
        assert source.exec("ls /data /data1").returncode == 0
    assert traces(tmp_path / "machines", ["src"], ["site"]) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "machines"]
