"""A task runner as a process of its own that kills itself with -9 at a chosen write to the vault.

    python killed_task.py DIRECTORY STEP PART MOMENT

Carries out a SelectPoint of a machine whose vault is in DIRECTORY/vault, and ends itself at the
MOMENT ("before", "after" or "never") of the put of an object whose name holds PART.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tests.machine.memory_controlplane import Authority, MemoryControlPlane
from tests.machine.replication_rig import directory_vault

from farshore_engine.contract.tasks import RunEntry, TaskAssignment, TaskInput, TaskKind
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.taskrunner import TaskRunner
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.vault.directory_store import DirectoryStore

SPEC = json.dumps({"kind": "Failover", "machine": "demo.vm"})


def task(directory: Path, step: str, kind: TaskKind = TaskKind.SELECT_POINT, run: str = "run-1") -> TaskAssignment:
    given = TaskInput(machine_id="demo.vm", selector="Latest", pin=run, journal=RunEntry(run=run, step=step, spec=SPEC))
    deadline = datetime.now(UTC) + timedelta(seconds=400)
    vault = directory_vault(directory / "vault")
    return TaskAssignment(name=f"{run}-vm-{step}", kind=kind, run=run, input=given, vault=vault, deadline=deadline)


def carry_out(directory: Path, *tasks: TaskAssignment) -> MemoryControlPlane:
    """Run tasks to their ends, one after another, as a process server would."""
    control = MemoryControlPlane(Authority.at(directory / "authority"))
    context = TaskContext(
        machines_dir=directory / "machines",
        runtime=cast(Any, None),
        installer=cast(Any, None),
        data_port=lambda: DataPort("ps", 9443),
        take_point=cast(Any, None),
        now=lambda: datetime.now(UTC),
        progress=lambda percent, sentence: None,
    )
    runner = TaskRunner(control, context)
    for number in range(len(tasks)):
        runner.take(tasks[: number + 1])
        name = tasks[number].name
        control.wait_for(lambda name=name: any(r.finished_at for r in control.task_reports.get(name, [])))  # type: ignore[misc]
    runner.stop()
    return control


def kill_at(part: str, moment: str) -> None:
    put = DirectoryStore.put

    def deadly(
        self: DirectoryStore, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False
    ) -> str:
        if part in name and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        version = put(self, name, data, create_only=create_only)
        if part in name and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return version

    DirectoryStore.put = deadly  # type: ignore[method-assign]


if __name__ == "__main__":
    place, chosen, name_part, when = sys.argv[1:]
    kill_at(name_part, when)
    carry_out(Path(place), task(Path(place), chosen))
