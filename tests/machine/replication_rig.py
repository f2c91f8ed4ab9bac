"""A process server, a real agent on real disks, and a vault, on this host and without Kubernetes or SSH."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretBytes
from tests.machine.agent_rig import Rig
from tests.machine.memory_controlplane import Authority, MemoryControlPlane, assignment
from tests.machine.reference_peer import mismatches

from farshore_cli.dev.processes import free_ports
from farshore_engine.agent.agent import Agent, Variants
from farshore_engine.agent.config import AgentConfig, DiskChoice, Server
from farshore_engine.contract.assignment import (
    AzureBlobAccess,
    DirectoryAccess,
    MachineAssignment,
    Policy,
    Retention,
    Source,
    VaultAccess,
)
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.installer import (
    AgentIdentity,
    DataPort,
    InstallOutcome,
    PreflightOutcome,
)
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.service import ProcessServer, Settings
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.stores import open_machine

MACHINE = "vm"
FAST = Policy(crash_consistent_interval=timedelta(seconds=2), retention=Retention(keep_all=timedelta(hours=1)))


class FileInstaller:
    """Puts the agent's identity into a directory of this host instead of pushing it over SSH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: list[str] = []
        self.outcome = PreflightOutcome((), "ssh-ed25519 AAAA")
        self.off = True
        self.version = "test"

    def preflight(self, source: Source, data_port: DataPort) -> PreflightOutcome:
        self.calls.append("preflight")
        return self.outcome

    def install(self, source: Source, identity: AgentIdentity, progress: Callable[[str], None]) -> InstallOutcome:
        self.calls.append("install")
        progress("writing files")
        home = self.home(identity.machine_id)
        for name, text in (("ca", identity.ca), ("agent", identity.certificate)):
            write_private(home / f"{name}.pem", text.encode())
        write_private(home / "agent.key", identity.key.encode())
        server = identity.servers[0]
        write_private(home / "server", f"{server.host} {server.port}".encode())
        return InstallOutcome(self.version, "ssh-ed25519 AAAA")

    def home(self, machine: str) -> Path:
        return self.directory

    def uninstall(self, source: Source) -> None:
        self.calls.append("uninstall")

    def shutdown(self, source: Source, asking: Callable[[], None] = lambda: None) -> bool:
        self.calls.append("shutdown")
        asking()
        return self.off

    def bundle_version(self) -> str:
        return self.version


class ManyInstaller(FileInstaller):
    """Puts each machine's identity into a directory of its own."""

    def home(self, machine: str) -> Path:
        return self.directory / machine


def directory_vault(path: Path) -> VaultAccess:
    path.mkdir(parents=True, exist_ok=True)
    return VaultAccess(name="vault", storage=DirectoryAccess(path=path), key=SecretBytes(b"k" * 32))


def azure_vault(connection_string: str, account_url: str, container: str) -> VaultAccess:
    storage = AzureBlobAccess(account_url=account_url, container=container, connection_string=connection_string)  # type: ignore[arg-type]
    return VaultAccess(name="vault", storage=storage, key=SecretBytes(b"k" * 32))


def wait_ended(server: ProcessServer, thread: threading.Thread) -> None:
    """Wait until a process server that was told to stop has, with all that works for its machines.

    It waits for that ten seconds itself, for its process ends with it. Here the next one shares the process, and the
    one before must not commit a point beside it.
    """
    thread.join(180)
    assert not thread.is_alive(), "the process server does not stop"
    for leaving in list(server._leaving.values()):
        leaving.join(120)


