"""The agent in a guest with a kernel and a systemd of its own; one boot for all tests of this module.

Here blktrace can be read, which a kernel that is locked down refuses, and a machine can really be rebooted.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.machine.lvm_suite import CHECKS as LVM_CHECKS
from tests.machine.reference_peer import mismatches
from tests.machine.replication_rig import MACHINE, Stage, open_stage
from tests.machine.tracker_conformance import BLKTRACE, CHECKS, TRACKERS
from tests.machines.namespace_source import SourceDisk
from tests.machines.qemu_source import QemuSource

from farshore_engine.bundle import Bundle, build_bundle
from farshore_engine.bundle.layout import python_command
from farshore_engine.contract.assignment import Policy, Retention, Source, SSHCredentials
from farshore_engine.contract.replication import ReplicationReport, State
from farshore_engine.machines.probe import probe
from farshore_engine.processserver.push import PushInstaller

SUITE = Path(__file__).with_name("tracker_conformance.py")
LVM_SUITE = Path(__file__).with_name("lvm_suite.py")
LONG = 1500  # seconds: emulated, on busy cores

pytestmark = [pytest.mark.soak, pytest.mark.timeout(LONG)]


@dataclass
class Ground:
    """The guest and the bundle."""

    guest: QemuSource
    bundle: Bundle

    def put(self, path: Path, destination: str) -> None:
        known = f"UserKnownHostsFile={self.guest.directory / self.guest.name}.known_hosts"
        options = ["-q", "-i", str(self.guest.key_path), "-o", "StrictHostKeyChecking=accept-new", "-o", known]
        subprocess.run(["scp", *options, str(path), f"root@{self.guest.address}:{destination}"], check=True)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    bundle = build_bundle()
    with QemuSource(data=SourceDisk(size_mib=96, fs="ext4"), extra_mib=32, store="xfs") as guest:
        yield Ground(guest, bundle)


@pytest.fixture(scope="module")
def python(ground: Ground) -> Iterator[str]:
    """The command line of the bundle's interpreter in the guest, whose data disk is free meanwhile."""
    ground.put(ground.bundle.path, "/root/bundle.tar.gz")
    unpack = "mkdir -p /root/bundle && tar -xzf /root/bundle.tar.gz -C /root/bundle"
    ground.guest.ssh(f"umount /data; {unpack}", timeout=300)
    yield " ".join(python_command("/root/bundle"))


@pytest.fixture(scope="module")
def conformance(ground: Ground, python: str) -> dict[str, dict[str, list[str]]]:
    """Run the suite on the guest's data disk, with the interpreter of the bundle, for every tracker."""
    ground.put(SUITE, "/root/suite.py")
    trackers = " ".join(TRACKERS)
    done = ground.guest.ssh(f"{python} /root/suite.py /dev/vdb /root/ground {trackers}", timeout=LONG)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def lvm(ground: Ground, python: str) -> dict[str, list[str]]:
    """Run the suite of snapshots on the guest's data disk."""
    ground.put(LVM_SUITE, "/root/lvm.py")
    done = ground.guest.ssh(f"{python} /root/lvm.py /dev/vdb /root/lvm", timeout=LONG)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("check", list(CHECKS))
@pytest.mark.parametrize("tracker", list(TRACKERS))
def test_every_tracker_keeps_its_promises(
    conformance: dict[str, dict[str, list[str]]], tracker: str, check: str
) -> None:
    assert conformance[tracker][check] == []


@pytest.mark.parametrize("check", list(BLKTRACE))
def test_blktrace_says_what_it_dropped_and_leaves_nothing_behind(
    conformance: dict[str, dict[str, list[str]]], check: str
) -> None:
    assert conformance["blktrace"][check] == []


@pytest.mark.parametrize("check", list(LVM_CHECKS))
def test_a_snapshot_below_lvm_stands_in_for_a_long_freeze(lvm: dict[str, list[str]], check: str) -> None:
    assert lvm[check] == []


FREEZES = """
import sys, time
from pathlib import Path
from farshore_engine.agent.config import own_interpreter
from farshore_engine.agent.freezing import Freezer
from farshore_engine.agent.mounts import current_mounts
from farshore_engine.agent.watchdog import Watchdog
freezer = Freezer(Watchdog(own_interpreter()), Path("/run/frozen-test"))
freezer.freeze(freezer.open([m for m in current_mounts() if m.point == "/mnt"]), 600)
Path("/run/frozen-test/yes").touch()
time.sleep(600)
"""


def test_a_freeze_ends_when_every_process_of_the_unit_is_killed(ground: Ground, python: str, lvm: object) -> None:
    """The watchdog is in a unit of its own, so it is there to thaw when nothing else is."""
    guest = ground.guest
    (program := guest.directory / "freezes.py").write_text(FREEZES)
    ground.put(program, "/root/freezes.py")
    guest.ssh("mkfs.ext4 -q -F /dev/vdb && mount /dev/vdb /mnt")
    guest.ssh(f"systemd-run --quiet --unit=freezes -p Environment=PYTHONDONTWRITEBYTECODE=1 {python} /root/freezes.py")
    frozen = "for i in $(seq 600); do test -e /run/frozen-test/yes && exit 0; sleep 0.2; done; exit 1"
    guest.ssh(frozen, timeout=300)
    assert guest.ssh("touch /mnt/a >/dev/null 2>&1 & sleep 2; ls /mnt").stdout.split() == ["lost+found"], "it is frozen"
    assert "farshore-watchdog-" in guest.ssh("systemctl list-units --plain 'farshore-watchdog-*.scope'").stdout
    guest.ssh("systemctl kill -s KILL --kill-whom=all freezes; touch /mnt/b && umount /mnt", timeout=120)


