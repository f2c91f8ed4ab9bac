"""Drills leave nothing behind, do not meet each other, and are not noticed by production."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr
from tests.machine.memory_controlplane import random_name
from tests.machine.replication_rig import MACHINE, Stage, open_stage
from tests.machine.traces import traces
from tests.machines.backing import stopped
from tests.machines.namespace_source import NamespaceSource, SourceDisk
from tests.unit.test_processserver_tasks import vault as vault_with_a_point

from farshore_engine.contract.assignment import Source, SSHCredentials
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import (
    ProbeKind,
    ProbeSpec,
    TaskAssignment,
    TaskInput,
    TaskKind,
    TaskPhase,
    TaskResult,
)
from farshore_engine.machines.network import Network
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import RunningMachine
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.tasks import EXECUTORS
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.vault.pins import list_pins
from farshore_engine.vault.stores import open_machine

COMMAND = ProbeSpec(name="login", kind=ProbeKind.SSH, port=22, command=("whoami",), timeout_seconds=240)
LOGIN = Source(address="10.0.0.1", credentials=SSHCredentials(password=SecretStr("the source's own")))
REPOSITORY = Path(__file__).parents[2]


class Host:
    """A recovery site's host with a vault that has a point, and drills that are carried out by their tasks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime = MachineRuntime(directory / "run")
        if not (directory / "vault").exists():
            _, name = vault_with_a_point(directory)
            (directory / "point").write_text(name)
        self.point = (directory / "point").read_text()

    @property
    def context(self) -> TaskContext:
        return TaskContext(
            machines_dir=self.directory / "machines",
            runtime=self.runtime,
            installer=cast(Any, None),
            data_port=lambda: DataPort("ps", 9443),
            take_point=cast(Any, None),
            now=lambda: datetime.now(UTC),
            progress=lambda percent, sentence: None,
        )

    def carry_out(self, kind: TaskKind, drill: str) -> TaskResult:
        given: dict[str, Any] = {"machine_id": "demo.vm", "machine_name": drill, "network": drill}
        given |= {"selector": "LatestProcessed", "point": self.point, "pin": drill, "probe_timeout_seconds": 240}
        access = vault_access(self.directory)
        task = TaskAssignment(
            name=f"{drill}-{kind.value}", kind=kind, run=drill, input=TaskInput(**given), vault=access
        )
        return EXECUTORS[kind](task, self.context)

    def drill(self, name: str) -> RunningMachine:
        for kind in (TaskKind.SELECT_POINT, TaskKind.HYDRATE, TaskKind.START_MACHINE, TaskKind.PROBE_MACHINE):
            self.carry_out(kind, name)
        found = self.runtime.inspect(name)
        assert found is not None
        return found

    def clean_up(self, name: str) -> TaskResult:
        return self.carry_out(TaskKind.CLEAN_UP, name)

    def pins(self) -> set[str]:
        opened = open_machine(vault_access(self.directory), "demo.vm")
        try:
            return {pin for pins in list_pins(opened.access).values() for pin in pins}
        finally:
            opened.close()

    def left(self, *names: str) -> list[str]:
        found = traces(self.runtime.run_dir, list(names), list(names))
        return found + [f"disks of {name}" for name in names if (self.directory / "machines" / name).exists()]


def vault_access(directory: Path) -> Any:
    from pydantic import SecretBytes
    from tests.unit.test_processserver_tasks import KEY

    from farshore_engine.contract.assignment import DirectoryAccess, VaultAccess

    return VaultAccess(name="v", storage=DirectoryAccess(path=directory / "vault"), key=SecretBytes(KEY))


@contextmanager
def cleaned(host: Host, *names: str) -> Iterator[None]:
    try:
        yield
    finally:
        for name in names:
            stopped(lambda name=name: host.clean_up(name))  # type: ignore[misc]


def clean_in(directory: str) -> None:
    """What is killed in the middle; see `killed_start`."""
    Host(Path(directory)).clean_up("drill-killed")