@dataclass
class Stage:
    """Everything of one test. Processes and threads end with `close`, whatever happened."""

    directory: Path
    rig: Rig
    control: MemoryControlPlane
    vault: VaultAccess
    installer: FileInstaller
    data_port: int
    policy: Policy = FAST
    clones: list[tuple[float, str]] = field(default_factory=list)
    address: str = "127.0.0.1"  # at which agents reach the process server

    def assign(self, **changes: object) -> MachineAssignment:
        wanted = assignment(MACHINE, self.vault, self.policy, **changes)
        self.control.assign(wanted)
        return wanted

    @contextmanager
    def process_server(self) -> Iterator[ProcessServer]:
        """Run the process server in threads of this process."""
        settings = Settings(
            state_dir=self.directory / "ps",
            address=self.address,
            listen_address=self.address,
            data_port=self.data_port,
            cadence=Cadence(active=0.2, rest=60),
        )
        server = ProcessServer(self.control, self.installer, settings)
        stop = threading.Event()
        errors: list[BaseException] = []

        def work() -> None:
            try:
                server.run(stop)
            except BaseException as error:  # noqa: BLE001 - reported by the test
                errors.append(error)

        thread = threading.Thread(target=work, name="process-server", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            wait_ended(server, thread)
            assert not errors, errors

    @contextmanager
    def agent(self, variants: Variants | None = None, **changes: object) -> Iterator[Agent]:
        """Run an agent for all disks, once the installer has brought its identity; clone each disk in each freeze."""
        home = self.installer.directory
        self.control.wait_for(lambda: (home / "server").exists() or None)
        given = variants or Variants()

        def on_frozen(point: str) -> None:
            for disk in self.rig.disks:
                self.rig.store.clone(disk.backing, self.rig.store.path / f"{point}.{disk.backing.name}")
            self.clones.append((time.time(), point))
            if given.on_frozen is not None:
                given.on_frozen(point)

        agent = Agent(
            self.agent_config(**changes), Variants(given.reader, given.tracker, given.clear_before_read, on_frozen)
        )
        errors: list[BaseException] = []

        def work() -> None:
            try:
                agent.run()
            except BaseException as error:  # noqa: BLE001 - reported by the test
                errors.append(error)

        thread = threading.Thread(target=work, name="agent", daemon=True)
        thread.start()
        try:
            yield agent
        finally:
            agent.stop()
            thread.join(120)
            assert not thread.is_alive(), "the agent does not stop"
            assert not errors, errors

    def agent_config(self, **changes: object) -> AgentConfig:
        home = self.installer.directory
        host, port = (home / "server").read_text().split()
        values: dict[str, object] = {
            "machine_id": f"demo.{MACHINE}",
            "servers": (Server(host, int(port)),),
            "ca": home / "ca.pem",
            "certificate": home / "agent.pem",
            "key": home / "agent.key",
            "state_dir": self.directory / "agent-state",
            "runtime_dir": self.directory / "agent-run",
            "disks": DiskChoice(include=tuple(d.device for d in self.rig.disks)),
            "recovery_dir": self.directory / "recovery.d",
        }
        return AgentConfig(**{**values, **changes})  # type: ignore[arg-type]

    def open_vault(self) -> MachineVault:
        return open_machine(self.vault, f"demo.{MACHINE}")

    def points(self) -> list[StoredPoint]:
        vault = self.open_vault()
        try:
            return list(vault.catalogue().points)
        finally:
            vault.close()

    def wait_points(self, count: int, timeout: float = 240) -> None:
        self.control.wait_report(MACHINE, lambda r: r.point_count >= count, timeout)

    def more_points(self) -> None:
        """Wait for a point whose freeze begins after now; a count would be met by one that was told late."""
        now = datetime.now(UTC)
        self.control.wait_report(MACHINE, lambda r: r.last_point is not None and r.last_point.time > now)

    def restored(self, point: StoredPoint, disk: str) -> Path:
        """Hydrate a disk of a point and return the image."""
        vault = self.open_vault()
        image = self.directory / f"{point.manifest.name}-{secrets.token_hex(2)}.raw"
        try:
            hydrate(PointReader(vault, point), disk, image, threads=2)
        finally:
            vault.close()
        return image

    def wrong_blocks(self) -> dict[str, list[tuple[str, int]]]:
        """Compare every point with the clones that were made inside its freeze; the blocks that differ, by point."""
        ids = {disk.id: disk for disk in self.rig.disks}
        verdicts = {}
        for point in self.points():
            frozen = point.manifest.time.timestamp()
            clone = min((c for c in self.clones if c[0] >= frozen), key=lambda c: c[0])[1]
            wrong = []
            for name, disk in ids.items():
                image = self.restored(point, name)
                wrong += [(name, b) for b in mismatches(image, self.rig.store.path / f"{clone}.{disk.backing.name}")]
                image.unlink()
            verdicts[point.manifest.name] = wrong
        return verdicts


def free_port() -> int:
    """Return a port below those that the kernel hands out: it stays free while its server is down."""
    return free_ports(1)[0]


@contextmanager
def open_stage(directory: Path, vault: VaultAccess | None = None, **control: object) -> Iterator[Stage]:
    """Make a stage without disks; they are removed with it."""
    rig = Rig(directory / "rig").open()
    try:
        plane = MemoryControlPlane(Authority.at(directory / "authority"), **control)  # type: ignore[arg-type]
        installer = FileInstaller(directory / "agent")
        chosen = vault or directory_vault(directory / "vault")
        yield Stage(directory, rig, plane, chosen, installer, free_port())
    finally:
        rig.close()
