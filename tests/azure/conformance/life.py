"""The failover life as its users see it, at whatever engine: manifests in, the operator's own decisions, status out.

`Life` holds what people do and see, and is the same for all. What carries tasks out and replicates is the engine's:
played appliances for the native one (`Native`), the real driver in front of the simulator for Site Recovery
(`Service`). What a machine holds is told by a text that it was made to write.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from datetime import timedelta
from typing import Any

from tests.unit.circle import AWAY, HOME, NAMESPACE, PLAN, Circle, Json

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import ReplicationReport, State
from farshore_engine.contract.tasks import TaskInput, TaskKind, TaskReport, TaskResult
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.decide.actions import SetFinalizer

UNPLANNED = {"mode": "unplanned", "shutdownSource": "BestEffort", "recoveryPoint": "Latest"}
"""A failover that every engine can do."""


class Life(Circle):
    """A plan with its machines, one vault, and whoever serves it."""

    engine: Engine
    kinds = ("RecoveryVault", "ProtectedVM", "TestFailover", "FailoverPlan", "FailoverRun")

    def __init__(self, *machines: str, **plan: Any) -> None:
        super().__init__(*machines, **{**UNPLANNED, **plan})

    # what people do

    def apply(self, kind: str, name: str, spec: Json) -> None:
        """Apply a manifest, and let everybody work."""
        self._put(kind, name, spec)
        self.settle()

    def change(self, kind: str, name: str, **spec: Any) -> None:
        """Edit fields of a manifest; None takes one away."""
        body = copy.deepcopy(self.body(kind, name))
        body["spec"] = {k: v for k, v in {**body["spec"], **spec}.items() if v is not None}
        body["metadata"]["generation"] += 1
        self._write(kind, body)
        self.settle()

    def wish(self, **plan: Any) -> None:
        """Edit the plan, and let everybody work."""
        self.edit(**plan)
        self.settle()

    def remove(self, kind: str, name: str) -> None:
        """Delete an object as `kubectl delete` does: it goes when nobody holds it any more."""
        self.condemn(kind, name)
        self.settle()

    def condemn(self, kind: str, name: str) -> None:
        """Ask for an object's deletion."""
        body = copy.deepcopy(self.body(kind, name))
        body["metadata"]["deletionTimestamp"] = self.now.isoformat()
        self._write(kind, body)
        self._let_go(kind, name)

    # what people see

    def phase(self, name: str) -> str:
        return str(self.get("ProtectedVM", name).status.phase)

    def ready(self, name: str) -> bool:
        verdict = self.get("ProtectedVM", name).status.failover_ready
        return verdict is not None and verdict.verdict.value == "Ready"

    def point_names(self, name: str) -> list[str]:
        """The recovery points that the status lists, oldest first."""
        report = self.get("ProtectedVM", name).status.replication
        return [one.name for one in reversed(report.recent_points)] if report is not None else []

    def last_run(self, kind: str) -> Any:
        return self.runs(kind)[-1]

    def said(self, kind: str, name: str) -> str:
        """Every condition that is not as it should be, with reason and message."""
        conditions = self.get(kind, name).status.conditions
        return "\n".join(f"{one.type}={one.status.value} {one.reason}: {one.message}" for one in conditions)

    def everything(self, name: str) -> str:
        """Everything that is told of a machine, its plan, and their runs."""
        plan, vm = self.plan.status, self.get("ProtectedVM", name).status
        checks = vm.replication.checks if vm.replication is not None else ()
        return "\n".join(
            [
                self.said("ProtectedVM", name), self.said("FailoverPlan", PLAN), str(vm.next_step), str(plan.next_step),
                *(f"{one.reason}: {one.message}" for one in (plan.edit,) if one is not None),
                *(str(one.message) for one in plan.requests), *(f"{one.name}: {one.message}" for one in checks),
                *(self.run_told(run) for run in self.runs()),
            ]
        )  # fmt: skip

    def tasks(self, kind: str) -> list[Json]:
        """The specs of the tasks of a kind."""
        return [one["spec"] for one in self.cache.all("Task", NAMESPACE) if one["spec"]["kind"] == kind]

    def run_told(self, run: Any) -> str:
        """What a run says of itself: its checks and steps."""
        checks = [f"{one.name} {one.result}: {one.message} {one.remedy}" for one in run.status.checks]
        return "\n".join(
            [*checks, *(f"{one.name} {one.phase} {one.message} {one.remedy or ''}" for one in run.status.steps)]
        )

    # what the engine has

    @abstractmethod
    def write(self, name: str, text: str) -> None:
        """Let a machine write, where it runs."""

    @abstractmethod
    def read(self, name: str) -> str:
        """Return what the machine that runs holds."""

    @abstractmethod
    def later(self) -> None:
        """Let time go on until every machine has a new recovery point."""

    @abstractmethod
    def running(self) -> dict[str, list[str]]:
        """Return for each machine where it runs: `home`, `away`, `drill`."""

    @abstractmethod
    def touched(self) -> Any:
        """Return what compares unequal as soon as the engine has changed anything outside of Kubernetes."""

    @abstractmethod
    def left(self, before: Any) -> bool:
        """Tell whether there is at the recovery site what there was when `touched` said `before`, and no more."""

    @abstractmethod
    def notes(self) -> list[str]:
        """Return the notes of clean-ups that the engine was told."""

    @abstractmethod
    def drill_network(self, name: str) -> str:
        """Return the network that the machine of a drill joined."""

    @abstractmethod
    def be_killed(self) -> None:
        """From now on let whoever carries tasks out die again and again, in the middle of each, and come back with
        empty memory."""

    @abstractmethod
    def repeated(self) -> list[str]:
        """Return what the engine did more than once."""

    def waiting(self, step: str) -> None:
        """Let everybody work until a step is about to be taken, and no further."""
        self.until(step)

    def wrong(self) -> list[str]:
        """Return what must never be."""
        twice = [f"{name} runs at {where}" for name, where in self.running().items() if self._doubled(where)]
        return [*self.violations, *twice]

    @staticmethod
    def _doubled(where: list[str]) -> bool:
        return len([one for one in where if one != "drill"]) != 1

    # the API

    def objects(self) -> Any:
        for kind in self.kinds:
            for body in self.cache.all(kind, NAMESPACE):
                yield kind, body["metadata"]["name"]

    def reconcile(self, kind: str, name: str, *, killed: bool = False) -> bool:
        news = super().reconcile(kind, name, killed=killed)
        self._let_go(kind, name)
        return news

    def _perform(self, action: Any) -> None:
        if (
            isinstance(action, SetFinalizer)
            and self.cache.get(action.target.kind, NAMESPACE, action.target.name) is None
        ):
            return
        super()._perform(action)

    def _let_go(self, kind: str, name: str) -> None:
        body = self.cache.get(kind, NAMESPACE, name)
        if body is not None and "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers"):
            self._count += 1
            self.delete(kind, name)


