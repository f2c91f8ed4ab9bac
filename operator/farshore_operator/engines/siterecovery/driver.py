"""Drives Site Recovery: looks at each vault, decides, makes at most one call for each machine and task, and reports.

Level-triggered: what it does next follows from what Azure shows and from what was recorded, never from memory. A task
is claimed in its report before its first call, and each call is recorded as soon as it was begun, so that a restart
between any two lines here begins nothing twice: what was begun and not recorded shows at the item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.contract.replication import ReplicationReport, State
from farshore_engine.contract.siterecovery import SWITCH
from farshore_engine.contract.tasks import TaskPhase, TaskReport
from farshore_operator.engines.siterecovery import naming, reading
from farshore_operator.engines.siterecovery.calls import Call, SwitchProvider
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.decide import machine as machines
from farshore_operator.engines.siterecovery.decide import news, switch
from farshore_operator.engines.siterecovery.decide import task as tasks
from farshore_operator.engines.siterecovery.decide import vault as vaults
from farshore_operator.engines.siterecovery.decide.verdict import begun
from farshore_operator.engines.siterecovery.facts import Item, PolicyFacts
from farshore_operator.engines.siterecovery.finding import find
from farshore_operator.engines.siterecovery.origins import Origins
from farshore_operator.engines.siterecovery.perform import perform
from farshore_operator.engines.siterecovery.placing import Place, Scene, item_of, job_of, place_of, points_of
from farshore_operator.engines.siterecovery.plans import PlanPort, Plans, PlanScene
from farshore_operator.engines.siterecovery.settings import VaultSettings
from farshore_operator.engines.siterecovery.wishes import ControlPlane, MachineWish, TaskWish, VaultWish

log = structlog.get_logger(__name__)
AT_REST = (State.REPLICATING, State.STOPPED)


REST = timedelta(minutes=1)
"""How often a machine that replicates without news is looked at in detail, at least."""
EACH = timedelta(seconds=1.2)
"""By how much that grows with each machine: Resource Manager counts how much is read in an hour."""


class NotReportedError(WaitFault):
    """The control plane did not take a report: Azure is not to blame, and what is next is seen in the next look."""


class Driver:
    """Drives all vaults of engine siteRecovery.

    Args:
        control: where wishes come from and reports go.
        now: the clock.
        connect: makes the clients of a vault.
        carry_out: makes a call.
    """

    def __init__(
        self,
        control: ControlPlane,
        now: Callable[[], datetime],
        connect: Callable[[VaultSettings], VaultClient] = VaultClient,
        carry_out: Callable[[VaultClient, Call], str] = perform,
    ) -> None:
        self._control = control
        self._connect = connect
        self._carry_out = carry_out
        self._now = now
        port = PlanPort(control.report_vault, control.report_plan, self._report, self._perform, now)
        self._plans = Plans(port)
        self._clients: dict[VaultSettings, VaultClient] = {}
        self._seen: dict[str, tuple[MachineWish, Item | None, datetime]] = {}

    def look(self) -> float | None:
        """Look at every vault once; return the seconds for which Azure asks to be left alone, None for no wish.

        Raises:
            Fault: the control plane is away.
        """
        pauses = [self.serve(wish) for wish in self._control.wishes()]
        return max((pause for pause in pauses if pause is not None), default=None)

    def serve(self, wish: VaultWish) -> float | None:
        """Look at one vault once. What Azure refuses or throttles is told, and looked at again."""
        try:
            scene = self._vault(wish)
            if scene is None:
                return None
            self._broken(wish)
            # Plans before machines: one that is about to go leaves its plan first.
            faults: list[Fault | None] = [*self._plans.serve(PlanScene(scene.client, wish, scene.items, scene.report))]
            faults += [self._machine(scene, one) for one in wish.machines]
            faults += [self._task(scene, one) for one in wish.tasks]
            return _pause(faults)
        except NotReportedError as fault:
            log.warning("site recovery: a report could not be written", vault=wish.name, cause=fault.message)
            return None
        except Fault as fault:
            log.warning("site recovery: the vault could not be served", vault=wish.name, cause=fault.message)
            self._tell_vault(wish, fault)
            return _pause([fault])

    # the vault

    def _report(self, publish: Callable[[str, str, Any], None], namespace: str, name: str, report: Any) -> None:
        try:
            publish(namespace, name, report)
        except Fault as fault:
            raise NotReportedError(fault.message, fault.remedy, reason=fault.reason) from fault

    def _client(self, settings: VaultSettings) -> VaultClient:
        if settings not in self._clients:
            self._clients[settings] = self._connect(settings)
        return self._clients[settings]

    def _vault(self, wish: VaultWish) -> Scene | None:
        """Take the vault as far as it goes now; None if machines cannot be looked at."""
        client, now = self._client(wish.settings), self._now()
        exists = reading.vault_exists(client)
        # Jobs before what they make: one that ends in between must not look as if it had made nothing.
        jobs = {one.job: reading.job(client, one.job) for one in wish.report.operations if one.job and exists}
        found = reading.appliances(client) if exists else ()
        chosen = vaults.choose(wish, found)
        policies = reading.policies(client, chosen) if chosen is not None else {}
        items = reading.items(client) if exists else ()
        origins = Origins(self._client)
        has = frozenset(
            one.name
            for one in wish.machines
            if find(items, one.machine_id, one.address) is not None or (one.origin is not None and origins.holds(one))
        )
        verdict = vaults.decide(vaults.VaultView(wish, exists, found, policies, jobs, has), now)
        report, call = verdict.report, verdict.call
        if call is not None:
            # A call that was begun before a restart, and not recorded, shows as a job only.
            job = reading.unfinished(client, call.subject) if exists and call.subject else ""
            job = job or self._perform(client, wish, call)
            report = report.model_copy(update={"operations": (*report.operations, begun(call, job, now))})
        if news.vault(wish.report, report):
            self._report(self._control.report_vault, wish.namespace, wish.name, report)
        return Scene(client, wish, chosen, policies, items, report, origins) if exists else None

    def _tell_vault(self, wish: VaultWish, fault: Fault) -> None:
        update = {"reason": fault.reason, "message": fault.message, "remedy": fault.remedy}
        report = wish.report.model_copy(update={**update, "waits": isinstance(fault, WaitFault)})
        if report != wish.report:
            self._report(self._control.report_vault, wish.namespace, wish.name, report)

    def _broken(self, wish: VaultWish) -> None:
        for one in wish.broken:
            report = ReplicationReport(
                process_server=naming.driver(wish.name),
                epoch=one.epoch,
                state=State.WAITING if isinstance(one.fault, WaitFault) else State.BLOCKED,
                message=one.fault.message,
                remedy=one.fault.remedy,
                reason=one.fault.reason,
            )
            known = one.report
            if known is None or (known.message, known.remedy) != (report.message, report.remedy):
                kept = known.operation if known is not None else None
                report = report.model_copy(update={"updated_at": self._now(), "operation": kept})
                self._report(self._control.report_machine, wish.namespace, one.name, report)

    # machines

    def _machine(self, scene: Scene, wish: MachineWish) -> Fault | None:
        now, client = self._now(), scene.client
        if self._settled(scene, wish, now):
            return None
        try:
            place, job = place_of(scene, wish, wish.report)
            item = place.item
            view = machines.MachineView(
                wish, scene.wish, scene.appliance, self._policy(scene, wish), item, job=job,
                points=points_of(place, wish.epoch, scene.wish.name), away=place.away,
            )  # fmt: skip
            if item is None and scene.appliance is not None:
                found = reading.protectable(client, scene.appliance, wish.address)
                view = machines.MachineView(
                    wish, scene.wish, scene.appliance, view.policy, None, found, job, view.points
                )
            verdict = machines.decide(view, now)
            report, call = verdict.report, verdict.call
            if isinstance(call, SwitchProvider):
                report = self._switch(scene, place, report, call)
            elif call is not None:
                job_name = self._perform(place.client, scene.wish, call)
                report = report.model_copy(update={"operation": begun(call, job_name, now)})
        except Fault as fault:
            self._machine_fault(scene, wish, fault)
            return fault
        self._publish_machine(scene.wish, wish, report)
        self._seen[wish.machine_id] = (wish, _listed(scene, wish), now)
        return None

    def _settled(self, scene: Scene, wish: MachineWish, now: datetime) -> bool:
        """Tell whether a machine replicates as it did when it was last looked at, a short while ago.

        What is remembered for it saves questions only: a driver that remembers nothing asks them.
        """
        known, report = self._seen.get(wish.machine_id), wish.report
        if known is None or report is None or report.operation is not None or report.state not in AT_REST:
            return False
        seen, listed, at = known
        rest = max(REST, EACH * len(scene.wish.machines))
        return seen == wish and listed == _listed(scene, wish) and now - at < rest

    def _machine_fault(self, scene: Scene, wish: MachineWish, fault: Fault) -> None:
        """Tell a refusal at the machine; what only has to be waited for leaves its last report as it is."""
        log.warning("site recovery: a machine could not be served", machine=wish.machine_id, cause=fault.message)
        if wish.report is None or not isinstance(fault, WaitFault):
            old = wish.report
            report = old or ReplicationReport(
                process_server=naming.driver(scene.wish.name), epoch=wish.epoch, state=State.WAITING
            )
            state = State.WAITING if isinstance(fault, WaitFault) else State.BLOCKED
            words = {"message": fault.message, "remedy": fault.remedy, "reason": fault.reason, "state": state}
            self._publish_machine(scene.wish, wish, report.model_copy(update={**words, "epoch": wish.epoch}))

    def _publish_machine(self, vault: VaultWish, wish: MachineWish, report: ReplicationReport) -> None:
        if news.machine(wish.report, report):
            self._report(self._control.report_machine, vault.namespace, wish.name, report)

    def _policy(self, scene: Scene, wish: MachineWish) -> PolicyFacts | None:
        if scene.appliance is None:
            return None
        return scene.policies.get(naming.policy(scene.appliance.scenario, wish.policy))

    def _switch(self, scene: Scene, place: Place, report: ReplicationReport, call: SwitchProvider) -> ReplicationReport:
        """Begin a move. A refusal is told beside the replication, which goes on, and tried again after a while."""
        try:
            job = self._perform(place.client, scene.wish, call)
        except WaitFault:
            raise
        except Fault as fault:
            log.warning("site recovery: a machine does not move", machine=call.item.friendly, cause=fault.message)
            others = tuple(one for one in report.checks if one.name != SWITCH)
            report = report.model_copy(update={"checks": (switch.refused(fault), *others)})
            job = ""
        return report.model_copy(update={"operation": begun(call, job, self._now())})

    # tasks

    def _task(self, scene: Scene, wish: TaskWish) -> Fault | None:
        now, client = self._now(), scene.client
        claimed = wish.report is not None and wish.report.started_at is not None
        try:
            machine = next((one for one in scene.wish.machines if one.name == wish.machine), None)
            if machine is not None:
                place, job = place_of(scene, machine, wish.report)
            else:  # it is served elsewhere by now: the task is ended where it was begun
                job = job_of(client, wish.report)
                place = Place(client, item_of(scene, wish.input.machine_id, wish.address, job))
            client = place.client
            item = self._dated(client, place.item)
            epoch = machine.epoch if machine is not None else 0
            points = points_of(place, epoch, scene.wish.name)
            view = tasks.TaskView(wish, item, points, job, wish.network)
            verdict = tasks.decide(view, now)
            report, call = verdict.report, verdict.call
            if call is not None:
                if not claimed:  # before the call: what Azure does from now on, it does for this task
                    self._report(self._control.report_task, scene.wish.namespace, wish.name, report)
                job_name = self._perform(client, scene.wish, call)
                report = report.model_copy(update={"operation": begun(call, job_name, now)})
        except WaitFault as fault:
            log.warning("site recovery: a task waits", task=wish.name, cause=fault.message)
            return fault
        except Fault as fault:
            report = _stopped(wish, fault, now)
        if report != wish.report:
            self._report(self._control.report_task, scene.wish.namespace, wish.name, report)
        return None

    def _dated(self, client: VaultClient, item: Item | None) -> Item | None:
        """Let a drill that waits say when it began, by its job where the item does not tell."""
        if item is None or item.drill != tasks.WAITING or item.last_drill is not None or not item.job:
            return item
        job = reading.job(client, item.job)
        return replace(item, last_drill=job.started) if job is not None else item

    def _perform(self, client: VaultClient, wish: VaultWish, call: Call) -> str:
        job = self._carry_out(client, call)
        log.info("site recovery: call", vault=wish.name, call=call.name, subject=call.subject, job=job)
        return job


def _listed(scene: Scene, wish: MachineWish) -> Item | None:
    """Return what a list shows of a machine, but for its heartbeat."""
    found = find(scene.items, wish.machine_id, wish.address)
    return replace(found, heartbeat=None) if found is not None else None


def _stopped(wish: TaskWish, fault: Fault, now: datetime) -> TaskReport:
    """Return the report of a task that needs a person. What was begun at Azure goes on there, whoever cannot look at
    it: it is looked at again when the cause is gone."""
    if wish.report is None or wish.report.operation is None:
        return _failed(wish, fault, now)
    return wish.report.model_copy(update={"message": fault.message, "remedy": fault.remedy})


def _failed(wish: TaskWish, fault: Fault, now: datetime) -> TaskReport:
    report = wish.report or TaskReport(phase=TaskPhase.FAILED, started_at=now, attempts=1)
    update = {"phase": TaskPhase.FAILED, "message": fault.message, "remedy": fault.remedy, "finished_at": now}
    return report.model_copy(update={**update, "percent": None})


def _pause(faults: Sequence[Fault | None]) -> float | None:
    asked = [fault.retry_after for fault in faults if isinstance(fault, WaitFault)]
    return max((seconds for seconds in asked if seconds is not None), default=None)