@pytest.fixture(scope="module")
def stage(
    ground: Ground, conformance: object, lvm: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The guest's two small disks protected by push, with a recovery point in the vault."""
    guest = ground.guest
    guest.ssh("mkfs.ext4 -q -F -L data /dev/vdb && mount /data && rm -rf /root/bundle /root/bundle.tar.gz /root/lvm")
    guest.ssh("dd if=/dev/urandom of=/dev/vdc bs=1M count=4 conv=fsync")
    with open_stage(tmp_path_factory.mktemp("stage")) as stage:
        stage.address = guest.gateway
        stage.installer = PushInstaller(ground.bundle)  # type: ignore[assignment]
        stage.policy = Policy(
            crash_consistent_interval=timedelta(seconds=10), retention=Retention(keep_all=timedelta(hours=1))
        )
        credentials = SSHCredentials(private_key=SecretStr(guest.key_path.read_text()))
        with stage.process_server():
            disks = ("vdb", "vdc")
            stage.assign(source=Source(address=guest.address, credentials=credentials, include_disks=disks))
            stage.wait_points(1, 1000)
            yield stage


def told(stage: Stage, since: int) -> str:
    """Every reason for which disks had to be compared, as status showed them after the first `since` reports."""
    return "; ".join(report.resync_reason for report in stage.control.reports[MACHINE][since:])


def next_point(stage: Stage) -> ReplicationReport:
    """Wait until everything is in order again and a point was begun and committed after that."""
    report = stage.control.wait_report(MACHINE, lambda r: r.state is State.REPLICATING and not r.resync_reason, 600)
    return stage.control.wait_report(MACHINE, lambda r: r.point_count >= report.point_count + 2, 400)


def data_disk_is_exact(ground: Ground, stage: Stage) -> bool:
    """Whether the newest point has the data disk as it is, while nobody writes to it."""
    point = stage.points()[-1]
    image = stage.restored(point, next(disk.id for disk in point.manifest.disks if disk.name == "vdb"))
    try:
        return mismatches(image, ground.guest.backing_file(1)) == []
    finally:
        image.unlink()


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param("systemctl restart farshore-agent", id="the agent is restarted"),
        pytest.param("systemctl kill -s KILL farshore-agent", id="the agent is killed"),
        pytest.param("", id="the machine is rebooted"),
    ],
)
def test_replication_goes_on_by_comparing_and_says_why(ground: Ground, stage: Stage, break_it: str) -> None:
    guest, since = ground.guest, len(stage.control.reports[MACHINE])
    guest.ssh("mountpoint -q /data || mount /data; dd if=/dev/urandom of=/data/before bs=64k count=16 conv=fsync")
    slot = stage.points()[-1].slot
    if break_it:
        guest.ssh(f"{break_it}; dd if=/dev/urandom of=/data/while bs=64k count=16 conv=fsync")
    else:
        guest.ssh("systemctl reboot", check=False)
        stage.control.wait_for(lambda: not guest.is_running() or None, 400)
        probe(guest.start(), timeout=600)
        guest.ssh("dd if=/dev/urandom of=/data/while bs=64k count=16 conv=fsync")
    guest.ssh("umount /data")
    next_point(stage)
    assert "the agent was restarted, so what was written meanwhile was not tracked" in told(stage, since)
    states = {report.state for report in stage.control.reports[MACHINE][since:]}
    assert State.INITIAL not in states, "no full copy"
    changed = sum(p.manifest.bytes_changed for p in stage.points() if p.slot > slot)
    assert changed < 32 << 20, "of 128 MiB"
    assert data_disk_is_exact(ground, stage)


def test_a_disk_taken_away_is_told_and_taken_up_when_it_returns(ground: Ground, stage: Stage) -> None:
    guest, since = ground.guest, len(stage.control.reports[MACHINE])
    guest.ssh("umount /data 2>/dev/null; echo 1 > $(readlink -f /sys/block/vdb/device/..)/remove; test ! -e /dev/vdb")
    report = stage.control.wait_report(MACHINE, lambda r: r.state is State.BLOCKED, 400)
    assert report.reason == "DiskMissing"
    assert report.message.startswith("no recovery point is taken: disk vdb ")
    assert "Attach it again" in report.remedy
    with guest.backing_file(1).open("r+b") as disk:  # it is written elsewhere meanwhile
        os.pwrite(disk.fileno(), os.urandom(200_000), 40 << 20)
    guest.ssh("echo 1 > /sys/bus/pci/rescan; for i in $(seq 50); do test -e /dev/vdb && break; sleep 0.2; done")
    next_point(stage)
    assert all(len(point.manifest.disks) == 2 for point in stage.points()), "no point lacks a disk"
    assert "restarted" not in told(stage, since), "the other disk was tracked all the time"
    assert data_disk_is_exact(ground, stage)
