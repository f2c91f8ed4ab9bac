"""The last point of a planned failover: all that was acknowledged is in it, or the machine goes on."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.machine.moves_rig import MACHINE, Sites, Writer, open_sites
from tests.machine.push_rig import agent_pid
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.bundle import build_bundle
from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.machines.namespace import NamespaceMachines
from farshore_engine.machines.network import Network, Port
from farshore_engine.machines.spec import MachineState, Removal
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.stores import open_machine

HOOK = "#!/bin/sh\necho $1 >> /data/hooks-called\n"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """A machine with two disks and a stop hook, replicating, with two points."""
    directory, bundle = tmp_path_factory.mktemp("final"), build_bundle()
    with (
        NamespaceSource((SourceDisk(96), SourceDisk(320, "xfs")), directory=directory / "site") as machine,
        open_sites(directory, machine, bundle) as sites,
        sites.home.serving(machine.gateway),
    ):
        machine.exec("mkdir -p /etc/farshore/stop.d && cat > /etc/farshore/stop.d/shop", stdin=HOOK)
        machine.exec("chmod 755 /etc/farshore/stop.d/shop")
        sites.home.replicate(sites.source)
        sites.home.wait_points(2)
        yield sites


def numbers_in(sites: Sites, point: str, disk: int, directory: Path) -> tuple[int, str]:
    """The last number of the writer's file in a point, and what the stop hook wrote."""
    directory.mkdir()
    vault = open_machine(sites.home.vault, f"demo.{MACHINE}")
    try:
        found = vault.find(point)
        images = []
        for index, held in enumerate(found.manifest.disks):
            images.append(directory / f"restored-{index}.raw")
            hydrate(PointReader(vault, found), held.id, images[-1])
    finally:
        vault.close()
    with NamespaceSource(sites.machine.disks, directory=directory / "look", store="plain") as look:
        look.power_off()
        for index, image in enumerate(images):
            look.backing_file(index).write_bytes(image.read_bytes())
        look.open()
        last = look.exec(f"tail -n 1 {look.mount_point(disk)}/numbers").stdout
        hooks = look.exec("cat /data/hooks-called", check=False).stdout
    return int(last), hooks


def wait_for(found: object, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not found():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("killed", [False, True], ids=["power-off refused", "agent killed while frozen"])
def test_a_machine_that_is_not_powered_off_thaws_and_goes_on(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    machine = sites.machine
    writer = Writer.start(machine.machines, machine.name, "/data/numbers")
    wait_for(lambda: writer.acknowledged > 20)
    held: list[int] = []

    def stuck(self: NamespaceMachines, name: str) -> Removal:
        held[:] = [-1, writer.acknowledged]
        deadline = time.monotonic() + 30
        while held[0] != held[1] and time.monotonic() < deadline:  # what was acknowledged before is still being heard
            time.sleep(1)
            held[:] = [held[1], writer.acknowledged]
        if killed:
            machine.exec(f"kill -9 {agent_pid(machine)}")
            wait_for(lambda: writer.acknowledged > held[1])
        raise StopFault("the provider refuses", "Ask it why", reason="Refused")

    monkeypatch.setattr(NamespaceMachines, "cut_power", stuck)
    report = sites.home.run(TaskKind.FINAL_POINT, source_machine=machine.name, freeze_seconds=60)
    assert report.phase is TaskPhase.FAILED
    assert "was not powered off while it was frozen" in report.message
    assert held[0] == held[1], "nothing is acknowledged while it is frozen"
    wait_for(lambda: writer.acknowledged > held[1] + 20)
    writer.stop()
    if killed:  # what its service does by itself where there is a service manager: it is started again
        sites.home.replicate(sites.source.model_copy(update={"exclude_disks": ("sdz",)}))
    points = sites.home.control.last(MACHINE)
    assert points is not None
    sites.home.wait_points(points.point_count + 2)
    # A try that ends before the power is to go starts what it stopped, and is made again.
    assert re.fullmatch("(stop\nstart\n)+", machine.exec("cat /data/hooks-called").stdout)
    machine.exec("rm /data/hooks-called")


def test_everything_that_was_acknowledged_is_in_the_last_point_and_the_machine_is_off(
    sites: Sites, tmp_path: Path
) -> None:
    machine = sites.machine
    writers = [Writer.start(machine.machines, machine.name, f"{mount}/numbers") for mount in ("/data", "/data1")]
    wait_for(lambda: all(writer.acknowledged > 20 for writer in writers))
    report = sites.home.run(TaskKind.FINAL_POINT, source_machine=machine.name, freeze_seconds=60)
    assert report.phase is TaskPhase.SUCCEEDED, report
    acknowledged = [writer.stop() for writer in writers]
    result = report.result
    assert result is not None
    assert result.point is not None
    assert (result.confirmed, result.disks_verified) == (True, True)
    assert "2 disks equal the point" in result.evidence
    state = machine.machines.inspect(machine.name)
    assert state is not None
    assert state.state is MachineState.STOPPED
    for disk, last in enumerate(acknowledged):
        held, hooks = numbers_in(sites, result.point.name, disk, tmp_path / f"look{disk}")
        assert held >= last, "a number that was acknowledged is not in the point"
    assert re.fullmatch("(stop\nstart\n)*stop\n", hooks)
    again = sites.home.run(TaskKind.START_SOURCE, source_machine=machine.name)
    assert again.phase is TaskPhase.SUCCEEDED, again
    assert again.result is not None
    assert again.result.host_key.startswith("ssh-ed25519 ")
    assert int(machine.exec("tail -n 1 /data/numbers").stdout) >= acknowledged[0], "an abort loses nothing either"


@pytest.mark.soak
def test_elsewhere_the_agent_cuts_the_power_of_its_own_machine(sites: Sites, tmp_path: Path) -> None:
    """Where the process server does not know the machine's provider; the test is the hypervisor that sees it off."""
    machine, there = sites.machine, sites.there
    if machine.machines.inspect(machine.name).state is not MachineState.RUNNING:  # type: ignore[union-attr]
        machine.open()
    writer = Writer.start(machine.machines, machine.name, "/data/numbers", 10_000_000)
    with there.serving(machine.gateway):
        sites.home.control.change(MACHINE, desired=Desired.STOP)
        there.replicate(sites.source, epoch=7)
        there.control.wait_report(MACHINE, lambda r: r.last_point is not None and r.last_point.epoch == 7)
        asked = ThreadPoolExecutor(1)
        final = asked.submit(there.run, TaskKind.FINAL_POINT, source_machine="unknown-here", freeze_seconds=60)
        there.control.wait_report(MACHINE, lambda r: r.agent is not None and not r.agent.connected)
        network = Network(str(machine.machines.run_dir.resolve()), machine.network)
        netns = Port(network, machine.name).netns
        subprocess.run(["ip", "-n", netns, "link", "set", "eth0", "down"], check=True)  # it is off for the others too
        report = final.result(400)
        asked.shutdown()
    machine.machines.cut_power(machine.name)
    last = writer.stop()
    assert report.phase is TaskPhase.SUCCEEDED, report
    assert report.result is not None
    assert report.result.point is not None
    assert report.result.confirmed
    assert report.result.disks_verified is None
    held, _ = numbers_in(sites, report.result.point.name, 0, tmp_path / "look")
    assert held >= last > 10_000_000
