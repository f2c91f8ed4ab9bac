"""Process servers of sites in clouds: registered at the real API, with the product's own task runner and executors.

Only the agents are played: what the simulated machines have on their disks becomes points in the vault.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tests.azure.story.clouds import Clouds
from tests.azure.story.machines import Actor, Content
from tests.cluster.operator_process import Installation
from tests.cluster.played_appliance import PlayedAppliance

from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.contract.assignment import Desired, Direction, MachineAssignment
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import AgentReport, ReplicationReport, State
from farshore_engine.contract.tasks import TaskAssignment
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.processserver.identity import machine_request, private_key
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_engine.processserver.taskrunner import TaskRunner
from farshore_engine.processserver.tasks.context import TaskContext

STATES = {Desired.REPLICATE: State.REPLICATING, Desired.PAUSE: State.PAUSED, Desired.STOP: State.STOPPED}
HOLD = 60.0


@dataclass(repr=False)
class Resident(Actor):
    """A machine whose identity in the vault is that of a ProtectedVM."""

    namespace: str = ""

    @property
    def machine_id(self) -> str:
        return f"{self.namespace}.{self.name}"


class Copies:
    """The agents of all machines, wherever they run: points of what is on their disks."""

    def __init__(self, clouds: Clouds) -> None:
        self.clouds = clouds
        self._lock = threading.Lock()

    def point(self, server: str, machine: MachineAssignment, *, again: bool = False) -> RecoveryPoint:
        """Return the newest point of the machine in its epoch; make one if there is none, or `again`."""
        with self._lock:
            actor = self.actor(machine.name)
            own = [one for one in actor.points if one.epoch == machine.epoch]
            if not own or again:
                actor.epoch, actor.base = machine.epoch, machine.base_point
                self.vault = machine.vault
                actor.replicate(
                    machine.vault, server, self.content(actor, machine.direction), lambda: datetime.now(UTC)
                )
            return actor.points[-1]

    def actor(self, name: str) -> Actor:
        return next(one for one in self.clouds.actors if name in (one.name, one.machine_id))

    def content(self, actor: Actor, direction: Direction) -> Content:
        reverse = direction is Direction.REVERSE
        return self.clouds.azure_content(actor) if reverse else self.clouds.home_content(actor)

    def power_off(self, actor: Actor, direction: Direction) -> None:
        """The agent cuts the power of its machine."""
        if direction is Direction.REVERSE:
            self.clouds.power_off(self.clouds.azure, actor.at_azure, actor.away)
        else:
            self.clouds.power_off(self.clouds.hub, actor.name, actor.home)


class CloudAppliance(PlayedAppliance):
    """A process server whose tasks are carried out by the product; its machines' agents are `Copies`."""

    def __init__(
        self,
        world: Installation,
        namespace: str,
        site: str,
        name: str,
        directory: Path,
        copies: Copies,
        hub: HubSetting,
    ) -> None:
        super().__init__(world, namespace, site, name, directory)
        self._copies, self._setting = copies, hub
        self._runner: TaskRunner | None = None
        self._told: dict[str, tuple[object, ...]] = {}

    def stop(self) -> None:
        super().stop()
        if self._runner is not None:
            self._runner.stop()

    def _tasks(self, tasks: tuple[TaskAssignment, ...]) -> None:
        if self._runner is None:
            self._runner = TaskRunner(self.control, self._context())
        self._runner.take(tasks)

    def _context(self) -> TaskContext:
        clouds = self._copies.clouds
        return TaskContext(
            machines_dir=self.state / "recovered", runtime=MachineRuntime(self.state / "run"),
            installer=cast(Any, clouds), data_port=lambda: DataPort(self.name, 9443), take_point=self._take,
            now=lambda: datetime.now(UTC), progress=lambda *_: None, take_last=self._last, hub=self._setting,
        )  # fmt: skip

    def _take(self, machine: str, seconds: float) -> RecoveryPoint:
        return self._copies.point(self.name, self._assigned(machine), again=True)

    def _last(self, machine: str, hold: float, power_off: bool, seconds: float) -> HeldPoint:
        assigned = self._assigned(machine)
        point = self._copies.point(self.name, assigned, again=True)
        self._copies.power_off(self._copies.actor(assigned.name), assigned.direction)
        return HeldPoint(point, lambda: HOLD, lambda why: None, lambda: "")

    def _assigned(self, machine: str) -> MachineAssignment:
        return next(one for one in self.seen.values() if machine in (one.name, one.machine_id))

    def _machine(self, machine: MachineAssignment) -> None:
        self.seen[machine.name] = machine
        point = self._copies.point(self.name, machine) if machine.desired is Desired.REPLICATE else None
        points = self._copies.actor(machine.name).points
        point = point or (points[-1] if points else None)
        told = (machine.desired, machine.epoch, machine.certificate, point.name if point else "")
        if self._told.get(machine.name) == told:
            return
        self._told[machine.name] = told
        key = private_key(self.state / "machines" / machine.name / "key.pem")
        self.control.report_machine(
            machine.name,
            ReplicationReport(
                process_server=self.name, epoch=machine.epoch,
                state=STATES.get(machine.desired, State.UNINSTALLED), message="played",
                agent=AgentReport(
                    version="test", connected=True, last_seen=datetime.now(UTC) - timedelta(seconds=1),
                    certificate_request=machine_request(key, machine.machine_id),
                ),
                last_point=point, recent_points=(point,) if point else (), point_count=len(points),
                vault_epoch=machine.epoch,
            ),
        )  # fmt: skip
