"""The vault's journal of a run: whoever is killed whenever, each step that ended is in it once."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.machine.killed_task import SPEC, carry_out, task
from tests.machine.replication_rig import directory_vault

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency
from farshore_engine.contract.tasks import JournalledRun, TaskKind, TaskPhase, TaskResult
from farshore_engine.vault.stores import open_machine
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter


def with_a_point(directory: Path) -> None:
    """Make the vault of demo.vm with one point, written with epoch 3."""
    vault = open_machine(directory_vault(directory / "vault"), "demo.vm", create=True)
    sink = PackUploader(vault.access.store, vault.access.names)
    writer = PointWriter(vault, vault.claim(writer="ps", epoch=3, reason="test"), sink)
    writer.add("disk-a", np.arange(2), b"\1" * (2 * BLOCK_SIZE))
    disks = (DiskFields("disk-a", "sda", 2 * BLOCK_SIZE),)
    writer.commit(PointFields(datetime.now(UTC), Consistency.CRASH, disks, MachineDescription(hostname="db")))
    sink.close()
    vault.close()


def read(directory: Path) -> tuple[tuple[JournalledRun, ...], int | None]:
    """What a fresh control plane is told."""
    asked = task(directory, "readjournal", TaskKind.READ_JOURNAL, run="look")
    asked = asked.model_copy(update={"input": asked.input.model_copy(update={"journal": None})})
    report = carry_out(directory, asked).task_reports[asked.name][-1]
    assert report.phase is TaskPhase.SUCCEEDED, report
    assert report.result is not None
    return report.result.runs, report.result.vault_epoch


@pytest.mark.parametrize(
    ("part", "moment"),
    [
        pytest.param("/journal/run-1/000000", "before", id="before the run is noted"),
        pytest.param("/journal/run-1/000000", "after", id="after the run was noted"),
        pytest.param("/pins/", "after", id="in the middle of the step"),
        pytest.param("/journal/run-1/000001", "before", id="before the end is noted"),
        pytest.param("/journal/run-1/000001", "after", id="after the end was noted and before it was told"),
    ],
)
def test_a_process_server_that_is_killed_notes_each_step_once(tmp_path: Path, part: str, moment: str) -> None:
    with_a_point(tmp_path)
    arguments = [sys.executable, "-m", "tests.machine.killed_task", str(tmp_path), "SelectPoint", part, moment]
    killed = subprocess.run(arguments, timeout=400, cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9
    control = carry_out(tmp_path, task(tmp_path, "SelectPoint"))
    told = control.task_reports["run-1-vm-SelectPoint"][-1]
    assert told.phase is TaskPhase.SUCCEEDED, told
    (run,), epoch = read(tmp_path)
    assert (run.run, json.loads(run.spec), epoch) == ("run-1", json.loads(SPEC), 3)
    (step,) = run.steps
    assert (step.step, step.phase) == ("SelectPoint", TaskPhase.SUCCEEDED)
    noted = TaskResult.model_validate_json(step.result)
    assert noted.point is not None
    assert told.result is not None
    assert told.result.point is not None
    assert noted.point.name == told.result.point.name


def test_a_failed_step_is_read_back_with_what_was_said_of_it_and_runs_come_oldest_first(tmp_path: Path) -> None:
    with_a_point(tmp_path)
    first, second = task(tmp_path, "SelectPoint", run="run-b"), task(tmp_path, "SelectPoint", run="run-a")
    wrong = second.model_copy(update={"input": second.input.model_copy(update={"selector": "2001-01-01T00:00:00Z"})})
    hydrate = task(tmp_path, "Hydrate", TaskKind.HYDRATE, run="run-b")
    carry_out(tmp_path, first, wrong, hydrate)
    runs, _ = read(tmp_path)
    assert [run.run for run in runs] == ["run-b", "run-a"]
    assert [(s.step, s.phase) for s in runs[0].steps] == [
        ("SelectPoint", TaskPhase.SUCCEEDED),
        ("Hydrate", TaskPhase.FAILED),
    ]
    assert "no point is as old" in runs[1].steps[0].message


def test_a_machine_of_which_the_vault_has_nothing_has_no_runs(tmp_path: Path) -> None:
    assert read(tmp_path) == ((), None)


def test_a_vault_that_is_away_does_not_keep_the_source_side_from_working_and_stops_the_recovery_side(
    tmp_path: Path,
) -> None:
    with_a_point(tmp_path)
    (tmp_path / "vault" / "vault.json").write_text("spoiled")
    at_source = task(tmp_path, "ShutdownSource", TaskKind.SHUTDOWN_SOURCE)
    there = task(tmp_path, "SelectPoint")
    control = carry_out(tmp_path, at_source, there)
    said = control.task_reports[at_source.name][-1]
    assert "credentials are not known to this process server; not in the vault's journal" in said.message
    refused = control.task_reports[there.name][-1]
    assert refused.phase is TaskPhase.FAILED
    assert "vault.json is damaged" in refused.message
