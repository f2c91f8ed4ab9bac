"""The executors of tasks at a site of provider azureStackHub, beside those that are the same everywhere."""

from __future__ import annotations

from functools import partial

from farshore_engine.azurestack.tasks.finalpoint import final_point
from farshore_engine.azurestack.tasks.prepareguest import prepare_guest
from farshore_engine.azurestack.tasks.probemachine import probe_machine
from farshore_engine.azurestack.tasks.refused import refused
from farshore_engine.azurestack.tasks.shutdownsource import shutdown_source
from farshore_engine.azurestack.tasks.stage import PLAIN, Setting
from farshore_engine.azurestack.tasks.startsource import start_source
from farshore_engine.azurestack.tasks.writeback import write_back
from farshore_engine.contract.tasks import TaskKind
from farshore_engine.processserver.tasks.context import Executor

__all__ = ["EXECUTORS", "Setting", "executors"]


def executors(setting: Setting = PLAIN) -> dict[TaskKind, Executor]:
    """Return the executors for a process server of a Hub."""
    return {
        TaskKind.SHUTDOWN_SOURCE: partial(shutdown_source, setting=setting),
        TaskKind.FINAL_POINT: partial(final_point, setting=setting),
        TaskKind.WRITE_BACK: partial(write_back, setting=setting),
        TaskKind.PREPARE_GUEST: partial(prepare_guest, setting=setting),
        TaskKind.START_SOURCE: partial(start_source, setting=setting),
        TaskKind.PROBE_MACHINE: partial(probe_machine, setting=setting),
        TaskKind.HYDRATE: refused,
        TaskKind.START_MACHINE: refused,
    }


EXECUTORS = executors()
