"""The executors of tasks at a site of provider azure, where they differ from those of a local site."""

from __future__ import annotations

from farshore_engine.azure.tasks.cleanup import clean_up
from farshore_engine.azure.tasks.power import final_point, shutdown_source, start_source
from farshore_engine.azure.tasks.probemachine import probe_machine
from farshore_engine.azure.tasks.stage import hydrate, prepare_guest
from farshore_engine.azure.tasks.startmachine import start_machine
from farshore_engine.azure.tasks.uploaddisks import upload_disks
from farshore_engine.contract.tasks import TaskKind
from farshore_engine.processserver.tasks.context import Executor

__all__ = ["EXECUTORS"]

EXECUTORS: dict[TaskKind, Executor] = {
    TaskKind.HYDRATE: hydrate,
    TaskKind.PREPARE_GUEST: prepare_guest,
    TaskKind.UPLOAD_DISKS: upload_disks,
    TaskKind.START_MACHINE: start_machine,
    TaskKind.PROBE_MACHINE: probe_machine,
    TaskKind.CLEAN_UP: clean_up,
    TaskKind.SHUTDOWN_SOURCE: shutdown_source,
    TaskKind.FINAL_POINT: final_point,
    TaskKind.START_SOURCE: start_source,
}
