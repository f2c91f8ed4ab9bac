"""The whole circle on namespace machines: away without loss, changed there, and home again, by what changed alone."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.moves_rig import MACHINE, Sites, Writer, open_sites
from tests.machine.test_final_point import wait_for
from tests.machines.backing import stopped
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.bundle import build_bundle
from farshore_engine.contract.assignment import Desired, Direction
from farshore_engine.contract.tasks import TaskKind, TaskPhase, TaskReport, TaskResult
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.machines.namespace import NamespaceMachines
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.stores import open_machine

SIZE_MIB = 256
FILLED_MIB = 96


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    directory, bundle = tmp_path_factory.mktemp("circle"), build_bundle()
    with (
        NamespaceSource((SourceDisk(SIZE_MIB),), directory=directory / "site") as machine,
        open_sites(directory, machine, bundle) as sites,
    ):
        machine.exec(f"dd if=/dev/urandom of=/data/ballast bs=1M count={FILLED_MIB} status=none && sync")
        yield sites


def good(report: TaskReport) -> TaskResult:
    assert report.phase is TaskPhase.SUCCEEDED, report
    assert report.result is not None
    return report.result


def restored(sites: Sites, point: str, image: Path) -> Path:
    vault = open_machine(sites.home.vault, f"demo.{MACHINE}")
    try:
        found = vault.find(point)
        hydrate(PointReader(vault, found), found.manifest.disks[0].id, image)
    finally:
        vault.close()
    return image


def test_a_machine_goes_away_and_comes_home_and_only_what_changed_is_moved(sites: Sites, tmp_path: Path) -> None:
    machine, home, there = sites.machine, sites.home, sites.there
    disk_bytes = SIZE_MIB << 20
    target = f"away-{secrets.token_hex(3)}"
    original = machine.backing_file(0)
    with home.serving(machine.gateway):
        home.replicate(sites.source)
        home.wait_points(2)
        writer = Writer.start(machine.machines, machine.name, "/data/numbers")
        wait_for(lambda: writer.acknowledged > 20)
        left = good(home.run(TaskKind.FINAL_POINT, source_machine=machine.name, freeze_seconds=60))
        lost_before = writer.stop()
        assert left.point is not None
        home.control.change(MACHINE, desired=Desired.STOP)

    run_dir = there.directory / "there" / "runtime"
    with there.serving("127.0.0.1"):
        there.run(TaskKind.FENCE, epoch=2, writer="run-1")
        good(there.run(TaskKind.HYDRATE, point=left.point.name, machine_name=target))
        started = good(
            there.run(TaskKind.START_MACHINE, point=left.point.name, machine_name=target, source=sites.source)
        )
    machines = NamespaceMachines(run_dir)
    try:
        held = int(machines.exec(target, ["tail", "-n", "1", "/data/numbers"]).stdout)
        assert held >= lost_before, "nothing that was acknowledged is lost on the way there"
        # The recovered machine writes before its agent is up: 1 % of the disk, and the numbers go on.
        change = ["dd", "if=/dev/urandom", "of=/data/ballast", "bs=64K", f"count={disk_bytes // 100 >> 16}"]
        machines.exec(target, [*change, "seek=7", "conv=notrunc", "status=none"])
        machines.exec(target, ["sync"])
        with there.serving("127.0.0.1"):  # the recovered machine sees nothing but this host's end of its own network
            source = sites.source.model_copy(update={"address": started.address, "host_key": started.host_key})
            there.replicate(source, epoch=3, direction=Direction.REVERSE, base_point=left.point.name)
            there.control.wait_report(
                MACHINE, lambda r: r.last_point is not None and r.last_point.epoch == 3 and r.epoch == 3, 300
            )
            first = there.control.last(MACHINE)
            assert first is not None
            assert first.last_point is not None
            assert first.last_point.bytes_changed <= 0.03 * disk_bytes, "what differs from the base, not the disk"
            writer = Writer.start(machines, target, "/data/numbers", held)
            wait_for(lambda: writer.acknowledged > held + 20)
            back = good(there.run(TaskKind.FINAL_POINT, run="run-2", source_machine=target, freeze_seconds=60))
            acknowledged = writer.stop()
            assert back.point is not None
            assert back.disks_verified
            there.control.change(MACHINE, desired=Desired.STOP)
    finally:
        stopped(lambda: machines.stop(target))

    with home.serving("127.0.0.1"):  # its network went with it
        home.run(TaskKind.FENCE, run="run-2", epoch=4, writer="run-2")
        running = home.run(TaskKind.WRITE_BACK, run="run-2", point=back.point.name, source_machine="nobody")
        assert running.phase is TaskPhase.SUCCEEDED, "a machine that nobody here knows gets new disks"
        shutil.rmtree(home.directory / "home" / "machines" / "nobody")
        written = good(home.run(TaskKind.WRITE_BACK, run="run-2", point=back.point.name, source_machine=machine.name))
        assert written.disks_verified
        assert written.bytes_moved is not None
        assert written.bytes_moved <= 0.015 * disk_bytes
        assert written.bytes_written is not None
        assert 0 < written.bytes_written <= 0.03 * disk_bytes
        expected = restored(sites, back.point.name, tmp_path / "final.raw")
        assert original.read_bytes() == expected.read_bytes(), "the original disk is the recovered machine's last one"
        good(home.run(TaskKind.START_SOURCE, run="run-2", source_machine=machine.name))
        assert int(machine.exec("tail -n 1 /data/numbers").stdout) >= acknowledged
        refused = home.run(TaskKind.WRITE_BACK, run="run-3", point=back.point.name, source_machine=machine.name)
        assert refused.phase is TaskPhase.FAILED
        assert "runs on the disks that are to be written" in refused.message
        assert "Power it off" in refused.remedy


def test_disks_that_are_gone_are_written_anew(sites: Sites) -> None:
    machine, home = sites.machine, sites.home
    machine.power_off()
    machine.backing_file(0).unlink()
    vault = open_machine(home.vault, f"demo.{MACHINE}")
    newest = vault.newest()
    vault.close()
    assert newest is not None
    with home.serving("127.0.0.1"):
        written = good(
            home.run(TaskKind.WRITE_BACK, run="run-4", point=newest.manifest.name, source_machine=machine.name)
        )
        assert written.disk_paths == (str(machine.backing_file(0)),)
        good(home.run(TaskKind.START_SOURCE, run="run-4", source_machine=machine.name))
    assert machine.exec("ls /data/ballast").stdout
