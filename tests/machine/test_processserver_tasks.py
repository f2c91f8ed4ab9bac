"""The tasks of a drill and a failover on one machine, with real disks, a real vault and a real recovered machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from tests.machine.memory_controlplane import random_name
from tests.machine.replication_rig import MACHINE, Stage, open_stage

from farshore_engine.contract.assignment import Source, SSHCredentials
from farshore_engine.contract.replication import Check, CheckResult, State
from farshore_engine.contract.tasks import TaskAssignment, TaskInput, TaskKind, TaskPhase, TaskReport
from farshore_engine.processserver.installer import PreflightOutcome

SECRETS = ("hunter2-ssh-password", "PRIVATE KEY")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A machine with a marked file, replicating, with at least two points."""
    with open_stage(tmp_path_factory.mktemp("tasks")) as stage:
        disk = stage.rig.disk("ext4", size_mib=200)
        assert disk.mount is not None
        (disk.mount / "marker").write_text("the file that must come back\n")
        with stage.process_server():
            source = Source(address="127.0.0.1", credentials=SSHCredentials(password=SECRETS[0]))  # type: ignore[arg-type]
            stage.assign(source=source)
            with stage.agent():
                stage.wait_points(2)
                yield stage


def run(stage: Stage, kind: TaskKind, *, name: str = "", deadline: float = 300, **given: object) -> TaskReport:
    machine = stage.control.wait(0, 0).machines[0]
    task = TaskAssignment(
        name=name or f"run-1-{kind.value.lower()}-{random_name()}",
        kind=kind,
        run="run-1",
        input=TaskInput(machine_id=f"demo.{MACHINE}", **given),  # type: ignore[arg-type]
        vault=stage.vault,
        source=machine.source,
        machine=machine,
        deadline=datetime.now(UTC) + timedelta(seconds=deadline),
    )
    return stage.control.run_task(task)


def test_a_drill_from_selecting_a_point_to_clean_up(stage: Stage) -> None:
    machine = f"drill-{random_name()}"
    committed = run(stage, TaskKind.COMMIT_SPOOL)
    assert committed.phase is TaskPhase.SUCCEEDED, committed
    assert committed.result is not None
    assert committed.result.point is not None

    selected = run(stage, TaskKind.SELECT_POINT, selector="Latest", pin=machine)
    assert selected.result is not None
    point = selected.result.point
    assert point is not None
    assert point.slot >= (committed.result.slot or 0)
    again = run(stage, TaskKind.SELECT_POINT, selector="Latest", pin=machine)
    assert again.result is not None
    assert again.result.point is not None
    assert again.result.point.name == point.name, "a repeated task finds its pin, also when newer points exist"

    hydrated = run(stage, TaskKind.HYDRATE, point=point.name, machine_name=machine)
    assert hydrated.phase is TaskPhase.SUCCEEDED, hydrated
    assert hydrated.result is not None
    assert hydrated.result.disks_verified
    paths = [Path(path) for path in hydrated.result.disk_paths]
    assert [p.stat().st_size for p in paths] == [200 << 20]

    started = run(stage, TaskKind.START_MACHINE, point=point.name, machine_name=machine)
    assert started.phase is TaskPhase.SUCCEEDED, started
    probed = run(stage, TaskKind.PROBE_MACHINE, machine_name=machine, probe_timeout_seconds=200)
    assert probed.phase is TaskPhase.SUCCEEDED, probed
    assert probed.result is not None
    assert "SSH-2.0" in probed.result.evidence

    cleaned = run(stage, TaskKind.CLEAN_UP, machine_name=machine, pin=machine)
    assert cleaned.phase is TaskPhase.SUCCEEDED, cleaned
    assert not paths[0].parent.exists()
    assert not any(point.pins for point in stage.points())
    probed = run(stage, TaskKind.PROBE_MACHINE, machine_name=machine, probe_timeout_seconds=1, deadline=3)
    assert probed.phase is TaskPhase.FAILED
    once_more = run(stage, TaskKind.CLEAN_UP, machine_name=machine, pin=machine)
    assert once_more.phase is TaskPhase.SUCCEEDED
    assert once_more.result is not None
    assert once_more.result.removed == ()


