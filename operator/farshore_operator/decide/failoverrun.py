"""Decides on a FailoverRun: which task comes next, what the tasks brought, and when the run is over.

The run's status is its journal. A step that is over stays over; a task that exists is found by its name. So the
operator can be killed at any moment and goes on, and nothing is done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_operator.api import FailoverRun, Task
from farshore_operator.api.failoverrun import FailoverRunStatus, RunKind, RunMember, RunPhase, Step, StepPhase
from farshore_operator.api.task import TaskSpec
from farshore_operator.decide import readiness
from farshore_operator.decide.actions import CreateOwned, DeleteOwned
from farshore_operator.decide.decision import Action, Decision, Outcome
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import MACHINE_LABEL, RUN_LABEL, label
from farshore_operator.decide.naming import task as task_name
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.runreport import next_step, own_conditions, verdict
from farshore_operator.decide.runresults import with_results
from farshore_operator.decide.runsteps import RULES, Side, StepName, StepRule, may_fail, on, sequence, task_input
from farshore_operator.report.conditions import settle

OVERDUE = timedelta(minutes=2)
"""How long after a task's deadline the operator gives it up itself: its process server should have done so."""
AGAIN = timedelta(seconds=20)
CLEAN_UP_AGAIN = timedelta(minutes=1)
"""How long after a failed clean-up it is tried again, by itself."""
FINISHED = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
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
    """

    run: FailoverRun
    tasks: dict[str, Task]
    machines: dict[str, ObservedVM]
    connected: frozenset[str]
    clean_up: bool
    clean_up_at: datetime | None = None
    notes: str | None = None


class _Journal:
    """The steps of a run while a decision is made; the result is frozen again."""

    def __init__(self, observed: ObservedRun, now: datetime) -> None:
        self.observed = observed
        self.now = now
        self.steps = {(step.name, step.member): step for step in observed.run.status.steps}
        self.actions: list[Action] = []

    def get(self, name: str, member: str = "") -> Step | None:
        return self.steps.get((name, member))

    def set(self, name: str, member: str, phase: StepPhase, **fields: object) -> Step:
        old = self.get(name, member)
        base = old or Step(name=name, member=member, phase=phase, started_at=self.now)
        ended = {"finished_at": self.now} if phase not in (StepPhase.PENDING, StepPhase.RUNNING) else {}
        made = base.model_copy(update={"phase": phase, **ended, **fields})
        self.steps[(name, member)] = made
        return made


def decide(observed: ObservedRun, now: datetime) -> Decision[FailoverRunStatus]:
    """Decide on a run."""
    run = observed.run
    if run.metadata.deletion_timestamp:
        return Decision(None)
    now = now.replace(microsecond=0)
    status = run.status
    journal = _Journal(observed, now)
    phase = status.phase or RunPhase.RUNNING
    checks = status.checks
    if observed.clean_up and phase is not RunPhase.CLEANED_UP:
        phase = _clean_up(journal)
    elif phase is RunPhase.RUNNING and run.spec.kind is RunKind.COMMIT:
        phase = RunPhase.SUCCEEDED  # it is a record: nothing is to be done
    elif phase is RunPhase.RUNNING:
        checks, phase = _advance(journal, checks)
    return Decision(_status(journal, phase, checks), tuple(journal.actions), _again(observed, phase, now))


def fold(status: FailoverRunStatus, outcome: Outcome) -> FailoverRunStatus:
    """Take over nothing: tasks are found by their names."""
    return status


def _again(observed: ObservedRun, phase: RunPhase, now: datetime) -> timedelta | None:
    if phase in (RunPhase.RUNNING, RunPhase.CLEANING_UP):
        return AGAIN
    if phase is RunPhase.CLEANED_UP or observed.clean_up_at is None:
        return None
    return max(timedelta(seconds=1), observed.clean_up_at - now)


def _advance(journal: _Journal, checks: tuple[Check, ...]) -> tuple[tuple[Check, ...], RunPhase]:
    if journal.get(StepName.PREREQUISITES) is None:
        checks = _prerequisites(journal)
    begun = journal.get(StepName.PREREQUISITES)
    if begun is not None and begun.phase is StepPhase.FAILED:
        return checks, RunPhase.FAILED
    spec = journal.observed.run.spec
    groups = list(dict.fromkeys(member.group for member in spec.members))
    for group in groups:
        members = [member for member in spec.members if member.group == group]
        states = [_member(journal, member) for member in members]
        if StepPhase.RUNNING in states:
            return checks, RunPhase.RUNNING
        if StepPhase.FAILED in states:
            return checks, RunPhase.FAILED
    return checks, RunPhase.SUCCEEDED


def _prerequisites(journal: _Journal) -> tuple[Check, ...]:
    """Check once, at the start, what a failover needs; hard blockers fail the run, soft ones are warnings."""
    run = journal.observed.run
    checks: list[Check] = []
    for member in run.spec.members:
        machine = journal.observed.machines.get(member.protected_vm)
        if machine is None:
            text = f"ProtectedVM {member.protected_vm} does not exist any more"
            checks.append(Check(name=member.protected_vm, result=CheckResult.ERROR, message=text))
            continue
        found = readiness.blockers(machine, journal.now, ignoring=run.metadata.name)
        for blocker in found:
            result = CheckResult.ERROR if blocker.hard else CheckResult.WARNING
            text = f"{member.protected_vm}: {blocker.message}"
            checks.append(Check(name=f"{member.protected_vm}.{blocker.reason}", result=result, message=text))
        if not member.process_server:
            # It went away between the verdict on the edit and the freeze; nobody would ever take the run's tasks.
            text = (
                f"{member.protected_vm}: no process server of site {member.target_site} could recover it at the start"
            )
            checks.append(Check(name=f"{member.protected_vm}.NoServer", result=CheckResult.ERROR, message=text))
        elif not found:
            text = f"{member.protected_vm} can be recovered by {member.process_server}"
            checks.append(Check(name=member.protected_vm, result=CheckResult.PASSED, message=text))
    errors = [check.message for check in checks if check.result is CheckResult.ERROR]
    phase = StepPhase.FAILED if errors else StepPhase.SUCCEEDED
    journal.set(StepName.PREREQUISITES, "", phase, message="; ".join(errors) or None)
    return tuple(checks)


def _member(journal: _Journal, member: RunMember) -> StepPhase:
    """Take one machine as far as it goes now; RUNNING, SUCCEEDED or FAILED for all its steps together."""
    spec = journal.observed.run.spec
    for rule in sequence(spec):
        step = journal.get(rule.name, member.protected_vm)
        if step is None or step.phase not in (*OVER, StepPhase.FAILED):
            step = _step(journal, member, rule)
        if step.phase in OVER or (step.phase is StepPhase.FAILED and may_fail(spec, rule.name)):
            continue
        return step.phase if step.phase is StepPhase.FAILED else StepPhase.RUNNING
    return StepPhase.SUCCEEDED


def _step(journal: _Journal, member: RunMember, rule: StepRule) -> Step:
    observed, name = journal.observed, member.protected_vm
    run = observed.run.metadata.name
    task = observed.tasks.get(task_name(run, name, rule.name))
    server = on(rule, member)
    if task is None and rule.side is Side.SOURCE and server not in observed.connected:
        return _without_source(journal, member, rule)
    if task is None:
        _ask(journal, member, rule)
        task_ref = task_name(run, name, rule.name)
        return journal.set(rule.name, name, StepPhase.RUNNING, task=task_ref, message=f"asked of {server}")
    report = task.status
    if report is None or report.phase in (TaskPhase.PENDING, TaskPhase.RUNNING):
        return _unfinished(journal, member, rule, task)
    if report.phase is TaskPhase.SUCCEEDED:
        return journal.set(
            rule.name, name, StepPhase.SUCCEEDED, message=report.message or None, remedy=None, percent=None
        )
    return journal.set(
        rule.name, name, StepPhase.FAILED, message=report.message or "it failed", remedy=report.remedy or None
    )


def _without_source(journal: _Journal, member: RunMember, rule: StepRule) -> Step:
    server = member.source_process_server
    why = f"process server {server} of the source is not connected" if server else "no process server serves the source"
    if may_fail(journal.observed.run.spec, rule.name):
        return journal.set(rule.name, member.protected_vm, StepPhase.SKIPPED, message=why)
    remedy = "Set shutdownSource to BestEffort or Never if the source is lost, and start again"
    return journal.set(rule.name, member.protected_vm, StepPhase.FAILED, message=why, remedy=remedy)


def _unfinished(journal: _Journal, member: RunMember, rule: StepRule, task: Task) -> Step:
    report, deadline = task.status, task.spec.deadline
    if deadline is not None and journal.now > deadline + OVERDUE:
        text = f"{task.spec.process_server} has not finished it by {deadline:%Y-%m-%dT%H:%M:%SZ}"
        remedy = "Check that the process server runs and is connected, and start again"
        return journal.set(rule.name, member.protected_vm, StepPhase.FAILED, message=text, remedy=remedy)
    told = report.message if report and report.message else f"asked of {task.spec.process_server}"
    if task.spec.process_server not in journal.observed.connected:
        told = f"process server {task.spec.process_server} is not connected; it goes on when that returns. {told}"
    return journal.set(
        rule.name,
        member.protected_vm,
        StepPhase.RUNNING,
        task=task.metadata.name,
        percent=report.percent if report else None,
        message=told,
        remedy=(report.remedy or None) if report else None,
    )


def _ask(journal: _Journal, member: RunMember, rule: StepRule) -> None:
    run = journal.observed.run
    point = _point(journal, member)
    spec = TaskSpec(
        kind=rule.kind,
        process_server=on(rule, member),
        run=run.metadata.name,
        step=rule.name.value,
        protected_vm=member.protected_vm,
        input=task_input(run.spec, run.metadata.name, member, rule, point),
        deadline=journal.now + rule.limit,
    )
    name = task_name(run.metadata.name, member.protected_vm, rule.name)
    labels = {RUN_LABEL: label(run.metadata.name), MACHINE_LABEL: label(member.protected_vm)}
    journal.actions.append(CreateOwned("Task", run.metadata.namespace, name, spec.dump(), id_of(run), labels))


def _point(journal: _Journal, member: RunMember) -> str:
    name = task_name(journal.observed.run.metadata.name, member.protected_vm, StepName.SELECT_POINT)
    task = journal.observed.tasks.get(name)
    if task is not None and task.status and task.status.result and task.status.result.point:
        return task.status.result.point.name
    kept = next((m for m in journal.observed.run.status.members if m.protected_vm == member.protected_vm), None)
    return kept.point.name if kept and kept.point else ""


def _clean_up(journal: _Journal) -> RunPhase:
    """Remove what the run made: for each machine that the recovery site was ever asked about."""
    run = journal.observed.run
    for key, step in list(journal.steps.items()):
        if step.phase in (StepPhase.PENDING, StepPhase.RUNNING) and step.name != StepName.CLEAN_UP:
            journal.set(*key, StepPhase.SKIPPED, message="called off: the run is cleaned up")
    for task in journal.observed.tasks.values():
        # A process server that restarts would begin an unfinished task again, after the clean-up.
        if task.spec.kind is not TaskKind.CLEAN_UP and (task.status is None or task.status.phase not in FINISHED):
            journal.actions.append(DeleteOwned(id_of(task)))
    touched = [member for member in run.spec.members if _touched(journal, member)]
    states = [_clean_member(journal, member) for member in touched]
    return RunPhase.CLEANED_UP if all(state in OVER for state in states) else RunPhase.CLEANING_UP


def _clean_member(journal: _Journal, member: RunMember) -> StepPhase:
    rule = RULES[StepName.CLEAN_UP]
    name = member.protected_vm
    step = journal.get(rule.name, name)
    if step is not None and step.phase in OVER:
        return step.phase
    task = journal.observed.tasks.get(task_name(journal.observed.run.metadata.name, name, rule.name))
    if step is not None and step.phase is StepPhase.FAILED and task is not None:
        ended = step.finished_at or journal.now
        if journal.now - ended >= CLEAN_UP_AGAIN:
            # The task is the record of an attempt; the next one gets its name.
            journal.actions.append(DeleteOwned(id_of(task)))
            return journal.set(rule.name, name, StepPhase.RUNNING, message="tried again", finished_at=None).phase
        return step.phase
    return _step(journal, member, rule).phase


def _touched(journal: _Journal, member: RunMember) -> bool:
    run = journal.observed.run.metadata.name
    names = (StepName.SELECT_POINT, StepName.HYDRATE, StepName.START_MACHINE, StepName.PROBE, StepName.CLEAN_UP)
    return any(
        journal.get(name, member.protected_vm) is not None
        or task_name(run, member.protected_vm, name) in journal.observed.tasks
        for name in names
    )


def _status(journal: _Journal, phase: RunPhase, checks: tuple[Check, ...]) -> FailoverRunStatus:
    run, now = journal.observed.run, journal.now
    old = run.status
    begun = old.started_at or run.metadata.creation_timestamp or now
    over = phase not in (RunPhase.PENDING, RunPhase.RUNNING)
    base = old.model_copy(
        update={
            "observed_generation": run.metadata.generation,
            "phase": phase,
            "started_at": begun,
            "finished_at": old.finished_at or (now if over else None),
            "cleaned_up_at": old.cleaned_up_at or (now if phase is RunPhase.CLEANED_UP else None),
            "steps": _in_order(journal),
            "checks": checks,
            "notes": journal.observed.notes or old.notes,
        }
    )
    full = with_results(run, base, journal.observed.tasks, journal.observed.machines)
    health = verdict(full)
    conditions = settle(old.conditions, health, own_conditions(old, full), run.metadata.generation, now)
    return full.model_copy(update={"conditions": conditions, "next_step": next_step(run, full, health)})


def _in_order(journal: _Journal) -> tuple[Step, ...]:
    rank = {name.value: number for number, name in enumerate(StepName)}
    members = {member.protected_vm: number for number, member in enumerate(journal.observed.run.spec.members)}
    return tuple(
        sorted(journal.steps.values(), key=lambda step: (members.get(step.member, -1), rank.get(step.name, len(rank))))
    )
