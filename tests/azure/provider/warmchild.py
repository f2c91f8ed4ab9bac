"""A process server's step, or the keeper's round, in a process of its own, which a test kills with -9."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tests.azure.provider.scene import context_of

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.keeping import keep
from farshore_engine.azure.replicas import Replicas
from farshore_engine.contract.tasks import TaskAssignment
from farshore_engine.guest import offline
from farshore_engine.processserver.dispatch import executor_of
from farshore_engine.vault.stores import open_machine

PATIENCE = 120.0
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "azure.mgmt.compute", "azure.mgmt.network", "azure.mgmt.storage"])


def step(task: TaskAssignment, directory: Path) -> None:
    """Carry a task out."""
    cloud_module.POLL_SECONDS = 0
    executor_of(task)(task, context_of(directory, lambda percent, sentence: None))


def step_into_guest(task: TaskAssignment, directory: Path, reached: Event) -> None:
    """Carry a task out as far as the guest's disks are attached and about to be mounted, and tell; go no further."""

    def halt(*_: Any) -> Any:
        reached.set()
        while True:
            signal.pause()

    offline._run = halt
    step(task, directory)


def round_of(task: TaskAssignment, owner: str) -> None:
    """Do the keeper's round for the machine of a task."""
    assert task.vault is not None and task.replica is not None
    with closing(open_machine(task.vault, task.input.machine_id)) as vault:
        keep(Replicas.of(task.replica, cloud_of(task.site), vault), vault, owner)


class Child:
    """A process that is killed when the test says so; use it as a context manager."""

    def __init__(self, work: Callable[..., None], *given: object) -> None:
        self._process = PROCESSES.Process(target=work, args=given, daemon=True)
        self._begun = threading.Event()

    def __enter__(self) -> Child:
        self._process.start()
        self._begun.set()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it, unless it has ended; may be called from any thread while it works, for what it has just done."""
        assert self._begun.wait(PATIENCE)
        if self._process.pid is not None and self._process.exitcode is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def dead(self) -> bool:
        """Wait until it has ended; tell whether it was killed."""
        self._process.join(PATIENCE)
        return self._process.exitcode == -signal.SIGKILL
