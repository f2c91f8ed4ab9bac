"""The whole circle on booted guests, with a database that tells each transaction that it acknowledges.

A guest with a kernel and a systemd of its own moves away without loss, writes before an agent is there, comes home by
what changed alone, and is replicated forwards again; then its site is lost. No Kubernetes: the tasks are those that the
operator gives, in its order.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.demo.watcher import Watcher, ask
from tests.machine.memory_controlplane import Authority, MemoryControlPlane
from tests.machine.moves_rig import MACHINE, Place
from tests.machine.replication_rig import directory_vault
from tests.machines.guest_ledger import install_ledger
from tests.machines.namespace_source import SourceDisk
from tests.machines.qemu_source import QemuSource

from farshore_engine.bundle import build_bundle
from farshore_engine.contract.assignment import Desired, Direction, Source, SSHCredentials
from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.contract.tasks import (
    GuestPreparation,
    NetworkSettings,
    TaskKind,
    TaskPhase,
    TaskReport,
    TaskResult,
)
from farshore_engine.machines.places import FILE
from farshore_engine.machines.runtime import MachineRuntime

LONG = 900.0  # seconds: emulated, on busy cores
CLOCKS = 0.5  # seconds by which two clocks may be taken to differ more than was measured


def good(report: TaskReport) -> TaskResult:
    assert report.phase is TaskPhase.SUCCEEDED, report
    assert report.result is not None
    return report.result


class Circle:
    """The guest, both sites, and who follows the ledger."""

    def __init__(self, guest: QemuSource, directory: Path) -> None:
        self.guest = guest
        vault, bundle = directory_vault(directory / "vault"), build_bundle()

        def place(name: str, machines: Path | None) -> Place:
            return Place(directory, name, vault, bundle, MemoryControlPlane(Authority.at(directory / "ca")), machines)

        self.home, self.there = place("home", guest.machines.run_dir), place("there", None)
        self.target = f"away-{secrets.token_hex(3)}"
        self.epoch = 1
        self.watcher: Watcher | None = None

    @property
    def source(self) -> Source:
        key = SecretStr(self.guest.key_path.read_text())
        return Source(address=self.guest.address, credentials=SSHCredentials(private_key=key))

    @property
    def runtime(self) -> MachineRuntime:
        """The machines of the recovery site."""
        return MachineRuntime(self.there.directory / "there" / "runtime")

    def follow(self, address: str) -> None:
        self.watcher = Watcher(address)
        self.until(lambda: self.newest > 0, f"the ledger at {address} does not write")

    def leave(self) -> Watcher:
        assert self.watcher is not None
        self.watcher.close()
        return self.watcher

    @property
    def newest(self) -> int:
        assert self.watcher is not None
        return self.watcher.newest

    def works(self) -> None:
        before = self.newest
        self.until(lambda: self.newest > before + 20, "the ledger stands")

    def until(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + LONG
        while not done():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.3)

    def replicated(self, place: Place, source: Source, **changes: object) -> ReplicationReport:
        """Have a site replicate the machine in a new epoch; returns the report with the first point of that."""
        epoch = self.epoch
        place.replicate(source, epoch=epoch, **changes)
        return place.control.wait_report(
            MACHINE, lambda r: r.last_point is not None and r.last_point.epoch == epoch and r.epoch == epoch, LONG
        )

    def stop(self, place: Place) -> None:
        place.control.change(MACHINE, desired=Desired.STOP)

    def fence(self, place: Place, run: str) -> None:
        self.epoch += 1
        good(place.run(TaskKind.FENCE, run=run, epoch=self.epoch, writer=run))
        self.epoch += 1

    def recover(self, run: str, point: str) -> TaskResult:
        """Bring the machine up at the recovery site, as a failover does; returns how it was started."""
        given: dict[str, Any] = {"run": run, "point": point, "machine_name": self.target, "deadline": LONG}
        self.fence(self.there, run)
        assert good(self.there.run(TaskKind.HYDRATE, **given)).disks_verified
        wanted = GuestPreparation(network=NetworkSettings())
        changes = good(self.there.run(TaskKind.PREPARE_GUEST, preparation=wanted, **given)).changes
        assert [one for one in changes if one.startswith("agent: /etc/farshore/agent was removed")], changes
        assert [one for one in changes if one.startswith("network (systemd-networkd): every Ethernet")], changes
        assert good(self.there.run(TaskKind.PREPARE_GUEST, preparation=wanted, **given)).changes == ()
        started = good(self.there.run(TaskKind.START_MACHINE, source=self.source, **given))
        assert started.machine_kind == "qemu"
        probed = good(self.there.run(TaskKind.PROBE_MACHINE, probe_timeout_seconds=int(LONG), **given))
        return started.model_copy(update={"host_key": probed.host_key or started.host_key})

    def found_at_start(self, address: str) -> dict[str, Any]:
        """Return what the ledger found when it started, before it wrote."""
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            try:
                answers.append(ask(address, "check", timeout=60))
            except OSError:
                return False
            return True

        self.until(answered, f"the ledger at {address} does not answer")
        found: dict[str, Any] = answers[-1]["found"]
        assert (found["integrity"], found["wrong"], found["missing"]) == ("ok", 0, 0), found
        return found

    def recovered_disks(self) -> list[Path]:
        return sorted((self.there.directory / "there" / "machines" / self.target).glob("disk-*.raw"))


@contextmanager
def opened(directory: Path) -> Iterator[Circle]:
    with QemuSource(data=SourceDisk(256, fs="ext4"), directory=directory / "site", name="shop") as guest:
        circle = Circle(guest, directory)
        with circle.home.serving(guest.gateway), circle.there.serving("127.0.0.1"):
            try:
                yield circle
            finally:
                if circle.watcher is not None:
                    circle.watcher.close()
                circle.runtime.stop(circle.target)


def equal(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "--silent", str(one), str(other)], check=False).returncode == 0


def planned_failover(circle: Circle) -> TaskResult:
    """Away without loss; returns how the machine was started there."""
    circle.works()
    left = good(circle.home.run(TaskKind.FINAL_POINT, source_machine="shop", freeze_seconds=300, deadline=LONG))
    acknowledged = circle.leave().newest
    assert left.disks_verified
    assert left.point is not None
    circle.stop(circle.home)
    started = circle.recover("run-1", left.point.name)
    found = circle.found_at_start(started.address)
    print(f"planned failover: {acknowledged} acknowledged, {found['last']} there")
    assert found["last"] >= acknowledged, "nothing that was acknowledged is lost on the way there"
    started = started.model_copy(update={"point": left.point})
    return started


def reprotect(circle: Circle, started: TaskResult) -> None:
    """Back, by what differs: the machine has written long before its agent is there."""
    assert started.point is not None
    circle.follow(started.address)
    circle.works()
    there = circle.source.model_copy(update={"address": started.address, "host_key": started.host_key})
    report = circle.replicated(circle.there, there, direction=Direction.REVERSE, base_point=started.point.name)
    assert report.last_point is not None
    total = sum(path.stat().st_size for path in circle.recovered_disks())
    print(f"reprotect: {report.last_point.bytes_changed} of {total} bytes")
    assert report.last_point.bytes_changed <= 0.05 * total, "what differs from the base, not the disks"
    circle.works()


def failback(circle: Circle) -> None:
    """Home without loss, onto the original disks, which end as the recovered machine left its own."""
    given: dict[str, Any] = {"run": "run-2", "deadline": LONG}
    back = good(circle.there.run(TaskKind.FINAL_POINT, source_machine=circle.target, freeze_seconds=300, **given))
    acknowledged = circle.leave().newest
    assert back.disks_verified
    assert back.point is not None
    circle.stop(circle.there)
    circle.fence(circle.home, "run-2")
    given |= {"point": back.point.name, "source_machine": "shop", "machine_name": "shop"}
    written = good(circle.home.run(TaskKind.WRITE_BACK, **given))
    assert written.disks_verified
    for number, theirs in enumerate(circle.recovered_disks()):
        assert equal(circle.guest.backing_file(number), theirs), "the original disk is the recovered machine's last one"
    print(f"failback: {written.bytes_moved} bytes moved, {written.bytes_written} written of {written.disk_bytes}")
    wanted = GuestPreparation(restore_network=True)
    changes = good(circle.home.run(TaskKind.PREPARE_GUEST, preparation=wanted, **given)).changes
    assert "network: /etc/systemd/network/05-farshore.network was removed" in changes
    good(circle.home.run(TaskKind.START_SOURCE, **given))
    found = circle.found_at_start(circle.guest.address)
    print(f"failback: {acknowledged} acknowledged, {found['last']} at home")
    assert found["last"] >= acknowledged, "nothing that was acknowledged is lost on the way home"
    good(circle.there.run(TaskKind.CLEAN_UP, run="run-3", machine_name=circle.target))
    report = circle.replicated(circle.home, circle.source, base_point=back.point.name)
    assert report.last_point is not None
    print(f"forwards again: {report.last_point.bytes_changed} bytes")
    assert report.last_point.bytes_changed <= 0.05 * (written.disk_bytes or 0)


def lose_the_site(circle: Circle) -> None:
    """The plug is pulled in the middle of everything: what is missing is younger than the newest point."""
    circle.follow(circle.guest.address)
    circle.works()
    followed = datetime.now(UTC)
    circle.home.control.wait_report(MACHINE, lambda r: r.last_point is not None and r.last_point.time > followed, LONG)
    circle.works()
    skew = ask(circle.guest.address, "last")["at"] - time.time()
    circle.guest.machines.power_off("shop", grace=0)
    lost_at = datetime.now(UTC)
    watcher = circle.leave()
    circle.stop(circle.home)
    point = good(circle.there.run(TaskKind.SELECT_POINT, run="run-4", selector="LatestProcessed", pin="run-4")).point
    assert point is not None
    started = circle.recover("run-4", point.name)
    found = circle.found_at_start(started.address)
    at_least = watcher.acknowledged(point.time.timestamp() + skew - CLOCKS)
    rpo = (lost_at - point.time).total_seconds()
    print(f"unplanned failover: RPO {rpo:.1f} s, {watcher.newest} acknowledged, {found['last']} there, {at_least} due")
    assert at_least > 0
    assert found["last"] >= at_least, "more is lost than what was written within the RPO"
    circle.follow(started.address)
    circle.works()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_guest_goes_away_and_comes_home_and_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    with opened(tmp_path) as circle:
        install_ledger(circle.guest)
        circle.follow(circle.guest.address)
        circle.replicated(circle.home, circle.source)
        started = planned_failover(circle)
        assert started.address.rpartition(".")[0] != circle.guest.address.rpartition(".")[0]
        assert (circle.recovered_disks()[0].parent / FILE).exists()
        reprotect(circle, started)
        failback(circle)
        lose_the_site(circle)
