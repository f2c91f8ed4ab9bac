"""ReadJournal: tell a fresh control plane what the vault knows of a machine's runs, and the epoch of its chain."""

from __future__ import annotations

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.runjournal import NOT_THERE, read_runs
from farshore_engine.processserver.tasks.context import TaskContext, vault_of


def read_journal(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A machine of which the vault has nothing has no runs and no epoch."""
    try:
        with vault_of(task) as vault:
            epoch = vault.catalogue(newest=1).epoch
            return TaskResult(runs=read_runs(vault), vault_epoch=epoch or None)
    except StopFault as fault:
        if fault.reason in NOT_THERE and task.vault is not None:
            return TaskResult()
        raise
