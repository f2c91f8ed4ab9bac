"""The tutorial as acts: replicate, drill, fail over, change the point, commit, reprotect, fail back.

Runs are carried out by the process servers; what the tutorial leaves to the machines themselves is done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.azure.story.clouds import Clouds
from tests.azure.story.machines import MIB, Actor, first_content
from tests.azure.story.runs import AZURE, HUB, Run, Stage
from tests.azure.story.servers import Clock, Said, Server

from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.contract.assignment import VaultAccess
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.site import CloudSite
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_operator.api.failoverrun import RunKind


@dataclass(repr=False)
class Story:
    """One performance, from seeded clouds and an empty vault."""

    clouds: Clouds
    stage: Stage
    said: Said
    directory: Path
    """Of the process servers."""
    at_the_hub: HubSetting
    before: list[str]
    """What there is in Azure before Step 1."""

    @classmethod
    def begin(
        cls,
        clouds: Clouds,
        sites: dict[str, CloudSite],
        vault: VaultAccess,
        state: Path,
        at_the_hub: HubSetting,
        *,
        together: bool = False,
    ) -> Story:
        """Seed the clouds, let the machines run at the Hub, and start the process servers."""
        clouds.seed()
        said, clock = Said(), Clock()
        actors = {actor.machine_id: actor for actor in clouds.actors}
        servers: dict[str, Server] = {}
        stage = Stage(
            clouds, servers, sites, vault, {actor.name: actor for actor in clouds.actors}, clock,
            lambda actor: story.reverse_point(actor, again=True), together=together,
        )  # fmt: skip
        story = cls(clouds, stage, said, state, at_the_hub, clouds.resources())
        for name, take in ((HUB, story.point), (AZURE, story.reverse_point)):

            def take_point(machine: str, seconds: float, make: Callable[[Actor], Any] = take) -> RecoveryPoint:
                point: RecoveryPoint = make(actors[machine])
                return point

            def take_last(machine: str, hold: float, power_off: bool, seconds: float) -> HeldPoint:
                return story.last_point(actors[machine])

            servers[name] = Server(name, state / name, said, clock, at_the_hub, clouds, take_point, take_last)
        for number, actor in enumerate(clouds.actors):
            clouds.seed_machine(actor, first_content(number))
        return story

    def end(self) -> None:
        for server in self.stage.servers.values():
            server.stop()
        self.clouds.answering.stop_all()

    # replication

    def point(self, actor: Actor) -> RecoveryPoint:
        """A point of the machine at home."""
        content = self.clouds.home_content(actor)
        return actor.replicate(self.stage.vault, HUB, content, self.stage.clock.now)

    def reverse_point(self, actor: Actor, *, again: bool = False) -> RecoveryPoint:
        """A point of the machine in Azure; `again` begins its replication in a new epoch."""
        if again:
            actor.epoch += 1
        return actor.replicate(self.stage.vault, AZURE, self.clouds.azure_content(actor), self.stage.clock.now)

    def last_point(self, actor: Actor) -> HeldPoint:
        """The last point of the machine in Azure, which then cuts its own power."""
        point = self.reverse_point(actor)
        self.clouds.power_off(self.clouds.azure, actor.at_azure, actor.away)
        return HeldPoint(point, lambda: 60.0, lambda why: None, lambda: "")

    def write_at_home(self, number: int) -> None:
        """Let each machine write something else at the Hub."""
        for actor in self.clouds.actors:
            self.clouds.write(self.clouds.hub, actor.name, 5 * MIB + number * 70_000, _text(actor, number))

    def write_in_azure(self, number: int) -> None:
        for actor in self.clouds.actors:
            self.clouds.write(self.clouds.azure, actor.at_azure, 7 * MIB + number * 70_000, _text(actor, number))

    # acts

    def replicate(self) -> None:
        """Step 5: two recovery points of each machine, and a change that is in none yet."""
        for number in range(2):
            self.write_at_home(number)
            for actor in self.clouds.actors:
                self.point(actor)
        self.write_at_home(2)

    def drill(self, name: str = "drill-1") -> Run:
        """Step 6, without its clean-up."""
        return self.stage.play(self.stage.drill(name))

    def fail_over(self, name: str = "failover-1") -> Run:
        return self._made(self.stage.play(self.stage.failover(name)))

    def change_point(self, moved: Run, name: str = "point-1") -> Run:
        """Move to the point before the newest one."""
        wanted = {actor.name: actor.points[1].name for actor in self.clouds.actors}
        return self._made(self.stage.play(self.stage.following(name, moved, RunKind.CHANGE_POINT, wanted)))

    def commit(self, moved: Run, name: str = "commit-1") -> Run:
        return self.stage.play(self.stage.following(name, moved, RunKind.COMMIT))

    def reprotect(self, moved: Run, name: str = "reprotect-1") -> Run:
        return self.stage.play(self.stage.following(name, moved, RunKind.REPROTECT))

    def fail_back(self, moved: Run, name: str = "failback-1") -> Run:
        return self.stage.play(self.stage.failback(name, moved))

    def abort(self, moved: Run, name: str) -> Run:
        return self.stage.play(self.stage.following(name, moved, RunKind.ABORT))

    def _made(self, run: Run) -> Run:
        for actor in self.clouds.actors:
            actor.base = run.points[actor.name]
        return run


def _text(actor: Actor, number: int) -> bytes:
    return f"{actor.name} wrote this, number {number}. ".encode() * 1500
