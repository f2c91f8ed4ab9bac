"""The task that puts a run's report into the vault, repeated as after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from tests.unit.test_processserver_tasks import context, task, vault

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskKind
from farshore_engine.processserver.tasks import EXECUTORS
from farshore_engine.vault.stores import open_machine

REPORT = json.dumps({"run": "run", "machine": "demo.vm", "result": "Succeeded", "probes": [{"name": "page"}]})


def test_a_report_is_written_once_however_often_its_task_is_repeated(tmp_path: Path) -> None:
    access, _ = vault(tmp_path)
    step = task(TaskKind.WRITE_REPORT, report=REPORT).model_copy(update={"vault": access})
    write, around = EXECUTORS[TaskKind.WRITE_REPORT], context(tmp_path, cast(Any, None))
    assert [write(step, around).report_name for _ in range(3)] == ["run/000000"] * 3
    opened = open_machine(access, "demo.vm")
    try:
        found = opened.reports.read("run", 0)
    finally:
        opened.close()
    assert json.loads(found.report)["result"] == "Succeeded"
    assert found.page.startswith("<!doctype html>")
    assert "demo.vm" in found.page


def test_what_is_no_report_is_not_signed(tmp_path: Path) -> None:
    access, _ = vault(tmp_path)
    step = task(TaskKind.WRITE_REPORT, report="[]").model_copy(update={"vault": access})
    with pytest.raises(StopFault, match="no JSON object"):
        EXECUTORS[TaskKind.WRITE_REPORT](step, context(tmp_path, cast(Any, None)))
