"""The agent in a guest with a kernel and a systemd of its own; one boot for all tests of this module.

Here blktrace can be read, which a kernel that is locked down refuses, and a machine can really be rebooted.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.machine.tracker_conformance import BLKTRACE, CHECKS, TRACKERS
from tests.machines.namespace_source import SourceDisk
from tests.machines.qemu_source import QemuSource

from farshore_engine.bundle import Bundle, build_bundle
from farshore_engine.bundle.layout import python_command

SUITE = Path(__file__).with_name("tracker_conformance.py")
LONG = 1500  # seconds: emulated, on busy cores

pytestmark = pytest.mark.timeout(LONG)


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
    with QemuSource(data=SourceDisk(size_mib=96, fs="ext4"), store="xfs") as guest:
        yield Ground(guest, bundle)


@pytest.fixture(scope="module")
def conformance(ground: Ground) -> dict[str, dict[str, list[str]]]:
    """Run the suite on the guest's data disk, with the interpreter of the bundle, for every tracker."""
    guest = ground.guest
    ground.put(ground.bundle.path, "/root/bundle.tar.gz")
    ground.put(SUITE, "/root/suite.py")
    guest.ssh("umount /data; mkdir -p /root/bundle && tar -xzf /root/bundle.tar.gz -C /root/bundle", timeout=300)
    command = " ".join(python_command("/root/bundle"))
    trackers = " ".join(TRACKERS)
    done = guest.ssh(f"{command} /root/suite.py /dev/vdb /root/ground {trackers}", timeout=LONG)
    guest.ssh("mkfs.ext4 -q -F -L data /dev/vdb && mount /data && rm -rf /root/bundle /root/bundle.tar.gz")
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