def test_a_disk_that_is_not_what_was_written_fails_the_hydration(stage: Stage) -> None:
    machine = f"drill-{random_name()}"
    point = stage.points()[-1].manifest.name
    assert run(stage, TaskKind.HYDRATE, point=point, machine_name=machine).phase is TaskPhase.SUCCEEDED
    image = stage.directory / "ps" / "machines" / machine / "disk-0.raw"
    with image.open("r+b") as file:
        file.seek(1080)  # inside the superblock
        file.write(b"damage")
    failed = run(stage, TaskKind.HYDRATE, point=point, machine_name=machine)
    assert failed.phase is TaskPhase.FAILED
    assert "differs from the point at blocks 0+1" in failed.message
    run(stage, TaskKind.CLEAN_UP, machine_name=machine)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        pytest.param(TaskKind.SELECT_POINT, {"selector": "p-nonsense", "pin": "x"}, "p-nonsense", id="no such point"),
        pytest.param(
            TaskKind.SELECT_POINT, {"selector": "2001-01-01T00:00:00Z", "pin": "x"}, "no point is as old", id="too old"
        ),
        pytest.param(TaskKind.HYDRATE, {"point": "p-1-99", "machine_name": "m"}, "p-1-99", id="point gone"),
        pytest.param(TaskKind.HYDRATE, {"point": "p", "machine_name": "../up"}, "../up", id="a name that leaves"),
    ],
)
def test_a_task_that_cannot_be_done_fails_and_says_why(
    stage: Stage, kind: TaskKind, given: dict[str, object], message: str
) -> None:
    report = run(stage, kind, **given)
    assert report.phase is TaskPhase.FAILED
    assert message in report.message


def test_preflight_and_shutdown_reach_the_machine_through_the_installer(stage: Stage) -> None:
    check = Check(name="SSHLogin", result=CheckResult.ERROR, message="the password is refused")
    stage.installer.outcome = PreflightOutcome((check,), "")
    report = run(stage, TaskKind.PREFLIGHT)
    assert report.result is not None
    assert report.result.checks == (check,)
    report = run(stage, TaskKind.SHUTDOWN_SOURCE)
    assert report.result is not None
    assert report.result.confirmed is True


def test_a_fence_stops_the_old_writer_which_reports_the_epoch_and_goes_on_with_a_higher_one(stage: Stage) -> None:
    fenced = run(stage, TaskKind.FENCE, epoch=5, writer="recovery")
    assert fenced.phase is TaskPhase.SUCCEEDED
    assert fenced.result is not None
    again = run(stage, TaskKind.FENCE, epoch=5, writer="recovery")
    assert again.result == fenced.result, "a repeated fence finds its record"
    report = stage.control.wait_report(MACHINE, lambda r: r.vault_epoch == 5)
    assert report.epoch == 1
    points = len(stage.points())
    stage.control.change(MACHINE, epoch=6)
    stage.control.wait_report(MACHINE, lambda r: r.epoch == 6 and r.state is State.REPLICATING)
    stage.control.wait_report(MACHINE, lambda r: r.epoch == 6 and r.point_count > points)
    assert {p.record.header.epoch for p in stage.points()} == {1, 6}
    assert not any(stage.wrong_blocks().values())


def test_no_secret_reaches_a_log_a_report_or_a_state_file_that_others_read(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    structlog.get_logger("farshore_engine.processserver").info("the assignment", wanted=stage.control.wait(0, 0))
    run(stage, TaskKind.COMMIT_SPOOL)
    out, err = capfd.readouterr()
    reports = [r.model_dump_json() for rs in stage.control.reports.values() for r in rs]
    tasks = [r.model_dump_json() for rs in stage.control.task_reports.values() for r in rs]
    text = out + err + json.dumps(reports + tasks)
    assert "the assignment" in text
    for secret in (*SECRETS, "k" * 32):
        assert secret not in text
    loose = subprocess.run(
        ["find", str(stage.directory / "ps"), "-name", "*.pem", "-perm", "/077"], capture_output=True, text=True
    )
    assert loose.stdout == ""
