"""The report of a run for the vault: what it says, when it is written, and what is known of the writing.

It is asked for when a run is over, and again when more is known of it: it was cleaned up, or its notes were edited. A
report that cannot be written fails nothing: the run's condition says so.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

from farshore_engine.contract.tasks import TaskInput, TaskKind, TaskPhase
from farshore_operator.api import Task
from farshore_operator.api.failoverrun import FailoverRunStatus, MemberResult, RunKind, RunMember, RunPhase
from farshore_operator.api.task import TaskSpec
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.decision import Action
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import MACHINE_LABEL, RUN_LABEL, label
from farshore_operator.decide.naming import task as task_name
from farshore_operator.decide.runjournal import Journal
from farshore_operator.report.conditions import Seen

STEP = "WriteReport"
WRITTEN = "ReportWritten"
LIMIT = timedelta(days=1)
OVER = (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.ABORTED, RunPhase.CLEANED_UP)
REPORTED = (RunKind.TEST_FAILOVER, RunKind.FAILOVER, RunKind.FAILBACK, RunKind.CHANGE_POINT, RunKind.ABORT)
RESULTS = {"True": "Succeeded", "False": "Failed"}


def reports_due(journal: Journal, status: FailoverRunStatus) -> tuple[Action, ...]:
    """Return the tasks that write the reports of a run, one for each machine; none before it is over."""
    run = journal.observed.run
    if status.phase not in OVER or run.spec.kind not in REPORTED:
        return ()
    due = (_task(journal, status, member) for member in run.spec.members if member.process_server)
    return tuple(action for action in due if action is not None)


def with_reports(journal: Journal, status: FailoverRunStatus) -> FailoverRunStatus:
    """Return the status with the names of the newest reports that were written."""
    names = {member.protected_vm: _newest(journal, member.protected_vm) for member in status.members}
    members = tuple(
        member.model_copy(update={"report": names[member.protected_vm] or member.report}) for member in status.members
    )
    return status.model_copy(update={"members": members})


def report_conditions(journal: Journal, status: FailoverRunStatus) -> tuple[Seen, ...]:
    """Return whether the vault has the run's reports; nothing before any was asked for."""
    tasks = _tasks(journal)
    if not tasks:
        old = journal.observed.run.status.condition(WRITTEN)
        return (Seen(WRITTEN, old.status.value == "True", old.reason, old.message),) if old else ()
    failed = [task for task in tasks if _phase(task) is TaskPhase.FAILED]
    if failed:
        report = failed[-1].status
        text = f"the report of {failed[-1].spec.protected_vm} was not written: {report.message if report else ''}"
        return (Seen(WRITTEN, False, "NotWritten", text),)
    waiting = [task.spec.protected_vm for task in tasks if _phase(task) is not TaskPhase.SUCCEEDED]
    if waiting:
        return (Seen(WRITTEN, False, "Writing", f"the report of {', '.join(sorted(waiting))} is being written"),)
    run = journal.observed.run.metadata.name
    text = f"signed reports are in the vault: farshore vault report {journal.observed.run.spec.members[0].machine_id}"
    return (Seen(WRITTEN, True, "InTheVault", f"{text} {run}"),)


def report_of(journal: Journal, status: FailoverRunStatus, member: RunMember) -> dict[str, Any]:
    """Return what there is to say of one machine of a run; `docs/vault-format.md` lists the fields."""
    run = journal.observed.run
    spec = run.spec
    found = next((m for m in status.members if m.protected_vm == member.protected_vm), None)
    result = found or MemberResult(protected_vm=member.protected_vm)
    point = result.point
    verdict = status.condition("Succeeded")
    asked = spec.requested_by
    fields: dict[str, Any] = {
        "run": run.metadata.name,
        "kind": spec.kind.value,
        "owner": f"{spec.owner.kind} {spec.owner.name}",
        "requestedBy": ", ".join(filter(None, (asked.user, asked.field_manager, asked.revision))) if asked else None,
        "machine": member.machine_id,
        "result": RESULTS.get(verdict.status.value) if verdict else None,
        "startedAt": _time(status.started_at),
        "finishedAt": _time(status.finished_at),
        "cleanedUpAt": _time(status.cleaned_up_at),
        "sourceSite": member.source_site,
        "targetSite": member.target_site,
        "recoveredAs": member.target_name,
        "network": member.network,
        "recoveryPoint": point.name if point else None,
        "pointTime": _time(point.time) if point else None,
        "consistency": point.consistency.value if point else None,
        "rpoSeconds": result.rpo_seconds,
        "rtoSeconds": result.rto_seconds,
        "diskBytes": result.disk_bytes,
        "bytesMoved": result.bytes_moved,
        "disksVerified": result.disks_verified,
        "probes": [
            {"name": p.name, "result": "Passed" if p.passed else "Failed", "answer": p.answer, "seconds": p.seconds}
            for p in result.probes
        ],
        "steps": [
            {
                "name": step.name,
                "phase": step.phase.value,
                "startedAt": _time(step.started_at),
                "finishedAt": _time(step.finished_at),
                "message": step.message,
            }
            for step in status.steps
            if step.member in ("", member.protected_vm)
        ],
        "checks": [
            {"name": check.name, "result": check.result.value, "message": check.message}
            for check in status.checks
            if check.name.partition(".")[0] == member.protected_vm
        ],
        "changes": list(journal.result("PrepareGuest", member.protected_vm).changes),
        "removed": list(result.removed),
        "notes": status.notes,
    }
    return {name: value for name, value in fields.items() if value not in (None, [], "")}


def _task(journal: Journal, status: FailoverRunStatus, member: RunMember) -> CreateOwned | None:
    run = journal.observed.run
    about = f"{status.phase is RunPhase.CLEANED_UP}\0{status.notes or ''}"
    number = hashlib.sha256(about.encode()).hexdigest()[:8]
    name = task_name(run.metadata.name, member.protected_vm, f"{STEP}-{number}")
    if name in journal.observed.tasks:
        return None
    spec = TaskSpec(
        kind=TaskKind.WRITE_REPORT,
        process_server=member.process_server,
        run=run.metadata.name,
        step=STEP,
        protected_vm=member.protected_vm,
        input=TaskInput(
            machine_id=member.machine_id, report=json.dumps(report_of(journal, status, member), sort_keys=True)
        ),
        deadline=journal.now + LIMIT,
    )
    labels = {RUN_LABEL: label(run.metadata.name), MACHINE_LABEL: label(member.protected_vm)}
    return CreateOwned("Task", run.metadata.namespace, name, spec.dump(), id_of(run), labels)


def _tasks(journal: Journal) -> list[Task]:
    """Return the tasks that write reports, oldest first."""
    found = [task for task in journal.observed.tasks.values() if task.spec.kind is TaskKind.WRITE_REPORT]
    return sorted(found, key=lambda task: (task.spec.deadline or journal.now, task.metadata.name))


def _newest(journal: Journal, machine: str) -> str | None:
    names = [
        task.status.result.report_name
        for task in _tasks(journal)
        if task.spec.protected_vm == machine and task.status and task.status.result and task.status.result.report_name
    ]
    return max(names, default=None)


def _phase(task: Task) -> TaskPhase:
    return task.status.phase if task.status else TaskPhase.PENDING


def _time(value: datetime | None) -> str | None:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value else None