def test_a_clean_up_that_is_killed_anywhere_leaves_nothing_once_it_is_repeated(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with cleaned(host, "drill-killed"):
        # The last ends by itself, however often it looks for what the kernel still holds.
        for step in (1, 4, 8, 12, 10_000):
            host.drill("drill-killed")
            words = ["tests.machine.killed_start", str(step), "tests.machine.test_drills:clean_in", str(tmp_path)]
            killed = subprocess.run([sys.executable, "-m", *words], cwd=REPOSITORY)
            result = stopped(lambda: host.clean_up("drill-killed"))
            assert host.left("drill-killed") == []
            assert host.pins() == set()
            assert len(result.looked_for) == 4, "machine, disks, network, pin"
            if killed.returncode == 0:
                return
    pytest.fail("the clean-up never ended")


def test_what_is_left_after_a_clean_up_is_found_although_no_record_names_it(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with cleaned(host, "drill-1"):
        host.drill("drill-1")
        bridge = Network(str(host.runtime.run_dir.resolve()), "drill-1").bridge
        removed = stopped(lambda: host.clean_up("drill-1")).removed
        assert any("pin drill-1" in one for one in removed)
        assert any("disk-0.raw" in one for one in removed)
        subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
        with pytest.raises(WaitFault, match=f"bridge {bridge} of network drill-1"):
            host.clean_up("drill-1")
        subprocess.run(["ip", "link", "del", bridge], check=True)
        assert host.clean_up("drill-1").removed == ()


def reaches(machine: RunningMachine, address: str) -> bool:
    """Whether a connection to port 22 of an address can be made from inside the machine."""
    code = f"import socket; socket.create_connection(({address!r}, 22), 2)"
    enter = ["nsenter", "--target", str(machine.pid), "--net", sys.executable, "-c", code]
    return subprocess.run(enter, capture_output=True).returncode == 0


def test_several_drills_of_one_machine_do_not_meet(tmp_path: Path) -> None:
    host = Host(tmp_path)
    names = ("drill-a", "drill-b", "drill-c")
    with cleaned(host, *names):
        with ThreadPoolExecutor(len(names)) as pool:
            machines = dict(zip(names, pool.map(host.drill, names), strict=True))
        assert len({machine.address for machine in machines.values()}) == 3
        assert host.pins() == set(names)
        a, b, c = (machines[name] for name in names)
        assert reaches(a, a.address)
        assert not reaches(a, b.address), "each drill has a network of its own"
        stopped(lambda: host.clean_up("drill-a"))
        assert host.runtime.remains("drill-a", "drill-a", tmp_path / "machines" / "drill-a").left == ()
        for other in (b, c):
            assert host.runtime.inspect(other.name) == other, "the others go on"
            assert host.runtime.probe(other, timeout=120)
        assert host.pins() == {"drill-b", "drill-c"}
    assert host.left(*names) == []


def test_a_drilled_machine_cannot_reach_its_source(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with (
        NamespaceSource((SourceDisk(size_mib=64),), directory=tmp_path / "source", name="src") as source,
        cleaned(host, "drill-1"),
    ):
        drilled = host.drill("drill-1")
        assert reaches(drilled, drilled.address)
        assert not reaches(drilled, source.address)
        assert source.exec("cat /proc/sys/kernel/hostname").stdout.strip()


def test_production_does_not_notice_a_drill(tmp_path: Path) -> None:
    """Points go on while a drill runs, none of them is wrong, and the source's disk is read by nobody but its agent."""
    with open_stage(tmp_path) as stage:
        disk = stage.rig.disk("ext4", size_mib=64)
        assert disk.mount is not None
        (disk.mount / "marker").write_text("in production\n")
        with stage.process_server():
            stage.assign()
            with stage.agent():
                stage.wait_points(2)
                name = f"drill-{random_name()}"
                point = stage.points()[-1].manifest.name
                try:
                    for kind in (TaskKind.HYDRATE, TaskKind.START_MACHINE):
                        run(stage, kind, name, point)
                    answered = run(stage, TaskKind.PROBE_MACHINE, name, point, COMMAND)
                    assert answered.probes[0].answer == "the command ended with 0 and said: root"
                    before = len(stage.points())
                    (disk.mount / "marker").write_text("still in production\n")
                    stage.wait_points(before + 2)
                    assert not any(stage.wrong_blocks().values())
                    assert (disk.mount / "marker").read_text() == "still in production\n"
                finally:
                    run(stage, TaskKind.CLEAN_UP, name, point)
                assert not any(point.pins for point in stage.points())


def run(stage: Stage, kind: TaskKind, name: str, point: str, *probes: ProbeSpec) -> TaskResult:
    given = TaskInput(
        machine_id=f"demo.{MACHINE}", machine_name=name, network=name, point=point, pin=name, probes=probes
    )
    task = TaskAssignment(
        name=f"{name}-{kind.value.lower()}", kind=kind, run=name, input=given, vault=stage.vault, source=LOGIN
    )
    report = stage.control.run_task(task)
    assert report.phase is TaskPhase.SUCCEEDED, report
    return report.result or TaskResult()
