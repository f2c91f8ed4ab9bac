"""Follows the recovery plans of a vault: one for each FailoverPlan whose machines replicate into it, none besides.

Its own are noted in the vault's report before they are made, so that they are found and deleted when their FailoverPlan
is gone, whoever was not running then. Before each call the jobs of the vault are asked whether it was begun already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.contract.siterecovery import PlanMark, RecoveryPlanReport, SiteRecoveryReport
from farshore_operator.engines.siterecovery import naming, reading
from farshore_operator.engines.siterecovery.calls import Call, CreatePlan, DeletePlan
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.decide import plan as plans
from farshore_operator.engines.siterecovery.decide.verdict import AGAIN, begun, resting, under_way
from farshore_operator.engines.siterecovery.facts import Item, PlanFacts
from farshore_operator.engines.siterecovery.finding import find
from farshore_operator.engines.siterecovery.wishes import PlanWish, VaultWish

log = structlog.get_logger(__name__)
REST = timedelta(minutes=1)
"""How often plans are looked at of which nothing is new: a change in the portal is put back as late as that."""


@dataclass(frozen=True)
class PlanScene:
    """A vault as it was read in this look, as far as its recovery plans are concerned."""

    client: VaultClient
    wish: VaultWish
    items: tuple[Item, ...]
    report: SiteRecoveryReport


@dataclass(frozen=True)
class PlanPort:
    """How the driver reports and calls: `report` turns a fault of the control plane into one of its own."""

    report_vault: Callable[[str, str, SiteRecoveryReport], None]
    report_plan: Callable[[str, str, RecoveryPlanReport | None], None]
    report: Callable[[Callable[[str, str, Any], None], str, str, Any], None]
    perform: Callable[[VaultClient, VaultWish, Call], str]
    now: Callable[[], datetime]


class Plans:
    """Follows the recovery plans of all vaults. What it remembers saves questions only."""

    def __init__(self, port: PlanPort) -> None:
        self._port = port
        self._rested: dict[tuple[str, str], tuple[object, datetime]] = {}
        self._refused: dict[tuple[str, str], tuple[PlanWish, datetime]] = {}

    def serve(self, scene: PlanScene) -> list[Fault]:
        """Look at the plans of one vault once; return what Azure refused.

        Raises:
            Fault: the control plane did not take a report.
        """
        wish = scene.wish
        self._withdraw(wish)
        wished = [one for one in wish.plans if not one.unwanted]
        if not wished and not scene.report.plans:
            return []
        key, now = (wish.namespace, wish.name), self._port.now()
        known = self._rested.get(key)
        state = (wish.plans, scene.report.plans, _leaving(wish), tuple(_still(one) for one in scene.items))
        if known is not None and known[0] == state and now - known[1] < REST:
            return []
        self._rested.pop(key, None)
        faults = self._serve(scene, wished)
        busy = any(one.report is None or one.report.operation is not None for one in wished)
        stale = {one.plan for one in scene.report.plans} - {one.name for one in wished}
        if not faults and not busy and not stale:
            self._rested[key] = (state, now)
        return faults

    def _serve(self, scene: PlanScene, wished: list[PlanWish]) -> list[Fault]:
        try:
            found = reading.plans(scene.client)
        except Fault as fault:
            log.warning("site recovery: recovery plans could not be read", vault=scene.wish.name, cause=fault.message)
            return [fault]
        marks = _Marks(scene, self._port)
        faults = [self._plan(scene, marks, one, found) for one in wished]
        names = {naming.plan(scene.wish.namespace, one.name) for one in wished}
        faults += [self._stale(scene, marks, one, found) for one in marks.all if one.name not in names]
        return [one for one in faults if one is not None]

    def _withdraw(self, wish: VaultWish) -> None:
        for one in wish.plans:
            if one.unwanted and one.report is not None:
                self._port.report(self._port.report_plan, wish.namespace, one.name, None)

    def _plan(self, scene: PlanScene, marks: _Marks, wish: PlanWish, found: dict[str, PlanFacts]) -> Fault | None:
        now, client, name = self._port.now(), scene.client, naming.plan(scene.wish.namespace, wish.name)
        asked, at = self._refused.get((scene.wish.namespace, name), (None, now))
        if asked == replace(wish, report=None) and now - at < AGAIN:
            return None
        old, there = wish.report, found.get(name.lower())
        try:
            operation = old.operation if old is not None else None
            job = reading.job(client, operation.job) if operation is not None and operation.job else None
            if job is not None and job.over:  # it may have ended after the plans were listed
                there = reading.plans(client).get(name.lower())
            view = plans.PlanView(wish, scene.wish.name, name, there, marks.has(name), _items(scene, wish), job)
            verdict = plans.decide(view, now)
            report, call = verdict.report, verdict.call
            if plans.ours(view) and (there is not None or call is not None):
                marks.note(name, wish.name)
            if call is not None:
                report = report.model_copy(update={"operation": begun(call, self._begin(scene, marks, call), now)})
        except WaitFault as fault:
            log.warning("site recovery: a recovery plan waits", plan=wish.name, cause=fault.message)
            return fault
        except Fault as fault:
            blank = old or RecoveryPlanReport(vault=scene.wish.name, name=name)
            words = {"reason": fault.reason, "message": fault.message, "remedy": fault.remedy, "in_place": False}
            report = blank.model_copy(update=words)
            self._tell(scene, wish, report)
            self._refused[scene.wish.namespace, name] = (replace(wish, report=None), now)
            return fault
        self._tell(scene, wish, report)
        return None

    def _tell(self, scene: PlanScene, wish: PlanWish, report: RecoveryPlanReport) -> None:
        if report != wish.report:
            self._port.report(self._port.report_plan, scene.wish.namespace, wish.name, report)

    def _begin(self, scene: PlanScene, marks: _Marks, call: Call) -> str:
        """Begin a call, unless a job shows that it was begun before a restart, and not recorded."""
        job = reading.unfinished(scene.client, call.subject)
        try:
            return job or self._port.perform(scene.client, scene.wish, call)
        except WaitFault as fault:
            if isinstance(call, CreatePlan) and fault.reason == "Conflict":
                marks.drop(call.subject)  # somebody may have made one of that name meanwhile
            raise

    def _stale(self, scene: PlanScene, marks: _Marks, mark: PlanMark, found: dict[str, PlanFacts]) -> Fault | None:
        """Delete the plan of a FailoverPlan that is gone, and then its note."""
        now, client, there = self._port.now(), scene.client, found.get(mark.name.lower())
        if there is None:
            marks.drop(mark.name)
            return None
        try:
            operation = mark.operation
            job = reading.job(client, operation.job) if operation is not None and operation.job else None
            if there.doing or under_way(operation, job, now) or resting(operation, job, now):
                return None
            made = begun(DeletePlan(there.name), self._begin(scene, marks, DeletePlan(there.name)), now)
        except Fault as fault:
            log.warning("site recovery: a recovery plan could not be deleted", plan=mark.name, cause=fault.message)
            return fault
        marks.put(mark.model_copy(update={"operation": made}))
        return None


class _Marks:
    """The notes of which plans are ours, in the report of their vault. Each change is written at once."""

    def __init__(self, scene: PlanScene, port: PlanPort) -> None:
        self._scene, self._port = scene, port
        self._report = scene.report

    @property
    def all(self) -> tuple[PlanMark, ...]:
        return self._report.plans

    def has(self, name: str) -> bool:
        return any(one.name == name for one in self.all)

    def note(self, name: str, plan: str) -> None:
        if not self.has(name):
            self._write((*self.all, PlanMark(name=name, plan=plan)))

    def drop(self, name: str) -> None:
        self._write(tuple(one for one in self.all if one.name != name))

    def put(self, mark: PlanMark) -> None:
        self._write(tuple(mark if one.name == mark.name else one for one in self.all))

    def _write(self, marks: tuple[PlanMark, ...]) -> None:
        if marks == self.all:
            return
        report, wish = self._report.model_copy(update={"plans": marks}), self._scene.wish
        self._port.report(self._port.report_vault, wish.namespace, wish.name, report)
        self._report = report


def _items(scene: PlanScene, wish: PlanWish) -> dict[str, Item | None]:
    """Return the replicated items of a plan's machines; those that are about to go are taken out of it before."""
    leaving, known = _leaving(scene.wish), {one.name: one for one in scene.wish.machines}
    found: dict[str, Item | None] = {}
    for group in wish.groups:
        for name in group.machines:
            machine = known.get(name) if name not in leaving else None
            found[name] = find(scene.items, machine.machine_id, machine.address) if machine is not None else None
    return found


def _leaving(wish: VaultWish) -> frozenset[str]:
    return frozenset(one.name for one in wish.machines if one.desired is Desired.UNINSTALL)


def _still(item: Item) -> Item:
    return replace(item, heartbeat=None)
