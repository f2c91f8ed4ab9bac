"""The runs of the story: their steps and their tasks' inputs are those of the product's own tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.azure.story.clouds import AZURE_GROUP, NETWORK, Clouds
from tests.azure.story.machines import Actor
from tests.azure.story.servers import Clock, Server

from farshore_engine.contract.assignment import Source, VaultAccess
from farshore_engine.contract.points import Selector
from farshore_engine.contract.site import CloudSite, CloudTarget
from farshore_engine.contract.tasks import TaskAssignment, TaskPhase, TaskReport, TaskResult
from farshore_operator.api.failoverplan import Mode, ShutdownSource
from farshore_operator.api.failoverrun import FailoverRunSpec, Owner, RunKind, RunMember
from farshore_operator.decide.runspec import hashed
from farshore_operator.decide.runsteps import (
    RULES,
    STOPPING,
    Side,
    StepName,
    StepRule,
    limit,
    may_fail,
    on,
    sequence,
    task_input,
)
from farshore_operator.kube.appliance.resolve import IN_CLOUD, LOGS_IN

AZURE, HUB = "ps-azure", "ps-hub"
STARTS = (StepName.START_MACHINE, StepName.START_SOURCE)


@dataclass
class Failed(Exception):
    """A run that ended at a step: what its task reported."""

    run: str
    step: StepName
    member: str
    report: TaskReport

    def __str__(self) -> str:
        return f"{self.run}: {self.step} of {self.member}: {self.report.message} [{self.report.remedy}]"


@dataclass
class Run:
    """A run, and what it has done: results by step and machine."""

    name: str
    spec: FailoverRunSpec
    points: dict[str, str] = field(default_factory=dict)
    results: dict[tuple[StepName, str], TaskResult] = field(default_factory=dict)
    begun: set[tuple[StepName, str]] = field(default_factory=set)

    def did(self, member: str, *steps: StepName) -> bool:
        return any((step, member) in self.results for step in steps)


@dataclass(repr=False)
class Stage:
    """Everything that runs are carried out with."""

    clouds: Clouds
    servers: dict[str, Server]
    sites: dict[str, CloudSite]
    vault: VaultAccess
    actors: dict[str, Actor]
    clock: Clock
    replicate: Callable[[Actor], object]
    together: bool = False
    runs: list[Run] = field(default_factory=list)

    # runs

    def drill(self, name: str) -> Run:
        """A test failover of all machines, each on the drill's own network."""
        members = []
        for actor in self.actors.values():
            target = CloudTarget(network=f"drill-{name}", isolated=True, resource_group=AZURE_GROUP)
            members.append(self._away(actor, f"{actor.at_azure}-{name}", target))
        return self._run(name, RunKind.TEST_FAILOVER, members, Selector.LATEST_PROCESSED)

    def failover(self, name: str) -> Run:
        """A failover with the source machines switched off first."""
        members = []
        for actor in self.actors.values():
            target = CloudTarget(network=NETWORK, private_ip=actor.away, tags={"team": "shop"})
            members.append(self._away(actor, actor.at_azure, target))
        return self._run(name, RunKind.FAILOVER, members, Selector.LATEST)

    def failback(self, name: str, recovered: Run) -> Run:
        """A planned failback of what a run recovered."""
        members = [
            RunMember(
                protected_vm=actor.name, machine_id=actor.machine_id, vault="v", source_site="azure", target_site="hub",
                source_process_server=AZURE, process_server=HUB, epoch=actor.epoch, source_machine=actor.at_azure,
                target_name=actor.name,
            )
            for actor in self.actors.values()
        ]  # fmt: skip
        return self._run(name, RunKind.FAILBACK, members, Selector.LATEST, mode=Mode.PLANNED)

    def following(self, name: str, previous: Run, kind: RunKind, point: dict[str, str] | None = None) -> Run:
        """What commits, undoes, reverses or replaces a run, as `decide/planruns` makes it."""
        old, members = previous.spec, []
        for member in old.members:
            begun = {step for step, name in previous.begun if name == member.protected_vm}
            arrived = not begun.isdisjoint(STARTS)
            unsure = not (arrived or begun.isdisjoint(STOPPING)) and kind is RunKind.ABORT
            update = {
                "stopped": member.stopped or previous.did(member.protected_vm, *STOPPING) or unsure,
                "arrived": arrived and kind is RunKind.ABORT,
                "point": previous.points.get(member.protected_vm) or member.point,
                "epoch": max(member.epoch, self.actors[member.protected_vm].epoch),
                "delete_points": True if kind is RunKind.COMMIT else None,
                "recovery_point": (point or {}).get(member.protected_vm),
            }
            members.append(member.model_copy(update=update))
        moved = RunKind.FAILBACK if RunKind.FAILBACK in (old.kind, old.undoes) else RunKind.FAILOVER
        undoes = None if kind is RunKind.REPROTECT else moved
        more = {"previous_run": previous.name, "undoes": undoes}
        return self._run(name, kind, members, old.recovery_point, mode=old.mode, **more)

    def _away(self, actor: Actor, name: str, target: CloudTarget) -> RunMember:
        return RunMember(
            protected_vm=actor.name, machine_id=actor.machine_id, vault="v", source_site="hub", target_site="azure",
            source_process_server=HUB, process_server=AZURE, epoch=actor.epoch, source_machine=actor.name,
            target_name=name, network=target.network, provider="azure", target=target,
        )  # fmt: skip

    def _run(
        self,
        name: str,
        kind: RunKind,
        members: Sequence[RunMember],
        point: str,
        mode: Mode = Mode.UNPLANNED,
        **more: object,
    ) -> Run:
        moves = kind in (RunKind.FAILOVER, RunKind.FAILBACK)
        spec = FailoverRunSpec(
            kind=kind, owner=Owner(kind="FailoverPlan", name="shop", uid="u", generation=1), inputs_hash="",
            recovery_point=point, mode=mode, members=tuple(members),
            shutdown_source=ShutdownSource.REQUIRED if moves else ShutdownSource.NEVER,
            sequence=0 if kind is RunKind.TEST_FAILOVER else len(self.runs) + 1, **more,
        )  # fmt: skip
        made = Run(name, hashed(spec))
        self.runs.append(made)
        return made

    # carrying out

    def play(self, run: Run, steps: Sequence[StepRule] = ()) -> Run:
        """Carry out all steps of a run for all its machines (or `steps` instead).

        Raises:
            Failed: a step failed, and the run ends there.
        """
        if not self.together:
            for member in run.spec.members:
                self._member(run, member, steps)
            return run
        with ThreadPoolExecutor(len(run.spec.members)) as pool:
            for done in [pool.submit(self._member, run, member, steps) for member in run.spec.members]:
                done.result()
        return run

    def clean_up(self, run: Run) -> Run:
        """Remove what a drill made, as the operator does."""
        return self.play(run, [RULES[StepName.CLEAN_UP]])

    def _member(self, run: Run, member: RunMember, steps: Sequence[StepRule]) -> None:
        actor = self.actors[member.protected_vm]
        for rule in steps or sequence(run.spec, member):
            if rule.kind is None:
                self.replicate(actor)
                continue
            report = self._step(run, member, rule, actor)
            if report.phase is not TaskPhase.SUCCEEDED:
                if may_fail(run.spec, rule.name):
                    continue
                raise Failed(run.name, rule.name, actor.name, report)
            assert report.result is not None
            run.results[rule.name, actor.name] = report.result
            self._note(run, actor, rule, report.result)

    def _step(self, run: Run, member: RunMember, rule: StepRule, actor: Actor) -> TaskReport:
        assert rule.kind is not None
        server = on(rule, member)
        point = run.points.get(actor.name) or member.point or ""
        last = run.results.get((StepName.FINAL_POINT, actor.name))
        selector = last.point.name if last is not None and last.point is not None else member.recovery_point or ""
        if rule.name is StepName.FENCE:
            actor.epoch = max(actor.epoch, member.epoch + 1)  # from now on it may have been written
        run.begun.add((rule.name, actor.name))
        here = actor.home if server == HUB else actor.away
        task = TaskAssignment(
            name=f"{run.name}-{actor.name}-{rule.name.lower()}", kind=rule.kind, run=run.name, vault=self.vault,
            input=task_input(run.spec, run.name, member, rule, point=point, selector=selector),
            site=self.sites[server] if rule.kind in IN_CLOUD else None,
            source=Source(address=here) if rule.kind in LOGS_IN else None,
            deadline=self.clock.now() + limit(run.spec, member, rule),
        )  # fmt: skip
        return self.servers[server].carry_out(task)

    def _note(self, run: Run, actor: Actor, rule: StepRule, result: TaskResult) -> None:
        if rule.name is StepName.SELECT_POINT and result.point is not None:
            run.points[actor.name] = result.point.name


__all__ = ["AZURE", "HUB", "Failed", "Run", "Side", "Stage"]
