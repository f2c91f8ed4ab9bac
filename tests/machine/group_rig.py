"""A process server with several machines: real agents as processes with a disk each, or light ones."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.machine.agent_rig import RealDisk, Rig, run
from tests.machine.light_agent import Identity
from tests.machine.memory_controlplane import Authority, MemoryControlPlane, assignment
from tests.machine.replication_rig import ManyInstaller, directory_vault, free_port, wait_ended

from farshore_engine.contract.assignment import ConsistencyGroup, Policy, Retention, VaultAccess
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.machines import loop
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.service import ProcessServer, Settings
from farshore_engine.vault.machine import StoredPoint
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.stores import open_machine

POLICY = Policy(
    crash_consistent_interval=timedelta(seconds=1),
    freeze_bound=timedelta(seconds=3),
    retention=Retention(keep_all=timedelta(hours=1)),
)


@dataclass
class Fleet:
    """Everything of one test; machine `n` is `demo.m<n>`."""

    directory: Path
    control: MemoryControlPlane
    installer: ManyInstaller
    vault: VaultAccess
    count: int
    port: int = field(default_factory=free_port)

    @property
    def names(self) -> list[str]:
        return [f"m{number:02}" for number in range(self.count)]

    @property
    def machines(self) -> list[str]:
        return [f"demo.{name}" for name in self.names]

    def assign(self, group: str = "shop", policy: Policy = POLICY) -> None:
        joint = ConsistencyGroup(name=group, members=tuple(self.machines)) if group else None
        for name in self.names:
            self.control.assign(assignment(name, self.vault, policy, consistency_group=joint))

    @contextmanager
    def process_server(self) -> Iterator[ProcessServer]:
        settings = Settings(
            state_dir=self.directory / "ps",
            address="127.0.0.1",
            listen_address="127.0.0.1",
            data_port=self.port,
            cadence=Cadence(active=0.1, rest=60),
        )
        server = ProcessServer(self.control, self.installer, settings)
        stop = threading.Event()
        thread = threading.Thread(target=server.run, args=(stop,), name="process-server", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            wait_ended(server, thread)

    def identity(self, machine: str) -> Identity:
        home = self.installer.directory / machine
        self.control.wait_for(lambda: (home / "server").exists() or None)
        return Identity(self.port, home / "ca.pem", home / "agent.pem", home / "agent.key")

    def points(self, machine: str) -> list[StoredPoint]:
        try:
            vault = open_machine(self.vault, machine)
        except StopFault as fault:
            if fault.reason in ("NoVault", "NoMachine"):  # nothing was written yet
                return []
            raise
        with contextlib.closing(vault):
            return list(vault.catalogue().points)

    def summaries(self) -> dict[str, list[RecoveryPoint]]:
        return {machine: [p.summary for p in self.points(machine)] for machine in self.machines}

    def wait(self, found: Callable[[], object], timeout: float = 300, explain: Callable[[], str] = lambda: "") -> None:
        deadline = time.monotonic() + timeout
        while not found():
            assert time.monotonic() < deadline, f"not seen in {timeout} s: {explain()}"
            time.sleep(0.2)

    def troubles(self) -> str:
        """What the machines report, and what their agents said last."""
        told = []
        for name, machine in zip(self.names, self.machines, strict=True):
            report, log = self.control.last(name), self.installer.directory / machine / "agent.log"
            said = log.read_text()[-600:] if log.exists() else ""
            told.append(f"{name}: {report.message if report else None}: {said}")
        return "\n".join(told)

    @contextmanager
    def agent(self, machine: str, disk: RealDisk) -> Iterator[subprocess.Popen[bytes]]:
        """Run a real agent as a process."""
        identity = self.identity(machine)
        home = self.installer.directory / machine
        config = {
            "machineId": machine,
            "servers": [{"host": "127.0.0.1", "port": self.port}],
            "ca": str(identity.ca),
            "certificate": str(identity.certificate),
            "key": str(identity.key),
            "stateDir": str(home / "state"),
            "runtimeDir": str(home / "run"),
            "recoveryDir": str(home / "recovery.d"),
            "disks": {"include": [disk.device], "exclude": []},
        }
        path = home / "config.json"
        path.write_text(json.dumps(config))
        with (home / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "farshore_engine.agent.main", "run", "--config", str(path)]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(120)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def content(self, machine: str, point: StoredPoint, name: str) -> bytes:
        """Restore the only disk of a point, and return a file of it."""
        image = self.directory / f"{machine}.{point.manifest.name}.raw"
        with contextlib.closing(open_machine(self.vault, machine)) as vault:
            hydrate(PointReader(vault, point), point.manifest.disks[0].id, image, threads=2)
        mount = self.directory / f"{machine}.restored"
        mount.mkdir(exist_ok=True)
        device = loop.attach(image)
        try:
            run("mount", "-o", "ro,noload", device, str(mount))
            try:
                return (mount / name).read_bytes()
            finally:
                run("umount", str(mount))
        finally:
            loop.detach(image)
            image.unlink()


@contextmanager
def open_fleet(directory: Path, count: int) -> Iterator[Fleet]:
    control = MemoryControlPlane(Authority.at(directory / "authority"))
    yield Fleet(directory, control, ManyInstaller(directory / "agents"), directory_vault(directory / "vault"), count)


@contextmanager
def fleet_disks(directory: Path, count: int, size_mib: int = 48) -> Iterator[list[RealDisk]]:
    rig = Rig(directory / "rig").open()
    try:
        yield [rig.disk("ext4", size_mib) for _ in range(count)]
    finally:
        rig.close()


class Ledgers:
    """A program on several machines: it writes 1, 2, 3, ... in turn, each only when the one before is on disk.

    So number n on one machine is a cause of number n + 1 on the next: a state in which n + 1 is there and n is not was
    never true.
    """

    NAME = "ledger"

    def __init__(self, disks: list[RealDisk]) -> None:
        self._files = []
        for disk in disks:
            assert disk.mount is not None
            self._files.append(os.open(disk.mount / self.NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        self._stop = threading.Event()
        self.written = 0
        self._thread = threading.Thread(target=self._run, name="ledgers", daemon=True)

    def __enter__(self) -> Ledgers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        for file in self._files:
            os.close(file)

    def _run(self) -> None:
        while not self._stop.is_set():
            number = self.written + 1
            file = self._files[number % len(self._files)]
            os.write(file, number.to_bytes(8, "little"))
            os.fdatasync(file)
            self.written = number

    @staticmethod
    def numbers(content: bytes) -> set[int]:
        whole = len(content) // 8 * 8
        return {int.from_bytes(content[at : at + 8], "little") for at in range(0, whole, 8)} - {0}


def effects_without_cause(found: list[set[int]]) -> set[int]:
    """Return the numbers that should be there because a later one is."""
    every = set().union(*found)
    return set(range(1, max(every, default=0) + 1)) - every
