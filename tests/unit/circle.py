"""A small world around the operator's real observers and decisions: objects in memory, and two appliances that play.

What the appliances do to machines is kept as power: at home, and at the recovery site. Whatever would make two machines
run, write to disks in use, or do a step again that the vault knows as done, is a violation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from farshore_engine.contract.assignment import Desired, Direction
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.contract.replication import AgentReport, ReplicationReport, State
from farshore_engine.contract.tasks import (
    JournalledRun,
    JournalledStep,
    TaskInput,
    TaskKind,
    TaskPhase,
    TaskReport,
    TaskResult,
)
from farshore_operator.decide.actions import CallService, CreateOwned, DeleteOwned, SetFinalizer
from farshore_operator.decide.planedit import STARTING
from farshore_operator.handlers.kinds import KINDS
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.leases import Heartbeats
from farshore_operator.observe.secrets import SecretKeys
from farshore_operator.observe.world import World
from farshore_operator.settings import Timing

NAMESPACE = "shop"
PLAN = "plan"
BEGIN = datetime(2025, 1, 31, 8, 0, tzinfo=UTC)
HOME, AWAY = "ps-stack", "ps-shore"
Json = dict[str, Any]


class _Secrets:
    """Every Secret exists."""

    def keys(self, namespace: str, name: str) -> SecretKeys:
        return SecretKeys({"password": 8, "k": 32}, frozenset({"k"}))


class Circle:
    """A plan with its machines between two sites.

    Attributes:
        power: for each machine, whether it runs at home and at the recovery site.
        connected: process servers that are there.
        fail: kinds of task that fail when they are next carried out.
        violations: what must never be.
        begun: names of the runs that were ever made by the operator, in order.
        called: steps of hooks that were called, in order; nobody answers.
        accepted: edits of activeSite that were accepted to start a run: UID and generation of the plan.
    """

    def __init__(self, *machines: str, **plan: Any) -> None:
        self.names = machines or ("web-01",)
        self.now = BEGIN
        self.power = {name: {HOME: True, AWAY: False} for name in self.names}
        self.connected = {HOME, AWAY}
        self.fail: set[TaskKind] = set()
        self.violations: list[str] = []
        self.begun: list[str] = []
        self.called: list[str] = []
        self.accepted: set[tuple[str, int]] = set()
        self.journals: dict[str, dict[str, JournalledRun]] = {name: {} for name in self.names}
        self.epochs = dict.fromkeys(self.names, 0)
        self.points: dict[str, list[RecoveryPoint]] = {name: [] for name in self.names}
        self.pins: dict[str, set[str]] = {name: set() for name in self.names}
        self._done_by: dict[tuple[str, str, str], str] = {}
        self._count = 0
        self.plan_spec: Json = {
            "activeSite": "source",
            "mode": "planned",
            "shutdownSource": "Required",
            "groups": [{"name": "g", "members": [{"name": name} for name in self.names]}],
            **plan,
        }
        self.build()
        self.settle()

    # The API.

    def build(self) -> None:
        """Make a fresh control plane and apply the manifests."""
        self.cache = Cache()
        self.heartbeats = Heartbeats(timedelta(seconds=20))
        self.world = World(self.cache, _Secrets(), self.heartbeats, Timing(), lambda: self.now)  # type: ignore[arg-type]
        for name in ("stack", "shore"):
            self._put("Site", name, {"provider": "local", "credentialsSecretRef": {"name": "ssh"}})
        storage = {"directory": {"path": "/v"}}
        key = {"keySecretRef": {"name": "k", "key": "k"}}
        self._put("RecoveryVault", "vault", {"storage": storage, "encryption": key})
        self._put("ReplicationPolicy", "standard", {})
        for server, site in ((HOME, "stack"), (AWAY, "shore")):
            self._put("ProcessServer", server, {"siteRef": {"name": site}}, registered(self.now))
        for name in self.names:
            self._put("ProtectedVM", name, _machine())
        self.apply_plan()

    def apply_plan(self) -> None:
        """Apply the plan's manifest anew."""
        self._put("FailoverPlan", PLAN, self.plan_spec)

    def edit(self, **spec: Any) -> None:
        """Edit the plan; None takes a field away."""
        self.plan_spec = {k: v for k, v in {**self.plan_spec, **spec}.items() if v is not None}
        body = copy.deepcopy(self.body("FailoverPlan", PLAN))
        if body["spec"] != self.plan_spec:
            body["spec"] = self.plan_spec
            body["metadata"]["generation"] += 1
            self._write("FailoverPlan", body)

    def body(self, kind: str, name: str) -> Json:
        found = self.cache.get(kind, NAMESPACE, name)
        assert found is not None, f"there is no {kind} {name}"
        return found

    def get(self, kind: str, name: str) -> Any:
        """Return an object as its model."""
        return KINDS[kind].model.of(self.body(kind, name))

    @property
    def plan(self) -> Any:
        return self.get("FailoverPlan", PLAN)

    @property
    def vm(self) -> Any:
        return self.get("ProtectedVM", self.names[0])

    def runs(self, kind: str = "") -> list[Any]:
        """Return the runs, or those of a kind, in order."""
        found = [KINDS["FailoverRun"].model.of(body) for body in self.cache.all("FailoverRun", NAMESPACE)]
        return sorted(
            (run for run in found if kind in ("", run.spec.kind)),
            key=lambda run: (run.spec.sequence, run.metadata.name),
        )

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and what it owns, as the garbage collector does."""
        body = self.body(kind, name)
        self.cache.drop(kind, body)
        for task in self.cache.all("Task", NAMESPACE):
            owners = task["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == body["metadata"]["uid"] for owner in owners):
                self.cache.drop("Task", task)

    def _put(self, kind: str, name: str, spec: Json, status: Json | None = None, owner: Json | None = None) -> None:
        self._count += 1
        meta = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"{self._count:05d}-{kind.lower()}",
            "generation": 1,
            "creationTimestamp": self.now.isoformat(),
            **({"ownerReferences": [owner]} if owner else {}),
        }
        self._write(kind, {"metadata": meta, "spec": spec, **({"status": status} if status else {})})

    def _write(self, kind: str, body: Json) -> None:
        self._count += 1
        body["metadata"]["resourceVersion"] = str(self._count)
        edit = (body.get("status") or {}).get("edit") or {}
        if edit.get("accepted") and edit.get("reason") in STARTING:
            self.accepted.add((body["metadata"]["uid"], edit["generation"]))
        self.cache.put(kind, body)

    # The operator.

    def reconcile(self, kind: str, name: str, *, killed: bool = False) -> bool:
        """Decide on an object; `killed` ends the operator between what it does and what it writes. True if news."""
        body = self.cache.get(kind, NAMESPACE, name)
        if body is None:
            return False
        before = self._count
        one = KINDS[kind]
        self._beat()
        decision = one.decide(one.observe(self.world, one.model.of(body)), self.now)
        for action in decision.actions:
            self._perform(action)
        if decision.status is not None and not killed:
            current = copy.deepcopy(self.body(kind, name))
            old = current.get("status") or {}
            new = {**decision.status.dump(), **{key: old[key] for key in one.foreign if key in old}}
            if new != old:
                self._write(kind, {**current, "status": new})
        return self._count != before

    def _beat(self) -> None:
        renewed = self.now.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
        leases = [
            {"metadata": {"namespace": NAMESPACE, "name": name}, "spec": {"renewTime": renewed}}
            for name in self.connected
        ]
        self.heartbeats.learn(leases, self.now)

    def _perform(self, action: Any) -> None:
        match action:
            case CreateOwned():
                if self.cache.get(action.kind, NAMESPACE, action.name) is None:
                    owner = (
                        {"apiVersion": "v1", "kind": "x", "name": "x", "uid": action.owner.uid}
                        if action.owner
                        else None
                    )
                    self._put(action.kind, action.name, dict(action.spec), owner=owner)
                    self.body(action.kind, action.name)["metadata"]["annotations"] = dict(action.annotations)
                    if action.kind == "FailoverRun":
                        self._made(action.name, action.spec)
            case CallService():
                self.called.append(action.step)
            case DeleteOwned():
                found = self.cache.get(action.target.kind, NAMESPACE, action.target.name)
                if found is not None and found["metadata"]["uid"] == action.target.uid:
                    self._count += 1
                    self.cache.drop(action.target.kind, found)
            case SetFinalizer():
                body = copy.deepcopy(self.body(action.target.kind, action.target.name))
                body["metadata"]["finalizers"] = ["farshore.dev/protection"] if action.present else []
                self._write(action.target.kind, body)

    def _made(self, name: str, spec: Json) -> None:
        if name in self.begun:
            known = any(name in self.journals[member["protectedVM"]] for member in spec["members"])
            if not known and any(run == name for run, _, _ in self._done_by):
                self.violations.append(f"run {name} was made again")
            return
        self.begun.append(name)

    def objects(self) -> Iterator[tuple[str, str]]:
        """Return what the operator decides on."""
        for kind in ("ProtectedVM", "FailoverPlan", "FailoverRun"):
            for body in self.cache.all(kind, NAMESPACE):
                yield kind, body["metadata"]["name"]

    def settle(self, rounds: int = 300) -> None:
        """Let operator and appliances work until nothing happens any more."""
        for _ in range(rounds):
            objects = list(self.objects())
            news = [self.reconcile(kind, name) for kind, name in objects]
            if not self.work() and not any(news):
                return
            self.now += timedelta(seconds=1)
        restless = [f"{kind} {name}" for (kind, name), new in zip(objects, news, strict=True) if new]
        raise AssertionError(f"it does not come to rest: {', '.join(restless) or 'the appliances'}")

    def until(self, step: str, rounds: int = 300) -> None:
        """Let everybody work until the task of a step exists, which is not begun."""
        for _ in range(rounds):
            for kind, name in list(self.objects()):
                self.reconcile(kind, name)
            if any(t["spec"].get("step") == step and not t.get("status") for t in self.cache.all("Task", NAMESPACE)):
                return
            self.work()
            self.now += timedelta(seconds=1)
        raise AssertionError(
            f"step {step} does not come: {[(s.name, s.phase) for r in self.runs() for s in r.status.steps]}"
        )

    # The appliances.

    def work(self) -> bool:
        """Let the appliances that are there replicate, and carry out every task."""
        before = self._count
        for body in self.cache.all("ProtectedVM", NAMESPACE):
            self._replicate(body["metadata"]["name"])
        for body in self.cache.all("Task", NAMESPACE):
            self.carry_out(body["metadata"]["name"])
        return self._count != before

    def carry_out(self, name: str, *, heard: bool = True) -> None:
        """Carry a task out; not `heard`: the appliance dies before it reports, and does it again later."""
        body = self.cache.get("Task", NAMESPACE, name)
        if body is None or body["spec"]["processServer"] not in self.connected:
            return
        if (body.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return
        report = self._do(body)
        if heard:
            self._write("Task", {**copy.deepcopy(body), "status": report.model_dump(mode="json", by_alias=True)})

    def _do(self, body: Json) -> TaskReport:
        spec = body["spec"]
        kind, machine, server = TaskKind(spec["kind"]), spec["protectedVM"], spec["processServer"]
        wanted = TaskInput.model_validate(spec["input"])
        entry = wanted.journal
        if entry is not None:
            begun = JournalledRun(run=entry.run, spec=entry.spec, begun_at=self.now)
            self.journals[machine].setdefault(entry.run, begun)
            self._not_again(entry.run, machine, entry.step, body["metadata"]["uid"])
        if kind in self.fail:
            self.fail.discard(kind)
            report = TaskReport(phase=TaskPhase.FAILED, message=f"{kind} was told to fail", finished_at=self.now)
        else:
            report = self._outcome(kind, machine, server, wanted)
        if entry is not None:
            self._end(machine, entry.run, entry.step, report)
            if report.phase is TaskPhase.SUCCEEDED:
                self._done_by[(entry.run, machine, entry.step)] = body["metadata"]["uid"]
        return report

    def _not_again(self, run: str, machine: str, step: str, uid: str) -> None:
        if self._done_by.get((run, machine, step), uid) != uid and step not in ("CleanUp", "Record"):
            self.violations.append(f"{step} of {machine} in {run} was repeated")

    def _end(self, machine: str, run: str, step: str, report: TaskReport) -> None:
        result = report.result.model_dump_json(by_alias=True) if report.result else ""
        ended = JournalledStep(step=step, phase=report.phase, message=report.message, at=self.now, result=result)
        known = self.journals[machine][run]
        rest = tuple(one for one in known.steps if one.step != step)
        self.journals[machine][run] = known.model_copy(update={"steps": (*rest, ended)})

    def _outcome(self, kind: TaskKind, machine: str, server: str, wanted: TaskInput) -> TaskReport:
        try:
            result = self._effect(kind, machine, server, wanted)
        except ValueError as error:
            return TaskReport(phase=TaskPhase.FAILED, message=str(error), finished_at=self.now)
        return TaskReport(phase=TaskPhase.SUCCEEDED, result=result, finished_at=self.now)

    def _effect(self, kind: TaskKind, machine: str, server: str, wanted: TaskInput) -> TaskResult:
        power = self.power[machine]
        other = AWAY if server == HOME else HOME
        if kind is TaskKind.CLEAN_UP:
            self.pins[machine].discard(wanted.pin)
        match kind:
            case TaskKind.FINAL_POINT:
                if not power[server] and self.points[machine]:
                    return TaskResult(point=self.points[machine][-1], confirmed=True)
                power[server] = False
                return TaskResult(point=self._point(machine, self.epochs[machine]), confirmed=True)
            case TaskKind.SHUTDOWN_SOURCE:
                power[server] = False
                return TaskResult(confirmed=True)
            case TaskKind.FENCE:
                self.epochs[machine] = max(self.epochs[machine], wanted.epoch)
            case TaskKind.SELECT_POINT | TaskKind.COMMIT_SPOOL:
                if not self.points[machine]:
                    raise ValueError("there is no point")
                if kind is TaskKind.SELECT_POINT:
                    self.pins[machine].add(wanted.pin)
                return TaskResult(point=self.points[machine][-1])
            case TaskKind.HYDRATE if wanted.replaces:
                power[AWAY] = False
            case TaskKind.START_MACHINE | TaskKind.START_SOURCE:
                if power[other]:
                    self.violations.append(f"{machine} would run twice")
                power[server] = True
                return TaskResult(address="10.160.0.2", port=22, machine_kind="qemu", host_key="ssh-ed25519 AAAA")
            case TaskKind.PROBE_MACHINE:
                if not power[server]:
                    raise ValueError(f"{machine} does not answer at {server}")
                return TaskResult(address="10.160.0.2", port=22, evidence="SSH-2.0")
            case TaskKind.WRITE_BACK:
                if power[server]:
                    self.violations.append(f"the disks of {machine} were written while it runs")
                return TaskResult(bytes_moved=64, bytes_written=64, disks_verified=True)
            case TaskKind.CLEAN_UP if not wanted.keep_machine:
                if server == HOME:
                    self.violations.append(f"the disks of {machine} at home were removed")
                power[server] = False
            case TaskKind.READ_JOURNAL:
                runs = tuple(sorted(self.journals[machine].values(), key=lambda run: run.begun_at))
                return TaskResult(runs=runs, vault_epoch=self.epochs[machine] or None)
        return TaskResult()

    def _point(self, machine: str, epoch: int) -> RecoveryPoint:
        slot = len(self.points[machine]) + 1
        made = RecoveryPoint(
            name=f"p-{slot}",
            slot=slot,
            time=self.now.replace(microsecond=0),
            consistency=Consistency.CRASH,
            epoch=epoch,
        )
        self.points[machine].append(made)
        return made

    def _replicate(self, name: str) -> None:
        body = copy.deepcopy(self.body("ProtectedVM", name))
        status = body.get("status") or {}
        assignment, wish = status.get("assignment"), status.get("desired")
        if not assignment or assignment["processServer"] not in self.connected:
            return
        server, epoch = assignment["processServer"], assignment["epoch"]
        behind = epoch < self.epochs[name]
        on = self.power[name][server]
        replicates = wish == Desired.REPLICATE and not behind and on
        if replicates:
            if assignment["direction"] != (Direction.REVERSE if server == AWAY else Direction.FORWARD):
                self.violations.append(f"{name} is replicated the wrong way")
            self.epochs[name] = epoch
        known = [point for point in self.points[name] if point.epoch == epoch]
        if replicates and not known:
            self._point(name, epoch)
        last = self.points[name][-1] if self.points[name] else None
        report = ReplicationReport(
            process_server=server,
            epoch=epoch,
            state=State.REPLICATING
            if replicates
            else State.STOPPED
            if wish == Desired.STOP
            else State.WAITING_FOR_AGENT,
            agent=AgentReport(version="1", connected=on),
            last_point=last,
            recent_points=tuple(reversed(self.points[name][-5:])),
            point_count=len(self.points[name]),
            vault_epoch=max(self.epochs[name], 0),
        )
        new = report.model_dump(mode="json", by_alias=True)
        if status.get("replication") != new:
            self._write("ProtectedVM", {**body, "status": {**status, "replication": new}})


def registered(now: datetime) -> Json:
    """Return the status of a process server that is there."""
    appliance = {
        "version": "1", "address": "a", "dataPort": 9443, "lastContact": now.isoformat(), "clockSkewSeconds": 0.0,
        "spool": {"usedBytes": 0, "sizeBytes": 1}, "canRunMachines": True,
    }  # fmt: skip
    return {"registration": {"phase": "Registered"}, "appliance": appliance}


def _machine() -> Json:
    return {
        "source": {"siteRef": {"name": "stack"}, "address": "10.0.0.4"},
        "policyRef": {"name": "standard"},
        "vaultRef": {"name": "vault"},
        "target": {"siteRef": {"name": "shore"}},
    }
