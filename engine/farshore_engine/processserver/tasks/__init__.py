"""The executors of tasks: one file for each kind, each repeatable after a crash at any moment."""

from __future__ import annotations

from farshore_engine.contract.tasks import TaskKind
from farshore_engine.processserver.tasks.cleanup import clean_up
from farshore_engine.processserver.tasks.commitspool import commit_spool
from farshore_engine.processserver.tasks.context import Executor, TaskContext
from farshore_engine.processserver.tasks.deletepoints import delete_points
from farshore_engine.processserver.tasks.fence import fence
from farshore_engine.processserver.tasks.finalpoint import final_point
from farshore_engine.processserver.tasks.hydrate import hydrate
from farshore_engine.processserver.tasks.note import note
from farshore_engine.processserver.tasks.preflight import preflight
from farshore_engine.processserver.tasks.prepareguest import prepare_guest
from farshore_engine.processserver.tasks.probemachine import probe_machine
from farshore_engine.processserver.tasks.readjournal import read_journal
from farshore_engine.processserver.tasks.selectpoint import select_point
from farshore_engine.processserver.tasks.shutdownsource import shutdown_source
from farshore_engine.processserver.tasks.startmachine import start_machine
from farshore_engine.processserver.tasks.startsource import start_source
from farshore_engine.processserver.tasks.writeback import write_back
from farshore_engine.processserver.tasks.writereport import write_report

__all__ = ["EXECUTORS", "Executor", "TaskContext"]

EXECUTORS: dict[TaskKind, Executor] = {
    TaskKind.PREFLIGHT: preflight,
    TaskKind.COMMIT_SPOOL: commit_spool,
    TaskKind.SELECT_POINT: select_point,
    TaskKind.SHUTDOWN_SOURCE: shutdown_source,
    TaskKind.FENCE: fence,
    TaskKind.HYDRATE: hydrate,
    TaskKind.START_MACHINE: start_machine,
    TaskKind.PROBE_MACHINE: probe_machine,
    TaskKind.CLEAN_UP: clean_up,
    TaskKind.DELETE_POINTS: delete_points,
    TaskKind.WRITE_REPORT: write_report,
    TaskKind.READ_JOURNAL: read_journal,
    TaskKind.NOTE: note,
    TaskKind.FINAL_POINT: final_point,
    TaskKind.START_SOURCE: start_source,
    TaskKind.WRITE_BACK: write_back,
    TaskKind.PREPARE_GUEST: prepare_guest,
}
