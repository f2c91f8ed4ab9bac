"""A machine is recovered to Azure from a point in a vault: what runs there is what was in the point."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.azure.provider.scene import Scene, ours
from tests.azuresim import AzureSim
from tests.azuresim.compute.state import Machine

from farshore_engine.agent.disks import Disk, content_id, named
from farshore_engine.agent.signatures import HEAD_SIZE
from farshore_engine.azure.tasks.scene import disk_names
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudTarget
from farshore_engine.contract.tasks import GuestPreparation, NetworkSettings, TaskKind


def free_port() -> int:
    """Return a port that nobody listens at, and that needs no root."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def ssh_servers(sim: AzureSim, port: int) -> Iterator[list[Machine]]:
    """Let every machine that starts greet at its address, as an SSH server does."""
    started: list[Machine] = []
    sockets: list[socket.socket] = []

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):  # who only looked whether the port is open is gone
                    connection.sendall(b"SSH-2.0-recovered\r\n")

    def start(machine: Machine) -> None:
        started.append(machine)
        listener = socket.create_server((machine.addresses[0], port))
        sockets.append(listener)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()

    sim.parts["compute"].on_start.append(start)
    try:
        yield started
    finally:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_a_machine_is_recovered_answers_and_is_removed_without_a_trace(scene: Scene, sim: AzureSim) -> None:
    port = scene.port = free_port()  # as at home
    scene.target = CloudTarget(private_ip="127.55.0.77", tags={"team": "shop"})
    with ssh_servers(sim, port) as started:
        hydrated = scene.do(TaskKind.HYDRATE)
        assert hydrated.disks_verified
        wanted = GuestPreparation(azure=True, network=NetworkSettings())
        assert scene.do(TaskKind.PREPARE_GUEST, preparation=wanted).point is not None
        uploaded = scene.do(TaskKind.UPLOAD_DISKS)
        result = scene.do(TaskKind.START_MACHINE)
        (machine,) = started
        assert (machine.name, machine.addresses, machine.tags["team"]) == ("web-01", ("127.55.0.77",), "shop")
        assert (result.machine_kind, result.address, result.port) == ("azure", "127.55.0.77", port)
        assert result.disk_paths == uploaded.disk_paths
        scene.check_disks(uploaded.disk_paths)
        assert not scene.staged(), "the staged disks are not needed any more"
        probed = scene.do(TaskKind.PROBE_MACHINE)
        assert "SSH-2.0-recovered" in probed.evidence and probed.probes[0].seconds is not None
    cleaned = scene.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []
    assert {one.split()[0] for one in cleaned.removed} >= {"machine", "network", "disk"}
    assert any("resource group rg" in one for one in cleaned.looked_for)


def test_the_agent_of_a_machine_in_azure_is_told_its_disks_by_what_is_on_them(scene: Scene, tmp_path: Path) -> None:
    """Azure gives its disks serial numbers of its own: without this, all disks would be copied back anew."""
    boot = scene.disks["disk-os"]
    boot[440:444] = (0x11, 0x22, 0x33, 0x44)
    again = Scene(scene.sim, tmp_path / "other", disks=scene.disks)
    result = again.recover()
    names = dict(disk_names(again.context.machines_dir, result.address))
    (known,) = [disk for disk in names.values() if disk == "disk-os"]
    there = Disk("wwn-naa.60022480", "sda", "/dev/sda", 8, 0, boot.size, content=content_id(boot[:HEAD_SIZE].tobytes()))
    empty = Disk("wwn-naa.60022481", "sdb", "/dev/sdb", 8, 16, boot.size)
    assert [disk.id for disk in named([there, empty], names)] == [known, "wwn-naa.60022481"]


def test_only_what_is_not_zero_is_sent(scene: Scene, sim: AzureSim) -> None:
    scene.do(TaskKind.HYDRATE)
    uploaded = scene.do(TaskKind.UPLOAD_DISKS)
    held = sum(int((disk != 0).sum()) for disk in scene.disks.values())
    assert uploaded.bytes_written is not None and held <= uploaded.bytes_written < held + 2 * (1 << 20)
    assert {disk.properties["diskState"] for disk in sim.store.of("Microsoft.Compute/disks")} == {"Unattached"}


def test_every_step_may_be_repeated_and_makes_nothing_twice(scene: Scene, sim: AzureSim) -> None:
    first = scene.recover()
    before = ours(sim)
    for kind in (TaskKind.HYDRATE, TaskKind.PREPARE_GUEST, TaskKind.UPLOAD_DISKS, TaskKind.START_MACHINE):
        again = scene.do(kind)
    assert ours(sim) == before == [
        f"disks {first.disk_paths[0].rpartition('/')[2]}", f"disks {first.disk_paths[1].rpartition('/')[2]}",
        f"networkInterfaces {before[2].split()[1]}", "virtualMachines web-01",
    ]  # fmt: skip
    assert again.disk_paths == first.disk_paths
    assert not scene.staged()


def test_a_machine_of_somebody_else_is_never_touched(scene: Scene, sim: AzureSim) -> None:
    first = scene.recover()
    other = Scene(sim, scene.directory, point=scene.point, run="failover-2")
    with pytest.raises(StopFault, match="made by run failover-1") as told:
        other.do(TaskKind.HYDRATE)
    assert "another name" in told.value.remedy
    stranger = Scene(sim, scene.directory, point=scene.point, run="failover-1")
    stranger.do(TaskKind.CLEAN_UP, machine_id="shop.other")
    assert sim.parts["compute"].power_of("web-01") == "running"
    scene.check_disks(first.disk_paths)