class Native(Life):
    """The native engine: appliances that play, with what each machine and point holds."""

    engine = Engine.NATIVE

    def __init__(self, *machines: str, **plan: Any) -> None:
        self.text: dict[tuple[str, str], str] = {}
        self.at: dict[str, str] = {}
        self.held: dict[tuple[str, str], str] = {}
        self.drills: dict[tuple[str, str], str] = {}
        self.noted: list[str] = []
        self.networks: dict[str, str] = {}
        self.died: set[str] | None = None
        super().__init__(*machines, **plan)

    def write(self, name: str, text: str) -> None:
        self.text[name, self.at.get(name, HOME)] = text

    def read(self, name: str) -> str:
        (where,) = [side for side, on in self.power[name].items() if on]
        return self.text.get((name, where), "")

    def later(self) -> None:
        self.now += timedelta(minutes=6)
        for name in self.names:
            if self.power[name][self.at.get(name, HOME)]:
                self._point(name, self.epochs[name])
        self.settle()

    def running(self) -> dict[str, list[str]]:
        sides = {HOME: "home", AWAY: "away"}
        return {
            name: [sides[side] for side, on in self.power[name].items() if on]
            + ["drill" for _, machine in self.drills if machine == name]
            for name in self.names
        }

    def touched(self) -> Any:
        return copy.deepcopy((self.power, self.epochs, self.drills, self.text, self.journals, self.pins, self.points))

    def left(self, before: Any) -> bool:
        return not self.drills and self.power == before[0]

    def notes(self) -> list[str]:
        return self.noted

    def drill_network(self, name: str) -> str:
        return self.networks[name]

    def be_killed(self) -> None:
        self.died = set()

    def repeated(self) -> list[str]:
        return self.violations

    # the appliances

    def carry_out(self, name: str, *, heard: bool = True) -> None:
        """Carry a task out; where it is to die, nobody hears of what it did."""
        body = self.cache.get("Task", NAMESPACE, name)
        dies = body is not None and self.died is not None and name not in self.died
        if self.died is not None:
            self.died.add(name)
        super().carry_out(name, heard=heard and not dies)

    def _do(self, body: Json) -> TaskReport:
        self._run = body["spec"].get("run") or ""
        if body["spec"]["kind"] == TaskKind.CLEAN_UP:
            self.noted += [note for note in (body["spec"]["input"].get("notes"),) if note]
        return super()._do(body)

    def _drilled(self) -> bool:
        body = self.cache.get("FailoverRun", NAMESPACE, self._run)
        return body is not None and body["spec"]["kind"] == RunKind.TEST_FAILOVER

    def _effect(self, kind: TaskKind, machine: str, server: str, wanted: TaskInput) -> TaskResult:
        if self._drilled():
            return self._drill(kind, machine, server, wanted)
        if kind is TaskKind.COMMIT_SPOOL and self.power[machine][server]:
            self._point(machine, self.epochs[machine])
        result = super()._effect(kind, machine, server, wanted)
        if kind is TaskKind.SELECT_POINT:
            return TaskResult(point=self._chosen(machine, wanted.selector))
        if kind in (TaskKind.HYDRATE, TaskKind.WRITE_BACK):
            self.text[machine, server] = self.held[machine, wanted.point]
        if kind in (TaskKind.START_MACHINE, TaskKind.START_SOURCE):
            self.at[machine] = server
        return result

    def _drill(self, kind: TaskKind, machine: str, server: str, wanted: TaskInput) -> TaskResult:
        match kind:
            case TaskKind.SELECT_POINT:
                return TaskResult(point=self._chosen(machine, wanted.selector))
            case TaskKind.COMMIT_SPOOL:
                return TaskResult(point=self._point(machine, self.epochs[machine]))
            case TaskKind.START_MACHINE:
                self.drills[self._run, machine] = self.held[machine, wanted.point]
                self.networks[machine] = wanted.network
                return TaskResult(address="10.160.0.3", port=22, machine_kind="qemu")
            case TaskKind.PROBE_MACHINE:
                return TaskResult(address="10.160.0.3", port=22, evidence="SSH-2.0")
            case TaskKind.CLEAN_UP:
                self.drills.pop((self._run, machine), None)
                return TaskResult(looked_for=(wanted.machine_name,))
        return TaskResult()

    def _chosen(self, machine: str, selector: str) -> RecoveryPoint:
        named = [one for one in self.points[machine] if one.name == selector]
        if not self.points[machine]:
            raise ValueError("there is no point")
        return named[0] if named else self.points[machine][-1]

    def _point(self, machine: str, epoch: int) -> RecoveryPoint:
        made = super()._point(machine, epoch)
        self.held[machine, made.name] = self.text.get((machine, self.at.get(machine, HOME)), "")
        return made

    def _replicate(self, name: str) -> None:
        super()._replicate(name)
        body = copy.deepcopy(self.body("ProtectedVM", name))
        status = body.get("status") or {}
        if not status.get("replication"):
            return
        report = ReplicationReport.model_validate(status["replication"])
        leaving = "deletionTimestamp" in body["metadata"] or status.get("desired") == Desired.UNINSTALL
        told = report.model_copy(update={"state": State.UNINSTALLED if leaving else report.state})
        new = told.model_dump(mode="json", by_alias=True)
        if new != status["replication"]:
            self._write("ProtectedVM", {**body, "status": {**status, "replication": new}})


__all__ = ["PLAN", "Life", "Native"]
