"""A run as decisions see it, and its journal while one is made. Whatever carries out a step of a run writes here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from farshore_engine.contract.tasks import JournalledRun, TaskPhase, TaskResult
from farshore_operator.api import Approval, FailoverRun, Task
from farshore_operator.api.failoverrun import RunMember, Step, StepPhase
from farshore_operator.decide.actions import JobFacts
from farshore_operator.decide.decision import Action
from farshore_operator.decide.naming import task as task_name
from farshore_operator.decide.observedvm import ObservedVM

OVER = (StepPhase.SUCCEEDED, StepPhase.SKIPPED)


@dataclass(frozen=True)
class ObservedRun:
    """A run, its tasks, and what it rests on.

    Attributes:
        tasks: the run's tasks by name.
        machines: the members that exist, by name.
        connected: names of the process servers whose heartbeat arrives.
        clean_up: whether what the run made is to be removed now.
        clean_up_at: when that will be so by itself.
        notes: the drill's notes.
        history: what the vault's journal tells of this run, by member, when it was read: a run that was begun under
            another control plane.
        called_off: whether the plan's `abort` names the run while it is under way.
        approvals: what people said to this run's hooks.
        jobs: the Jobs of its hooks that exist, by name.
    """

    run: FailoverRun
    tasks: dict[str, Task]
    machines: dict[str, ObservedVM]
    connected: frozenset[str]
    clean_up: bool
    clean_up_at: datetime | None = None
    notes: str | None = None
    history: dict[str, JournalledRun] = field(default_factory=dict)
    called_off: bool = False
    approvals: tuple[Approval, ...] = ()
    jobs: dict[str, JobFacts] = field(default_factory=dict)


class Journal:
    """The steps of a run while a decision is made. Not thread-safe.

    Attributes:
        observed: what the decision is made from; it does not change.
        now: when.
        steps: by name and member ("" for steps of the whole run); write with `set`.
        actions: what is to be done; append here.
    """

    def __init__(self, observed: ObservedRun, now: datetime) -> None:
        """Begin with the steps in the run's status."""
        self.observed = observed
        self.now = now
        self.steps = {(step.name, step.member): step for step in observed.run.status.steps}
        self.actions: list[Action] = []

    def get(self, name: str, member: str = "") -> Step | None:
        """Return a step, None before it began."""
        return self.steps.get((name, member))

    def set(self, name: str, member: str, phase: StepPhase, **fields: object) -> Step:
        """Write a step: it begins now if it is new, and ends now if `phase` is final. `fields` are those of `Step`."""
        old = self.get(name, member)
        base = old or Step(name=name, member=member, phase=phase, started_at=self.now)
        ended = {"finished_at": self.now} if phase not in (StepPhase.PENDING, StepPhase.RUNNING) else {}
        made = base.model_copy(update={"phase": phase, **ended, **fields})
        self.steps[(name, member)] = made
        return made

    def task(self, name: str, member: str) -> Task | None:
        """Return the task that carries a step out, None before it was asked for."""
        return self.observed.tasks.get(task_name(self.observed.run.metadata.name, member, name))

    def result(self, name: str, member: str) -> TaskResult:
        """Return what a step brought, by its task or by the vault's journal; an empty result until it ended."""
        task = self.task(name, member)
        if (
            task is not None
            and task.status is not None
            and task.status.phase in (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
        ):
            return task.status.result or TaskResult()
        known = self.observed.history.get(member)
        for step in reversed(known.steps if known else ()):
            if step.step == name and step.result:
                try:
                    return TaskResult.model_validate_json(step.result)
                except (
                    ValidationError
                ):  # written by another version: what the step brought is not needed to know it over
                    return TaskResult()
        return TaskResult()

    def point(self, member: RunMember) -> str:
        """Return the name of the point that was chosen for a machine, empty before it is."""
        name = member.protected_vm
        chosen = self.result("SelectPoint", name).point
        if chosen is not None:
            return chosen.name
        kept = next((m for m in self.observed.run.status.members if m.protected_vm == name), None)
        return kept.point.name if kept and kept.point else ""
