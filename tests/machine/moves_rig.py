"""Two sites on this host: a namespace machine at home that its process server knows, and a process server elsewhere.

Agents are pushed over SSH from the real bundle; the vault is a directory that both sites see; no Kubernetes.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr
from tests.machine.memory_controlplane import Authority, MemoryControlPlane, assignment, random_name
from tests.machine.replication_rig import directory_vault, free_port, wait_ended
from tests.machines.namespace_source import NamespaceSource

from farshore_engine.bundle import Bundle
from farshore_engine.contract.assignment import (
    MachineAssignment,
    Policy,
    Retention,
    Source,
    SSHCredentials,
    VaultAccess,
)
from farshore_engine.contract.tasks import TaskAssignment, TaskInput, TaskKind, TaskReport
from farshore_engine.machines.namespace import NamespaceMachines
from farshore_engine.processserver.push import PushInstaller
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.service import ProcessServer, Settings

MACHINE = "vm"
OFTEN = Policy(crash_consistent_interval=timedelta(seconds=2), retention=Retention(keep_all=timedelta(hours=1)))
WRITER = """
import os, select, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = int(sys.argv[2])
while not select.select([0], [], [], 0.01)[0]:
    number += 1
    os.write(file, b"%09d\\n" % number)
    os.fsync(file)
    os.write(1, b"%d\\n" % number)
"""


@dataclass
class Writer:
    """A program in a machine that writes numbers and tells each one that fsync has acknowledged."""

    process: subprocess.Popen[bytes]
    acknowledged: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def start(cls, machines: NamespaceMachines, name: str, path: str, first: int = 0) -> Writer:
        command = machines.enter(name, ["python3", "-c", WRITER, path, str(first)])
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        writer = cls(process, first)
        threading.Thread(target=writer._listen, name="writer", daemon=True).start()
        return writer

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.acknowledged = int(line)
        self.ended.set()

    def stop(self) -> int:
        """End it; returns the last number that was acknowledged."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.ended.wait(180)
        self.process.wait(120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.acknowledged


@dataclass
class Place:
    """A site with its process server."""

    directory: Path
    name: str
    vault: VaultAccess
    bundle: Bundle
    control: MemoryControlPlane
    machines_dir: Path | None = None

    @contextmanager
    def serving(self, address: str) -> Iterator[ProcessServer]:
        """Run its process server, which agents reach at `address`."""
        settings = Settings(
            state_dir=self.directory / self.name,
            address=address,
            data_port=free_port(),
            machines_dir=self.machines_dir,
            cadence=Cadence(active=0.2, rest=60),
        )
        server = ProcessServer(self.control, PushInstaller(self.bundle), settings)
        stop = threading.Event()
        errors: list[BaseException] = []

        def work() -> None:
            try:
                server.run(stop)
            except BaseException as error:  # noqa: BLE001 - reported by the test
                errors.append(error)

        thread = threading.Thread(target=work, name=f"process-server-{self.name}", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            wait_ended(server, thread)
            assert not errors, errors

    def replicate(self, source: Source, **changes: object) -> MachineAssignment:
        wanted = assignment(MACHINE, self.vault, OFTEN, source=source, **changes)
        self.control.assign(wanted)
        return wanted

    def wait_points(self, count: int, timeout: float = 300) -> None:
        self.control.wait_report(MACHINE, lambda r: r.point_count >= count, timeout)

    def run(
        self,
        kind: TaskKind,
        *,
        run: str = "run-1",
        deadline: float = 300,
        source: Source | None = None,
        **given: object,
    ) -> TaskReport:
        """Have its process server carry a task out; returns the final report."""
        machines = self.control.wait(0, 0).machines
        task = TaskAssignment(
            name=f"{run}-{kind.value.lower()}-{random_name()}",
            kind=kind,
            run=run,
            input=TaskInput(machine_id=f"demo.{MACHINE}", **given),  # type: ignore[arg-type]
            vault=self.vault,
            source=source or (machines[0].source if machines else None),
            machine=machines[0] if machines else None,
            deadline=datetime.now(UTC) + timedelta(seconds=deadline),
        )
        return self.control.run_task(task, deadline + 120)


@dataclass
class Sites:
    """The machine at home, its site, and the recovery site."""

    machine: NamespaceSource
    home: Place
    there: Place

    @property
    def source(self) -> Source:
        password = SecretStr(self.machine.password)
        return Source(address=self.machine.address, credentials=SSHCredentials(password=password))


@contextmanager
def open_sites(directory: Path, machine: NamespaceSource, bundle: Bundle) -> Iterator[Sites]:
    """Make both sites around a machine that is up."""
    vault = directory_vault(directory / "vault")

    def place(name: str, machines: Path | None) -> Place:
        control = MemoryControlPlane(Authority.at(directory / "authority"))
        return Place(directory, name, vault, bundle, control, machines)

    yield Sites(machine, place("home", machine.machines.run_dir), place("there", None))
