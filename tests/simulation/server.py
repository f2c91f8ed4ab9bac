"""A process server of the simulation: the real replica, intake, spool, keeper and data port on simulated surroundings.

What is not real is the supervisor (`_supervise`, a few lines of processserver.machine without installation and reports)
and the way in which assignments come.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretBytes
from tests.simulation.agent import MACHINE_ID
from tests.simulation.files import FileSystem
from tests.simulation.link import Link, ServerStream
from tests.simulation.standins import monotonic
from tests.simulation.store import SimulatedStore
from tests.simulation.threads import Lock
from tests.simulation.world import EPOCH, Process, World

from farshore_engine.contract.assignment import (
    Desired,
    DirectoryAccess,
    MachineAssignment,
    Policy,
    Retention,
    Source,
    VaultAccess,
)
from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.processserver import opening
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.dataport import HELLO_SECONDS, DataPort
from farshore_engine.processserver.encoders import FairEncoders
from farshore_engine.processserver.keeper import PointKeeper, Points
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.replica import Replica
from farshore_engine.processserver.shared import Shared
from farshore_engine.vault.chain import Fenced
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.writer import DiskSpoiled
from farshore_engine.wire.frames import PeerClosed, WireError
from farshore_engine.wire.messages import Enrolled, Refuse

KEK = b"k" * 32


@dataclass
class Wanted:
    """What the operator wants: who serves the machine, with which epoch, under which policy, in which vault."""

    server: str
    epoch: int
    vault: str = "vault"
    interval: float = 2.0
    keep: float = 12.0

    def assignment(self) -> MachineAssignment:
        return MachineAssignment(
            name="vm",
            machine_id=MACHINE_ID,
            epoch=self.epoch,
            desired=Desired.REPLICATE,
            source=Source(address="10.0.0.1"),
            policy=Policy(
                crash_consistent_interval=timedelta(seconds=self.interval),
                retention=Retention(keep_all=timedelta(seconds=self.keep)),
            ),
            vault=VaultAccess(name=self.vault, storage=DirectoryAccess(path=Path("/")), key=SecretBytes(KEK)),
        )


def utc(world: World) -> datetime:
    """Return the date in the world."""
    return datetime.fromtimestamp(EPOCH + world.now, UTC)


class SimulatedServer:
    """One process server with its host's disk. `surroundings` gives the operator's wish and the store."""

    def __init__(self, world: World, name: str, surroundings: Any, spool_size: int, pack_target: int) -> None:
        self.world = world
        self.name = name
        self.around = surroundings
        self.files = FileSystem(world)
        self.spool_size = spool_size
        self.process = Process(name)
        self.process.dead = True
        self.port: SimulatedPort | None = None
        self.cut_off = False  # from the operator

    def start(self) -> None:
        if not self.process.dead:
            return
        self.process = Process(self.name)
        self.world.note(f"{self.name} starts")
        self.world.spawn(self.process, "supervisor", self._supervise)

    def kill(self, power: bool = False) -> None:
        self.world.kill(self.process)
        self.world.note(f"{self.name} is killed{' by a power cut' if power else ''}")
        self.port = None
        if power:
            self.files.lose_power()

    def _supervise(self) -> None:
        world = self.world
        metrics = Metrics()
        shared = Shared(
            name=self.name,
            budget=SpoolBudget(self.spool_size),
            encoders=FairEncoders(2),
            metrics=metrics,
            monotonic=monotonic,
            now=lambda: utc(world),
            upload_threads=2,
        )
        port = self.port = SimulatedPort(self, metrics)
        replica: Replica | None = None
        keeper: PointKeeper | None = None
        assignment: MachineAssignment | None = None
        restart: frozenset[str] = frozenset()
        while True:
            world.sleep(world.chance.uniform(0.1, 0.5))
            if not self.cut_off:
                wanted = self.around.wanted
                assignment = wanted.assignment() if wanted.server == self.name else None
            if replica is not None and keeper is not None:
                error = keeper.stopped_by
                moved = assignment is None or replica.assignment != assignment
                if error is None and not moved:
                    continue
                port.replica = None
                replica.close("reopened" if error is None else str(error))
                keeper.join()
                replica = keeper = None
                world.note(f"closed: {error}")
                if isinstance(error, DiskSpoiled):
                    restart |= {error.disk}
                    self.around.auditor.spoiled(str(error))
                if isinstance(error, Fenced):
                    self.around.fenced(self.name, error.epoch)
                if (
                    error is not None
                    and not isinstance(error, Fault | OSError)
                    and type(error).__name__ != "IntakeBroken"
                ):
                    world.crashes.append(f"{self.name}: the keeper stopped by {error!r}")
                continue
            if assignment is None:
                continue
            spool = self.files.root() / "spool" / assignment.machine_id / assignment.vault.name[:0]
            try:
                replica = opening.open_replica(assignment, spool, shared, restart)  # type: ignore[arg-type]
            except Fenced as fault:
                self.around.fenced(self.name, max(fault.epoch, assignment.epoch + 1) - 1)
                world.sleep(1)
                continue
            except WaitFault as fault:
                world.note(f"not opened: {fault}")
                world.sleep(world.chance.uniform(1, 3))
                continue
            except Fault as fault:
                self.around.auditor.stopped(str(fault))
                world.sleep(5)
                continue
            restart = frozenset()
            with suppress(WaitFault):
                keeper = PointKeeper(replica, Points.of(replica.vault.catalogue().summaries()))
            if keeper is None:
                replica.close("the catalogue cannot be read")
                replica = None
                continue
            port.replica = replica
            keeper.start()


class SimulatedPort(DataPort):
    """The data port without TLS: whoever connects has shown the machine's certificate."""

    def __init__(self, server: SimulatedServer, metrics: Metrics) -> None:
        self._server = server
        self._directory = self  # type: ignore[assignment]
        self._metrics = metrics
        self._lock = Lock()  # type: ignore[assignment]
        self._connections = {}
        self._closed = False
        self._numbers = 0
        self.replica: Replica | None = None
        server.world.spawn(server.process, "pings", self._ping)

    def replica_of(self, machine_id: str) -> Replica | Refuse:
        if self.replica is None or self.replica.closed:
            return Refuse("NotReady", "replication is not open yet", 1.0)
        return self.replica

    def enrol(self, machine_id: str, token: str) -> Enrolled | Refuse:
        return Refuse("BadToken", "no")

    def accept(self, link: Link) -> None:
        """Serve a connection."""
        self._server.world.spawn(self._server.process, "connection", lambda: self._serve_link(link))

    def _serve_link(self, link: Link) -> None:
        stream = ServerStream(link, HELLO_SECONDS)
        self._numbers += 1
        number = self._numbers
        try:
            self._converse(
                stream,  # type: ignore[arg-type]
                MACHINE_ID,
                "10.0.0.1",
                lambda session: self._connections.__setitem__(number, session),
            )
        except (OSError, ValueError, WireError, PeerClosed) as error:
            self._server.world.note(f"connection ended early: {error!r}")
        finally:
            self._connections.pop(number, None)
            stream.close()


def open_vault(store: SimulatedStore, world: World) -> MachineVault:
    """Open the machine in the vault as opening.open_machine does."""
    return MachineVault.open(store, KEK, MACHINE_ID, create=True, clock=lambda: utc(world))
