"""The real agent on a simulated machine: only what touches the kernel or the network is replaced."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.simulation.link import AgentChannel
from tests.simulation.replacing import attributes
from tests.simulation.source import SimulatedFreezer, SimulatedReader, SimulatedTracker, Source
from tests.simulation.world import Process, World

from farshore_engine.agent import agent as module
from farshore_engine.agent import snapshot, tracking
from farshore_engine.agent.agent import Agent, Variants
from farshore_engine.agent.config import AgentConfig, Server
from farshore_engine.agent.ledger import Ledger
from farshore_engine.agent.tracker.interface import TrackedDisk
from farshore_engine.blocks import bitmap

MACHINE_ID = "demo.vm"


class SimulatedAgent:
    """The agent's process: started, killed and started again."""

    def __init__(self, world: World, source: Source, scratch: Path, connect: Callable[[str], AgentChannel]) -> None:
        self.world = world
        self.source = source
        self.scratch = scratch
        self.connect = connect  # gives a channel to a process server by its name, or raises OSError
        self.servers: tuple[str, ...] = ()
        self.frozen_buffer = 1 << 20
        self.unacknowledged = 1 << 20
        self.process = Process("agent")
        self.process.dead = True
        self.ledger: Ledger | None = None
        self.clear_before_read = True
        self.frozen: SimulatedFreezer | None = None
        self.on_committed: Callable[[str], None] = lambda name: None

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self.process.dead:
            return
        self.process = Process("agent")
        self.world.spawn(self.process, "main", self._main)

    def kill(self) -> None:
        """Kill it; what it froze, its watchdog thaws."""
        self.world.kill(self.process)
        self.source.trackers.clear()
        self.source.frozen = False
        self.world.note("the agent is killed")

    def _main(self) -> None:
        config = AgentConfig(
            machine_id=MACHINE_ID,
            servers=self._servers(),
            ca=self.scratch,
            certificate=self.scratch,
            key=self.scratch,
            state_dir=self.scratch,
            runtime_dir=self.scratch,
            frozen_buffer=self.frozen_buffer,
            unacknowledged_limit=self.unacknowledged,
            recovery_dir=self.scratch / "recovery.d",
            hooks_dir=self.scratch / "hooks.d",
        )
        variants = Variants(
            reader=lambda path: SimulatedReader(self.source, path.rpartition("/")[2]),  # type: ignore[arg-type,return-value]
            tracker=lambda disks: SimulatedTracker(self.source),
            clear_before_read=self.clear_before_read,
            on_frozen=self._on_frozen,
        )
        agent = Agent(config, variants, reread=lambda: replaced_servers(config, self._servers()))
        agent.run()

    def _servers(self) -> tuple[Server, ...]:
        return tuple(Server(name, 9443) for name in self.servers)

    def _on_frozen(self, point: str) -> None:
        assert self.frozen is not None
        self.source.snapshot(self.frozen.frozen_at)


def replaced_servers(config: AgentConfig, servers: tuple[Server, ...]) -> AgentConfig:
    """Return the configuration as somebody has changed it."""
    values = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return AgentConfig(**{**values, "servers": servers})


class _NoWatchdog:
    """The simulated freezer has its own."""

    def __init__(self, *ignored: Any, **others: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


@contextmanager
def on_simulated_machine(simulated: SimulatedAgent) -> Iterator[None]:
    """Replace what the agent's main module asks of the kernel."""
    source = simulated.source

    class Watch:
        """DiskWatch on the simulated disks."""

        def __init__(self, *ignored: Any, **others: Any) -> None:
            self._sizes: dict[str, int] = {}

        def look(self) -> list[Any]:
            self._sizes = self._now()
            return [_disk(name, number, size) for number, (name, size) in enumerate(sorted(self._sizes.items()))]

        def changed(self) -> bool:
            return self._sizes != self._now()

        def _now(self) -> dict[str, int]:
            return {disk: source.size(disk) for disk in source.disks}

    def freezer(*ignored: Any, **others: Any) -> SimulatedFreezer:
        simulated.frozen = SimulatedFreezer(source)
        return simulated.frozen

    class Kept(tracking.Ledger):
        """The ledger, where an auditor can find it."""

        def __init__(self, *arguments: Any, **others: Any) -> None:
            super().__init__(*arguments, **others)
            simulated.ledger = self

        def commit(self, point: str, name: str) -> bool:
            simulated.on_committed(name)
            return super().commit(point, name)

    places: list[tuple[Any, str, Any]] = [
        (module, "DiskWatch", Watch),
        (module, "Freezer", freezer),
        (module, "Watchdog", _NoWatchdog),
        (module, "tls_context", lambda config: None),
        (module, "dial", lambda server, context: simulated.connect(server.host)),
        (module, "describe", lambda *ignored, **others: {"hostname": "vm"}),
        (module, "devices_on", lambda name: set()),
        (module, "current_mounts", lambda *ignored: []),
        (module, "file_systems", lambda *ignored: []),
        (module, "exclusion", types.SimpleNamespace(swap_blocks=lambda disk: bitmap.empty(-(-disk.size // 65536)))),
        (snapshot, "available", lambda: False),
        (snapshot, "clean_up", list),
        (tracking, "Ledger", Kept),
    ]
    with attributes(places):
        yield


def _disk(name: str, number: int, size: int) -> Any:
    return types.SimpleNamespace(
        id=name,
        name=name,
        path=f"/dev/{name}",
        size=size,
        major=0,
        minor=number,
        presence=0,
        replicated=True,
        reason="",
        tracked=TrackedDisk(name, name, 0, number, size),
    )
