"""The executors of tasks at a site of provider azureStackHub, beside those that are the same everywhere."""

from __future__ import annotations

from farshore_engine.azurestack.tasks.finalpoint import final_point
from farshore_engine.azurestack.tasks.prepareguest import prepare_guest
from farshore_engine.azurestack.tasks.probemachine import probe_machine
from farshore_engine.azurestack.tasks.refused import refused
from farshore_engine.azurestack.tasks.shutdownsource import shutdown_source
from farshore_engine.azurestack.tasks.startsource import start_source
from farshore_engine.azurestack.tasks.writeback import write_back
from farshore_engine.contract.tasks import TaskKind
from farshore_engine.processserver.tasks.context import Executor

__all__ = ["EXECUTORS"]


EXECUTORS: dict[TaskKind, Executor] = {
    TaskKind.SHUTDOWN_SOURCE: shutdown_source,
    TaskKind.FINAL_POINT: final_point,
    TaskKind.WRITE_BACK: write_back,
    TaskKind.PREPARE_GUEST: prepare_guest,
    TaskKind.START_SOURCE: start_source,
    TaskKind.PROBE_MACHINE: probe_machine,
    TaskKind.HYDRATE: refused,
    TaskKind.START_MACHINE: refused,
}
