"""Takes one machine of a run through its steps: asks for a task, reads what it brought, gives it up when it is late."""

from __future__ import annotations

from datetime import timedelta

from farshore_engine.contract.assignment import Direction
from farshore_engine.contract.points import Selector
from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_operator.api import Task
from farshore_operator.api.failoverplan import Mode
from farshore_operator.api.failoverrun import RunKind, RunMember, Step, StepPhase
from farshore_operator.api.task import TaskSpec
from farshore_operator.decide import machineruns
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import MACHINE_LABEL, RUN_LABEL, label
from farshore_operator.decide.naming import task as task_name
from farshore_operator.decide.runjournal import OVER, Journal
from farshore_operator.decide.runsteps import StepName, StepRule, limit, may_fail, on, sequence, task_input

LEAVING = (StepName.COMMIT_SPOOL, StepName.SHUTDOWN_SOURCE, StepName.FINAL_POINT)
"""Steps at the site that is left, which may be lost: nobody waits for it."""
MOVES = (RunKind.FAILOVER, RunKind.FAILBACK)
OVERDUE = timedelta(minutes=2)
"""How long after a task's deadline the operator gives it up itself: its process server should have done so."""


def advance_member(journal: Journal, member: RunMember) -> StepPhase:
    """Take one machine as far as it goes now; RUNNING, SUCCEEDED or FAILED for all its steps together."""
    spec = journal.observed.run.spec
    for rule in sequence(spec, member):
        step = journal.get(rule.name, member.protected_vm)
        if step is None or step.phase not in (*OVER, StepPhase.FAILED):
            step = take_step(journal, member, rule)
        if step.phase in OVER or (step.phase is StepPhase.FAILED and may_fail(spec, rule.name)):
            continue
        return step.phase if step.phase is StepPhase.FAILED else StepPhase.RUNNING
    return StepPhase.SUCCEEDED


def take_step(journal: Journal, member: RunMember, rule: StepRule) -> Step:
    """Take one step as far as it goes now: ask for its task, or read what that says."""
    observed, name = journal.observed, member.protected_vm
    task = journal.task(rule.name, name)
    server = on(rule, member)
    if rule.kind is None:
        return _watched(journal, member, rule)
    if task is None and rule.name in LEAVING and server not in observed.connected:
        return _without_source(journal, member, rule)
    if task is None:
        _ask(journal, member, rule)
        task_ref = task_name(observed.run.metadata.name, name, rule.name)
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


def _watched(journal: Journal, member: RunMember, rule: StepRule) -> Step:
    """Wait until the machine's status says that the step is done."""
    name = member.protected_vm
    machine = journal.observed.machines.get(name)
    if machine is not None and machineruns.direction(machine) is Direction.REVERSE and machineruns.caught_up(machine):
        point = machine.report.last_point if machine.report is not None else None
        text = f"recovery point {point.name} was taken at the recovery site" if point is not None else None
        return journal.set(rule.name, name, StepPhase.SUCCEEDED, message=text)
    report = machine.report if machine is not None else None
    told = report.message if report is not None and report.message else "the first recovery point is awaited"
    return journal.set(rule.name, name, StepPhase.RUNNING, message=told)


def _without_source(journal: Journal, member: RunMember, rule: StepRule) -> Step:
    server = member.source_process_server
    why = f"process server {server} of the source is not connected" if server else "no process server serves the source"
    if may_fail(journal.observed.run.spec, rule.name):
        return journal.set(rule.name, member.protected_vm, StepPhase.SKIPPED, message=why)
    remedy = "Set shutdownSource to BestEffort or Never if the source is lost, and start again"
    if rule.name is StepName.FINAL_POINT:
        remedy = "Set mode to unplanned if the site is lost, and start again"
    return journal.set(rule.name, member.protected_vm, StepPhase.FAILED, message=why, remedy=remedy)


def _unfinished(journal: Journal, member: RunMember, rule: StepRule, task: Task) -> Step:
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


def final_point(journal: Journal, member: RunMember) -> str:
    """Return what a planned move recovers: the point taken while the machine was switched off; empty for others."""
    if journal.observed.run.spec.mode is not Mode.PLANNED or journal.observed.run.spec.kind not in MOVES:
        return ""
    final = journal.result(StepName.FINAL_POINT, member.protected_vm).point
    kept = next((m for m in journal.observed.run.status.members if m.protected_vm == member.protected_vm), None)
    known = kept.final_point if kept is not None else None
    return final.name if final is not None else known or Selector.LATEST_PROCESSED


def _ask(journal: Journal, member: RunMember, rule: StepRule) -> None:
    assert rule.kind is not None, "a step that is watched has no task"
    run, name = journal.observed.run, member.protected_vm
    selector = final_point(journal, member)
    notes = journal.observed.notes if rule.kind is TaskKind.CLEAN_UP else None
    spec = TaskSpec(
        kind=rule.kind,
        process_server=on(rule, member),
        run=run.metadata.name,
        step=rule.name.value,
        protected_vm=name,
        input=task_input(
            run.spec,
            run.metadata.name,
            member,
            rule,
            point=journal.point(member),
            selector=selector or member.recovery_point or "",
        ).model_copy(update={"notes": notes or ""}),
        deadline=journal.now + limit(run.spec, member, rule),
    )
    labels = {RUN_LABEL: label(run.metadata.name), MACHINE_LABEL: label(name)}
    made = task_name(run.metadata.name, name, rule.name)
    journal.actions.append(CreateOwned("Task", run.metadata.namespace, made, spec.dump(), id_of(run), labels))
