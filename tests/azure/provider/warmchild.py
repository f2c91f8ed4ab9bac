"""A process server's step, or the keeper's round, in a process of its own, which a test kills with -9."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.azure.provider.scene import context_of

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.keeping import keep
from farshore_engine.azure.replicas import Replicas
from farshore_engine.contract.tasks import TaskAssignment
from farshore_engine.processserver.dispatch import executor_of
from farshore_engine.vault.stores import open_machine

PATIENCE = 120.0
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "azure.mgmt.compute", "azure.mgmt.network", "azure.mgmt.storage"])


def step(task: TaskAssignment, directory: Path) -> None:
    """Carry a task out."""
    cloud_module.POLL_SECONDS = 0
    executor_of(task)(task, context_of(directory, lambda percent, sentence: None))


def round_of(task: TaskAssignment, owner: str) -> None:
    """Do the keeper's round for the machine of a task."""
    assert task.vault is not None and task.replica is not None
    with closing(open_machine(task.vault, task.input.machine_id)) as vault:
        keep(Replicas.of(task.replica, cloud_of(task.site), vault), vault, owner)


class Child:
    """A process that is killed when the test says so; use it as a context manager."""

    def __init__(self, work: Callable[..., None], *given: object) -> None:
        self._process = PROCESSES.Process(target=work, args=given, daemon=True)

    def __enter__(self) -> Child:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it, and wait until it is dead; may be called from any thread, and again."""
        if self._process.pid is not None and self._process.exitcode is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def dead(self) -> bool:
        """Wait until it has ended; tell whether it was killed."""
        self._process.join(PATIENCE)
        return self._process.exitcode == -signal.SIGKILL

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._process.exitcode is None
