"""WriteReport: put a signed report of a run into the machine's part of the vault."""

from __future__ import annotations

import json

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.reportpage import page_of
from farshore_engine.processserver.tasks.context import TaskContext, vault_of


def write_report(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. The same report is written once, however often the task is repeated."""
    try:
        fields = json.loads(task.input.report)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise StopFault("the report is no JSON object", "This is a bug of the operator", reason="BadTask")
    with vault_of(task) as vault:
        written = vault.reports.write(task.run, task.input.report, page_of(fields))
    return TaskResult(report_name=written.name)
