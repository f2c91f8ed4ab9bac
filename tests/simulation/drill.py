"""A drill on the recovery site: pins a point, hydrates it, compares, lets go; killed at any moment, it begins again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.simulation.agent import MACHINE_ID
from tests.simulation.server import KEK
from tests.simulation.source import differences
from tests.simulation.world import Process, World

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.points import Consistency
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader, PointSpoiled


class Drill:
    """The hydrator's process, and what a run would remember for it: the point, and whether it is pinned."""

    def __init__(self, world: World, site: Any, scratch: Path) -> None:
        self.world = world
        self.site = site
        self.scratch = scratch
        self.process = Process("drill")
        self.process.dead = True
        self.chosen = ""  # the point of the drill under way
        self.runs = 0
        self.finished = 0
        self.idle = (0.5, 3.0)  # seconds between two drills
        self.oldest = False  # drills the point that expires next, not any
        self._stopping = False

    def start(self) -> None:
        if self.process.dead and not self._stopping:
            self.process = Process("drill")
            self.world.spawn(self.process, "drill", self._work)

    def kill(self) -> None:
        """Kill it; it is started again a little later."""
        self.world.kill(self.process)
        self.world.after(self.world.chance.uniform(0.1, 2), self.start)

    def stop(self) -> None:
        self._stopping = True
        self.world.kill(self.process)

    def _work(self) -> None:
        world = self.world
        while True:
            world.sleep(world.chance.uniform(*self.idle))
            try:
                self._one(MachineVault.open(self.site.store_of(self.process), KEK, MACHINE_ID))
            except WaitFault:
                continue
            except PointSpoiled as fault:
                if self.site.auditor.pinned.get(self.chosen):
                    self.site.auditor.broken(f"the drill's pinned point does not restore: {fault}")
                self.chosen = ""
            except StopFault as fault:  # the point expired before it was pinned, or there is no vault yet
                world.note(f"the drill gives up: {fault}")
                self.chosen = ""

    def _one(self, vault: MachineVault) -> None:
        world, auditor = self.world, self.site.auditor
        if not self.chosen:
            points = vault.catalogue().points
            if not points:
                return
            self.chosen = (points[0] if self.oldest else world.chance.choice(points)).manifest.name
            self.runs += 1
        point = vault.find(self.chosen)
        vault.pin(point, f"run-{self.runs}")
        auditor.pinned[self.chosen] = point.slot
        world.note(f"the drill pinned {self.chosen}")
        world.sleep(world.chance.choice((0.0, 0.5, 8.0)))
        snapshot = self.site.source.snapshot_of(point.manifest.time.timestamp())
        assert snapshot is not None
        for disk in point.manifest.disks:
            image = self.scratch / f"{self.chosen}-{disk.id}.raw"
            hydrate(PointReader(vault, point), disk.id, image, threads=2)
            unmarked = point.manifest.consistency is Consistency.UNMARKED
            wrong = differences(snapshot, disk.id, image.read_bytes(), unmarked)
            if wrong:
                auditor.broken(f"the drill of {self.chosen} restored blocks {wrong[:8]} of {disk.id} wrongly")
        auditor.pinned.pop(self.chosen, None)
        vault.unpin(point.slot, f"run-{self.runs}")
        for image in self.scratch.glob(f"{self.chosen}-*"):
            image.unlink()
        world.note(f"the drill of {self.chosen} is done")
        self.chosen = ""
        self.finished += 1
