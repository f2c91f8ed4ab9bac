"""What tests of the driver hold: a control plane in memory, machines, and the driver between it and the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from azure.mgmt.recoveryservicessiterecovery import SiteRecoveryManagementClient
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud

from farshore_engine.contract.assignment import Desired, Policy
from farshore_engine.contract.replication import ReplicationReport, State
from farshore_engine.contract.site import CloudCredential
from farshore_engine.contract.siterecovery import RecoveryPlanReport, SiteRecoveryReport
from farshore_engine.contract.tasks import TaskInput, TaskKind, TaskPhase, TaskReport
from farshore_operator.engines.siterecovery.calls import Call
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.driver import Driver
from farshore_operator.engines.siterecovery.perform import perform
from farshore_operator.engines.siterecovery.settings import VaultSettings
from farshore_operator.engines.siterecovery.wishes import MachineWish, PlanWish, TargetWish, TaskWish, VaultWish

NAMESPACE = "dr"
POLICY = Policy(app_consistent_interval=timedelta(hours=1))


class Crash(BaseException):
    """The driver's process ends here."""


@dataclass
class Trap:
    """Ends the process at a planned one of the places that `passed` counts."""

    at: int = 0
    count: int = 0

    def passed(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Crash


class Everywhere(Trap):
    """Ends each look of the driver, one place further on than the one before."""

    ended = 0

    def passed(self) -> None:
        self.count += 1
        if self.count >= self.at:
            self.ended += 1
            self.count, self.at = 0, self.at % 7 + 1
            raise Crash


@dataclass
class Control:
    """The control plane: wishes and what was reported, which goes through JSON as it would in a cluster."""

    vault: VaultWish
    trap: Trap = field(default_factory=Trap)
    machines: dict[str, MachineWish] = field(default_factory=dict)
    tasks: dict[str, TaskWish] = field(default_factory=dict)
    plans: dict[str, PlanWish] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def wishes(self) -> tuple[VaultWish, ...]:
        over = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
        tasks = tuple(one for one in self.tasks.values() if one.report is None or one.report.phase not in over)
        plans = tuple(self.plans.values())
        return (replace(self.vault, machines=tuple(self.machines.values()), tasks=tasks, plans=plans),)

    def report_vault(self, namespace: str, name: str, report: SiteRecoveryReport) -> None:
        self._keep(report.model_dump_json())
        self.vault = replace(self.vault, report=SiteRecoveryReport.model_validate_json(self.told[-1]))
        self.trap.passed()

    def report_machine(self, namespace: str, name: str, report: ReplicationReport) -> None:
        self._keep(report.model_dump_json())
        self.machines[name] = replace(self.machines[name], report=ReplicationReport.model_validate_json(self.told[-1]))
        self.trap.passed()

    def report_task(self, namespace: str, name: str, report: TaskReport) -> None:
        self._keep(report.model_dump_json())
        self.tasks[name] = replace(self.tasks[name], report=TaskReport.model_validate_json(self.told[-1]))
        self.trap.passed()

    def report_plan(self, namespace: str, name: str, report: RecoveryPlanReport | None) -> None:
        self._keep("" if report is None else report.model_dump_json())
        kept = None if report is None else RecoveryPlanReport.model_validate_json(self.told[-1])
        self.plans[name] = replace(self.plans[name], report=kept)
        self.trap.passed()

    def _keep(self, text: str) -> None:
        self.trap.passed()
        self.told.append(text)


@dataclass
class Scene:
    """A vault, its machines, and a driver that can be ended and begun anew."""

    cloud: Cloud
    control: Control
    calls: list[str] = field(default_factory=list)
    appliance: Any = None
    driver: Driver = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a driver that remembers nothing."""
        self.driver = Driver(self.control, self.now, self._connect, self._carry_out)

    _clients: dict[VaultSettings, VaultClient] = field(default_factory=dict)

    def _connect(self, settings: VaultSettings) -> VaultClient:
        return self._clients.setdefault(settings, VaultClient(settings))

    def _carry_out(self, client: VaultClient, call: Call) -> str:
        self.control.trap.passed()
        job = perform(client, call)
        self.calls.append(f"{call.name} {call.subject}")
        self.control.trap.passed()
        return job

    def now(self) -> datetime:
        return self.cloud.sr.clock.now()

    def look(self, times: int = 1) -> None:
        """Let the driver look, and begin it anew where it ends by a planned crash."""
        for _ in range(times):
            try:
                self.driver.look()
            except Crash:
                self.restart()

    def until(self, done: Callable[[], bool], looks: int = 40) -> None:
        """Look until something is so."""
        for _ in range(looks):
            if done():
                return
            self.look()
        raise AssertionError(f"not after {looks} looks: {self.control.vault.report}; {self.said()}")

    def said(self) -> str:
        found = [f"{name}: {one.report and (one.report.state, one.report.message, one.report.remedy)}"
                 for name, one in self.control.machines.items()]  # fmt: skip
        found += [f"{name}: {one.report}" for name, one in self.control.tasks.items()]
        return "\n".join(found)

    def protect(self, name: str, ip: str, **more: Any) -> Any:
        """A machine with two disks, wished to be protected."""
        machine = self.cloud.machine(name, ip)
        if self.appliance is not None:
            self.cloud.sr.add_to_appliance(self.appliance, machine)
        target = TargetWish(
            self.cloud.group_id, self.cloud.network_id, "default", f"{name}-dr", "Standard_D2s_v3", "Standard_LRS",
            tags=(("team", "shop"),),
        )  # fmt: skip
        self.control.machines[name] = MachineWish(
            name, f"{NAMESPACE}.{name}", 1, Desired.REPLICATE, ip, False, POLICY, target, **more
        )
        return machine

    def state(self, name: str) -> State | None:
        report = self.control.machines[name].report
        return report.state if report is not None else None

    def report(self, name: str) -> ReplicationReport:
        found = self.control.machines[name].report
        assert found is not None
        return found

    def protected(self, *names: str) -> None:
        """Go on until machines have points."""
        self.until(lambda: all(self.state(name) is State.REPLICATING for name in names))

    def task(self, kind: TaskKind, machine: str, run: str = "run1", *, network: str = "", **given: Any) -> TaskReport:
        """Ask for a step, and go on until it is over."""
        name = self.ask(kind, machine, run, network=network, **given)
        self.until(lambda: self.over(name))
        found = self.control.tasks[name].report
        assert found is not None
        return found

    def ask(self, kind: TaskKind, machine: str, run: str = "run1", *, network: str = "", **given: Any) -> str:
        name = f"{run}-{machine}-{kind.lower()}"
        wish = self.control.machines[machine]
        self.control.tasks[name] = TaskWish(
            name, kind, TaskInput(machine_id=wish.machine_id, **given), machine, run, self.now(), network=network
        )
        return name

    def over(self, name: str) -> bool:
        report = self.control.tasks[name].report
        return report is not None and report.phase in (TaskPhase.SUCCEEDED, TaskPhase.FAILED)

    @property
    def site(self) -> SiteRecoveryManagementClient:
        return self.cloud.site


def settings(cloud: Cloud, vault: str = VAULT, **more: Any) -> VaultSettings:
    """The simulator as a RecoveryVault names it."""
    given = cloud.sim.credential()
    return VaultSettings(
        cloud.sim.subscription, GROUP, vault, endpoint=cloud.sim.endpoint, authority=given.authority,
        ca_bundle=Path(cloud.sim.ca_bundle).read_text(),
        credential=CloudCredential(
            tenant_id=given.tenant_id, client_id=given.client_id, client_secret=given.client_secret
        ), **more,
    )  # fmt: skip
