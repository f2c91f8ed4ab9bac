"""The process server follows the control plane: assignments that come, change, break and go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.machine.replication_rig import MACHINE, Stage, open_stage

from farshore_engine.contract.assignment import BrokenAssignment, Desired
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.replication import Check, CheckResult, State
from farshore_engine.processserver.installer import PreflightOutcome
from farshore_engine.processserver.service import ProcessServer, Settings


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


def test_a_machine_is_checked_certified_and_installed_in_this_order(stage: Stage) -> None:
    with stage.process_server():
        stage.assign()
        report = stage.control.wait_report(MACHINE, lambda r: r.state is State.WAITING_FOR_AGENT)
        appliance = stage.control.wait_for(
            lambda: (told := stage.control.appliance_report) is not None and told.machines == 1 and told
        )
    assert stage.installer.calls == ["preflight", "install"]
    assert report.agent is not None
    assert report.agent.host_key == "ssh-ed25519 AAAA"
    assert appliance
    assert appliance.certificate_expires is not None


def test_a_failed_check_blocks_with_its_remedy_and_a_changed_source_is_tried_at_once(stage: Stage) -> None:
    check = Check(name="SSHLogin", result=CheckResult.ERROR, message="the password is refused", remedy="Correct it")
    stage.installer.outcome = PreflightOutcome((check,))
    with stage.process_server():
        wanted = stage.assign()
        report = stage.control.wait_report(MACHINE, lambda r: r.state is State.BLOCKED)
        assert (report.reason, report.remedy, report.checks) == ("SSHLogin", "Correct it", (check,))
        assert "the password is refused" in report.message
        stage.installer.outcome = PreflightOutcome(())
        stage.control.change(MACHINE, source=wanted.source.model_copy(update={"port": 2222}))
        stage.control.wait_report(MACHINE, lambda r: r.state is State.WAITING_FOR_AGENT)


def test_a_restart_installs_nothing_again(stage: Stage) -> None:
    with stage.process_server():
        stage.assign()
        stage.control.wait_report(MACHINE, lambda r: r.state is State.WAITING_FOR_AGENT)
    stage.installer.calls.clear()
    reports = len(stage.control.reports[MACHINE])
    with stage.process_server():
        stage.control.wait_for(
            lambda: any(r.state is State.WAITING_FOR_AGENT for r in stage.control.reports[MACHINE][reports:]) or None
        )
    assert stage.installer.calls == []


def test_a_process_server_with_a_newer_bundle_upgrades_the_agent(stage: Stage) -> None:
    with stage.process_server():
        stage.assign()
        stage.control.wait_report(MACHINE, lambda r: r.state is State.WAITING_FOR_AGENT)
    stage.installer.calls.clear()
    stage.installer.version = "newer"
    with stage.process_server():
        stage.control.wait_report(MACHINE, lambda r: r.agent is not None and r.agent.version == "newer")
    assert stage.installer.calls == ["preflight", "install"]


def test_the_end_of_protection_removes_the_agent_and_then_what_is_kept_here(stage: Stage) -> None:
    with stage.process_server():
        stage.assign()
        stage.control.wait_report(MACHINE, lambda r: r.state is State.WAITING_FOR_AGENT)
        stage.control.change(MACHINE, desired=Desired.UNINSTALL)
        stage.control.wait_report(MACHINE, lambda r: r.state is State.UNINSTALLED)
        assert stage.installer.calls[-1] == "uninstall"
        stage.control.remove(MACHINE)
        kept = [stage.directory / "ps" / part / f"demo.{MACHINE}" for part in ("spool", "machines-known")]
        stage.control.wait_for(lambda: not any(path.exists() for path in kept) or None)


def test_a_broken_reference_is_reported_and_heals(stage: Stage) -> None:
    with stage.process_server():
        trouble = BrokenAssignment(
            name=MACHINE, machine_id=f"demo.{MACHINE}", message="Secret vault-key is missing", remedy="Create it"
        )
        stage.control.set_broken(trouble)
        report = stage.control.wait_report(MACHINE, lambda r: r.state is State.BLOCKED)
        assert (report.message, report.remedy) == ("Secret vault-key is missing", "Create it")
        stage.control.set_broken()
        stage.assign()
        stage.control.wait_report(MACHINE, lambda r: r.state is State.WAITING_FOR_AGENT)


def test_a_second_process_on_the_same_state_is_refused(stage: Stage) -> None:
    with stage.process_server():
        stage.control.wait_for(lambda: stage.control.appliance_report)
        settings = Settings(state_dir=stage.directory / "ps", address="127.0.0.1", data_port=0)
        with pytest.raises(StopFault, match="another process server"):
            ProcessServer(stage.control, stage.installer, settings).run(threading.Event())


def test_pause_holds_points_back_and_stop_leaves_the_chain_alone(stage: Stage) -> None:
    stage.rig.disk("ext4", size_mib=160)
    with ExitStack() as stack:
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent())
        stage.wait_points(1)
        stage.control.change(MACHINE, desired=Desired.PAUSE)
        stage.control.wait_report(MACHINE, lambda r: r.state is State.PAUSED)
        count = len(stage.points())
        threading.Event().wait(5)
        assert len(stage.points()) <= count + 1
        stage.control.change(MACHINE, desired=Desired.REPLICATE)
        stage.wait_points(count + 2)
        stage.control.change(MACHINE, desired=Desired.STOP)
        # The first such report may be of the moment before the last commit has ended.
        stage.control.wait_report(MACHINE, lambda r: r.state is State.STOPPED and "no further" in r.message)
        count = len(stage.points())
        threading.Event().wait(4)
        assert len(stage.points()) == count
    assert not any(stage.wrong_blocks().values())


def test_a_map_that_is_damaged_in_the_vault_heals_by_a_full_copy(stage: Stage) -> None:
    stage.rig.disk("ext4", size_mib=160)
    with ExitStack() as stack:
        with stage.process_server():
            stage.assign()
            stack.enter_context(stage.agent())
            stage.wait_points(2)
        before = stage.points()
        for pack in (stage.directory / "vault").rglob("packs/*"):
            pack.write_bytes(b"damage")
        with stage.process_server():
            stack.enter_context(stage.rig.fio(stage.rig.disks[0]))
            stage.wait_points(len(before) + 2)
    healed = [p for p in stage.points() if p.slot > before[-1].slot]
    wanted = {p.manifest.name for p in healed[1:]}
    verdicts = wrong_of(stage, wanted)
    assert verdicts
    assert not any(verdicts.values())


def wrong_of(stage: Stage, names: set[str]) -> dict[str, list[tuple[str, int]]]:
    every = stage.points
    chosen = [p for p in every() if p.manifest.name in names]
    stage.points = lambda: chosen  # type: ignore[method-assign]
    return stage.wrong_blocks()
