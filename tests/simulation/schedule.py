"""A schedule: a machine, two process servers, a drill, and what befalls them, all from one seed."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from tests.contract import memory_store
from tests.contract.memory_store import MemoryStore
from tests.simulation.agent import SimulatedAgent, on_simulated_machine
from tests.simulation.audit import Auditor
from tests.simulation.drill import Drill
from tests.simulation.files import Path as SimulatedPath
from tests.simulation.files import simulated_os
from tests.simulation.link import AgentChannel, Link, killed_ends
from tests.simulation.replacing import attributes
from tests.simulation.server import SimulatedServer, Wanted, open_vault
from tests.simulation.source import PAGES, Source
from tests.simulation.standins import engine_modules, replaced
from tests.simulation.store import SimulatedStore, Weather
from tests.simulation.threads import Lock
from tests.simulation.world import EPOCH, Process, Stuck, World

from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.processserver import housekeeping, intake, keeper, opening
from farshore_engine.processserver.closedpoint import ClosedPoint
from farshore_engine.vault import newfile, upload, writer
from farshore_engine.wire.messages import PointEnd

SETTLED = 150.0  # seconds after the last fault within which a new point must be visible
SERVERS = ("ps-1", "ps-2")


@dataclass
class Outcome:
    """What became of a schedule."""

    seed: int
    violations: list[str]
    trace: list[str]
    points: int
    steps: int
    seconds: float  # of virtual time
    faults: list[str] = field(default_factory=list)


class Site:
    """Everything of one schedule."""

    def __init__(self, seed: int, scratch: Path) -> None:
        self.world = World(seed)
        chance = self.world.chance
        self.store = MemoryStore()
        self.store._lock = Lock()  # type: ignore[assignment]
        sizes = [chance.choice((5, 12, 24, 40)) for _ in range(chance.choice((1, 2)))]
        disks = {
            f"sd{'ab'[n]}": np.zeros(size * PAGES - chance.choice((0, 3)), np.uint32) for n, size in enumerate(sizes)
        }
        for number, pages in enumerate(disks.values()):
            used = int(pages.size * chance.choice((0.0, 0.3, 0.9)))
            pages[:used] = np.arange(1, used + 1, dtype=np.uint32) + 1_000_000 * (number + 1)
        self.source = Source(
            self.world,
            disks,
            writers=chance.choice((1, 3)),
            idle=chance.choice((0.03, 0.1, 0.4)),
            raw=chance.choice((0.0, 0.05, 0.2)),
        )
        self.auditor = Auditor(self.world, self.store, self.source)
        self.wanted = Wanted("ps-1", 1, interval=chance.choice((1.0, 2.0, 4.0)), keep=chance.choice((6.0, 12.0)))
        self.auditor.keep = timedelta(seconds=self.wanted.keep)
        self.weather = Weather(slow=chance.choice((0.005, 0.05)))
        self.links: list[Link] = []
        self.slow_link = chance.choice((0.002, 0.02))
        self.agent = SimulatedAgent(self.world, self.source, scratch, self.connect)
        self.agent.servers = ("ps-1",)
        self.agent.on_committed = self.auditor.committed
        self.agent.frozen_buffer = chance.choice((2 << 20, 1 << 20))
        spool_size = chance.choice((64 << 20, 64 << 20, 1 << 20))
        self.servers = {name: SimulatedServer(self.world, name, self, spool_size, 0) for name in SERVERS}
        self.drill = Drill(self.world, self, scratch)
        self.operator = Process("operator")
        self.faults: list[str] = []
        self.steady = False  # faults are over: what is down is started

    # -- what the parts ask for ------------------------------------------------------------------------------------

    def store_of(self, process: Process) -> SimulatedStore:
        return SimulatedStore(self.world, self.store, process, self.weather, self.auditor.changed)

    def connect(self, name: str) -> AgentChannel:
        """Dial a process server."""
        self.world.sleep(self.world.chance.uniform(0.001, 0.02))
        server = self.servers[name]
        if server.process.dead or server.port is None:
            raise ConnectionRefusedError(name)
        link = Link(self.world, self.agent.process, server.process, self.slow_link)
        self.links = [*[known for known in self.links if not known.broken][-8:], link]
        server.port.accept(link)
        return AgentChannel(link)

    def fenced(self, name: str, epoch: int) -> None:
        """A process server met a higher epoch; if it should be the one, it gets a higher one still."""
        if self.wanted.server == name and epoch >= self.wanted.epoch:
            self.world.after(self.world.chance.uniform(0.2, 1.5), lambda: self._raise_epoch(name, epoch + 1))

    def _raise_epoch(self, name: str, epoch: int) -> None:
        if self.wanted.server == name and self.wanted.epoch < epoch:
            self.world.note(f"the operator gives {name} epoch {epoch}")
            self.wanted = Wanted(name, epoch, self.wanted.vault, self.wanted.interval, self.wanted.keep)

    def assign(self, name: str) -> None:
        """Give the machine to a process server under a new epoch; its agent learns of it."""
        self.wanted = Wanted(name, self.wanted.epoch + 1, self.wanted.vault, self.wanted.interval, self.wanted.keep)
        self.agent.servers = (name,)
        self.world.note(f"the operator assigns {name} with epoch {self.wanted.epoch}")

    def kill_server(self, name: str, power: bool = False) -> None:
        server = self.servers[name]
        if not server.process.dead:
            process = server.process
            server.kill(power)
            killed_ends(self.links, process)

    def kill_agent(self) -> None:
        if not self.agent.process.dead:
            process = self.agent.process
            self.agent.kill()
            killed_ends(self.links, process)

    # -- the course ------------------------------------------------------------------------------------------------

    def run(self, length: float, fault: Callable[[Site], str], count: int) -> None:
        """Run `length` virtual seconds with `count` faults, then until all is well again."""
        world = self.world
        self.source.boot()
        for server in self.servers.values():
            server.start()
        self.agent.start()
        self.drill.start()
        moments = sorted(world.chance.uniform(0.05 * length, length) for _ in range(count))
        for moment in moments:
            world.run(moment, self._failed)
            # Not only between two things that happen, but a random number of steps into the middle of something.
            target = world.steps + world.chance.choice((0, 1, 5, 20, 60, 200, 600))
            world.run(moment + 1.0, lambda target=target: self._failed() or world.steps >= target)
            if self._failed():
                return
            text = fault(self)
            self.faults.append(f"{world.now:.3f} s: {text}")
            world.note(f"FAULT {text}")
        world.run(max(length, world.now), self._failed)
        self._recover()
        since = EPOCH + world.now + 0.5
        world.run(world.now + SETTLED, lambda: self._failed() or self.auditor.newest > since)
        if not self._failed() and self.auditor.newest <= since:
            self.auditor.broken(f"no new point within {SETTLED:.0f} s after the last fault: something is stuck")
        self.drill.stop()
        world.run(world.now + 1.0, self._failed)
        self.auditor.check_all()

    def _failed(self) -> bool:
        return bool(self.auditor.violations or self.world.crashes)

    def _recover(self) -> None:
        """End every fault; what is still wrong now must heal by itself."""
        world = self.world
        world.note("the faults are over")
        self.weather.away, self.weather.refused, self.weather.lost = False, 0.0, 0.0
        self.source.tracing.lose, self.source.tracing.late = 0, 0.1
        for link in self.links:
            link.heal()
        for server in self.servers.values():
            server.cut_off = False
            world.resume(server.process)
            server.start()
        world.resume(self.agent.process)
        self.agent.start()


def run_schedule(
    seed: int, fault: Callable[[Site], str], prepare: Callable[[Site], Any] = lambda site: None
) -> Outcome:
    """Run one schedule; `prepare` may build in a fault of the product. The engine is as before at the end."""
    scratch = Path(
        tempfile.mkdtemp(prefix="farshore-simulation-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        return _run(seed, fault, prepare, scratch, stack)


def _run(
    seed: int, fault: Callable[[Site], str], prepare: Callable[[Site], Any], scratch: Path, stack: ExitStack
) -> Outcome:
    from tests.simulation.world import here

    site = Site.__new__(Site)
    stack.enter_context(replaced([*engine_modules(), memory_store]))
    world = None
    try:
        here.world = World(seed)
        Site.__init__(site, seed, scratch)
        world = here.world = site.world
        stack.enter_context(on_simulated_machine(site.agent))
        stack.enter_context(_surroundings(site))
        stack.enter_context(_logs(site))
        prepared = prepare(site)
        if prepared is not None:
            stack.enter_context(prepared)
        chance = world.chance
        try:
            site.run(chance.uniform(6, 24), fault, chance.randrange(1, 7))
        except Stuck as error:
            site.auditor.broken(str(error))
        violations = [*site.auditor.violations, *world.crashes]
        return Outcome(
            seed, violations, list(world.lines), len(site.auditor.points), world.steps, world.now, site.faults
        )
    finally:
        if world is not None:
            world.end()


@contextmanager
def _surroundings(site: Site) -> Iterator[None]:
    """Give the process servers' modules the simulated disk and store, and make what is rare happen often."""
    world = site.world
    fake = simulated_os()

    def open_machine(access: Any, machine: str, *, create: bool = False) -> Any:
        task = world.task
        assert task is not None
        return open_vault(site.store_of(task.process), world)

    def smaller_packs(*arguments: Any, **others: Any) -> Any:
        return writer.PointWriter(*arguments, **{"pack_target": world.chance.choice((1 << 17, 1 << 20)), **others})

    closed = ClosedPoint.__init__

    def remembered(self: ClosedPoint, end: PointEnd, time: float, *others: Any, **more: Any) -> None:
        site.source.times[round(time, 6)] = round(end.frozen_at, 6)
        closed(self, end, time, *others, **more)

    places: list[tuple[Any, str, Any]] = [
        (ClosedPoint, "__init__", remembered),
        *((module, "os", fake) for module in engine_modules() if _keeps_files(module)),
        (opening, "open_machine", open_machine),
        (opening, "PointWriter", smaller_packs),
        (upload, "Path", (Path, SimulatedPath)),
        (newfile, "DIRECT_FROM", 1 << 40),
        (housekeeping, "PRUNE_EVERY", 2.0),
        (intake, "TICK", 0.5),
        (intake, "SEAL_BYTES", 1 << 19),
        (keeper, "TICK", 0.5),
    ]
    with attributes(places):
        yield


def _keeps_files(module: Any) -> bool:
    ours = ("farshore_engine.processserver", "farshore_engine.vault")
    return module.__name__.startswith(ours) and getattr(module, "os", None) is os


class _Capture(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.DEBUG)
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", "")
        self.world.note(f"{record.getMessage()} {fields}")


@contextmanager
def _logs(site: Site) -> Iterator[None]:
    """Let what the parts log stand in the trace, and nowhere else."""
    world = site.world

    def keep(logger: Any, method: str, event: dict[str, Any]) -> Any:
        text = " ".join(f"{k}={v}" for k, v in event.items() if k not in ("event", "machine", "exc_info"))
        world.note(f"{event.get('event')} {text}")
        if event.get("exc_info"):
            import traceback

            world.note(traceback.format_exc())
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[keep], cache_logger_on_first_use=False, logger_factory=structlog.ReturnLoggerFactory()
    )
    logger = logging.getLogger(LOGGER_NAME)
    handler = _Capture(world)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        structlog.configure(**before)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
