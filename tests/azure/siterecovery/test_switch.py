"""From the classic experience to the modernized one: the same ProtectedVM goes on with the new item, nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from tests.azure.siterecovery.scene import Scene, Trap, settings
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT
from tests.azuresim.siterecovery import Target, protected

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.replication import Check, CheckResult, State
from farshore_engine.contract.siterecovery import SWITCH, SiteRecoveryReport
from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_operator.engines.siterecovery.wishes import Origin

NEW = "NewVault"


@dataclass
class Move:
    """A machine of a configuration server, and a vault with an appliance that it can move to."""

    scene: Scene
    machine: Any
    server: Any
    appliance: Any

    def ask(self) -> None:
        """The manifest names the new vault, and where the machine comes from."""
        control = self.scene.control
        origin = Origin("asr", settings(self.scene.cloud))
        vault = replace(control.vault, name="asr-new", settings=settings(self.scene.cloud, NEW))
        control.vault = replace(vault, report=SiteRecoveryReport())
        control.machines["web1"] = replace(control.machines["web1"], origin=origin, epoch=2)
        self.scene.cloud.sim.calls.clear()
        self.scene.calls.clear()

    def items(self, vault: str) -> list[str]:
        found = self.scene.site.replication_protected_items.list(GROUP, vault)
        return [str(one.properties.provider_specific_details.instance_type) for one in found]

    def check(self) -> Check | None:
        report = self.scene.control.machines["web1"].report
        return next((one for one in report.checks if one.name == SWITCH), None) if report is not None else None

    def moved(self) -> bool:
        return self.items(NEW) == ["InMageRcm"] and self.check() is None and self.scene.state("web1") is not None

    def calls(self) -> list[str]:
        return [one.split()[0] for one in self.scene.calls]


@pytest.fixture
def move(classic: Scene) -> Move:
    cloud = classic.cloud
    machine = classic.protect("web1", "10.0.0.11")
    classic.protected("web1")
    server = next(one for vault in cloud.sr.vaults.values() for one in vault.fabrics.values())
    return Move(classic, machine, server, cloud.sr.appliance(cloud.sr.vault(GROUP, NEW), "appliance1"))


def test_a_machine_moves_and_is_drilled_failed_over_and_disabled_there(move: Move) -> None:
    scene = move.scene
    scene.cloud.sim.pace.polls = 3
    move.ask()
    states = []
    for _ in range(30):
        if move.moved():
            break
        scene.look()
        states.append((scene.state("web1"), check.message if (check := move.check()) else ""))
    assert {state for state, _ in states} == {State.REPLICATING}, "it is protected all the time"
    assert any("Site Recovery moves it (job" in text for _, text in states)
    assert move.calls() == ["SwitchProvider"], "nothing is protected a second time, and no policy is made"
    report = scene.report("web1")
    assert (report.process_server, report.epoch, report.state) == ("siterecovery-asr-new", 2, State.REPLICATING)
    assert report.last_point is not None and report.operation is None
    scene.cloud.sim.pace.polls = 0
    ends = [scene.task(TaskKind.TEST_FAILOVER, "web1", "drill", network=scene.cloud.network_id)]
    ends.append(scene.task(TaskKind.CLEAN_UP, "web1", "drill"))
    scene.control.machines["web1"] = replace(scene.control.machines["web1"], desired=Desired.STOP)
    ends.append(scene.task(TaskKind.FAILOVER, "web1", "go", shutdown=True))
    assert [one.phase for one in ends] == [TaskPhase.SUCCEEDED] * 3, ends
    old = [disk.path.read_bytes() for disk in move.machine.disks]
    assert [scene.cloud.vm_bytes("web1-dr", number, len(one)) for number, one in enumerate(old)] == old
    assert scene.task(TaskKind.COMMIT, "web1", "commit").phase is TaskPhase.SUCCEEDED
    scene.control.machines["web1"] = replace(scene.control.machines["web1"], desired=Desired.UNINSTALL)
    scene.until(lambda: scene.state("web1") is State.UNINSTALLED)
    assert move.items(NEW) == [] and move.items(VAULT) == [], "and the old item, which kept its points until now"


def test_a_crash_at_each_place_moves_it_once(move: Move) -> None:
    """One machine after the other, each with a crash at another place."""
    scene = move.scene
    scene.cloud.sim.pace.polls = 2
    move.ask()
    for crash in range(1, 9):
        scene.control.trap = Trap(crash)
        scene.look()
    scene.until(move.moved)
    done = [one for one in scene.cloud.sim.calls if one.path.endswith("/switchProvider") and one.status < 300]
    assert len(done) == 1 and set(move.calls()) <= {"SwitchProvider"}
    assert scene.state("web1") is State.REPLICATING


FAULTS: dict[str, Callable[[Scene, str], object]] = {
    "throttled": lambda s, p: s.cloud.sim.faults.throttle("POST", p, retry_after=1),
    "unavailable": lambda s, p: s.cloud.sim.faults.server_error("POST", p, status=503),
    "conflict": lambda s, p: s.cloud.sim.faults.conflict("POST", p),
    "answer lost": lambda s, p: s.cloud.sim.faults.lose_response("POST", p),
    "question lost": lambda s, p: s.cloud.sim.faults.lose_request("POST", p),
}


@pytest.mark.parametrize("fault", ["conflict", "answer lost", "question lost"])
def test_what_time_heals_is_healed(move: Move, fault: str) -> None:
    FAULTS[fault](move.scene, "*/switchProvider")
    move.scene.cloud.sim.pace.polls = 2
    move.ask()
    move.scene.until(move.moved)
    done = [one for one in move.scene.cloud.sim.calls if one.path.endswith("/switchProvider")]
    assert len([one for one in done if 200 <= one.status < 300]) == 1
    assert move.scene.state("web1") is State.REPLICATING


def test_a_refusal_is_told_in_microsofts_words_beside_the_replication_and_tried_again_later(move: Move) -> None:
    scene = move.scene
    words = "The machine runs an unsupported kernel."
    scene.cloud.sim.faults.refuse("POST", "*/switchProvider", 409, "SwitchProviderBlocked", words)
    scene.cloud.sim.faults.fail_at_end(
        "POST", "*/switchProvider", "95999", "The appliance did not take it over.", nth=2
    )
    move.ask()
    scene.look(4)
    check = move.check()
    assert check is not None and check.result is CheckResult.ERROR and check.remedy
    assert "unsupported kernel" in check.message
    assert scene.state("web1") is State.REPLICATING, "the old item protects it"
    tried = [one for one in scene.cloud.sim.calls if one.path.endswith("/switchProvider")]
    assert len(tried) == 1, "it is not asked every few seconds"
    scene.cloud.sr.advance(minutes=11)
    scene.look(2)
    check = move.check()
    assert check is not None and "did not take it over" in check.message and check.result is CheckResult.ERROR
    scene.cloud.sr.advance(minutes=11)
    scene.until(move.moved)


def _resync(move: Move) -> None:
    item = next(iter(next(iter(move.server.containers.values())).items.values()))
    item.resync = True
    move.scene.cloud.sr.sync_looks = 30


GATES: dict[str, tuple[Callable[[Move], object], Callable[[Move], object], str]] = {
    "an old Mobility service": (
        lambda m: setattr(m.machine, "agent_version", "9.45.1.1"),
        lambda m: setattr(m.machine, "agent_version", "9.63.1.1"),
        "older than 9.50",
    ),
    "an old configuration server": (
        lambda m: setattr(m.server, "version", "9.45.1.1"),
        lambda m: setattr(m.server, "version", "9.63.1.1"),
        "configuration server is older than 9.50",
    ),
    "critical health": (
        lambda m: m.machine.suffer("78188"),
        lambda m: m.machine.recover(),
        "78188",
    ),
    "an appliance that is away": (
        lambda m: m.scene.cloud.sr.lose_heartbeat(m.appliance, ago=timedelta(hours=1)),
        lambda m: m.scene.cloud.sr.restore_heartbeat(m.appliance),
        "does not hear of appliance",
    ),
}


def test_what_is_in_the_way_is_told_and_nothing_is_begun(move: Move) -> None:
    scene = move.scene
    for cause, (spoil, heal, words) in GATES.items():
        spoil(move)
        move.ask()
        scene.cloud.sr.advance(minutes=2)
        scene.look(2)
        check = move.check()
        assert check is not None and words in check.message and check.remedy, (cause, check)
        assert move.calls() == [] and scene.state("web1") is State.REPLICATING, cause
        heal(move)
    scene.cloud.sr.advance(minutes=2)
    scene.until(move.moved)
    assert move.calls() == ["SwitchProvider"]


def test_a_drill_is_cleaned_up_before_and_a_failover_goes_on_from_the_old_vault(move: Move) -> None:
    scene = move.scene
    drilled = scene.task(TaskKind.TEST_FAILOVER, "web1", "drill", network=scene.cloud.network_id)
    assert drilled.phase is TaskPhase.SUCCEEDED
    move.ask()
    scene.look(2)
    check = move.check()
    assert check is not None and "not cleaned up" in check.message and move.calls() == []
    assert scene.task(TaskKind.CLEAN_UP, "web1", "drill").phase is TaskPhase.SUCCEEDED
    move.machine.agent_version = "9.45.1.1"
    scene.control.machines["web1"] = replace(scene.control.machines["web1"], desired=Desired.STOP)
    assert scene.task(TaskKind.FAILOVER, "web1", "go", shutdown=True).phase is TaskPhase.SUCCEEDED
    assert scene.cloud.vm_names() == ["web1-dr"] and move.items(NEW) == []
    assert "SwitchProvider" not in move.calls()


def test_a_machine_that_leaves_before_it_moved_leaves_the_old_vault(move: Move) -> None:
    move.ask()
    control = move.scene.control
    control.machines["web1"] = replace(control.machines["web1"], desired=Desired.UNINSTALL)
    move.scene.until(lambda: move.scene.state("web1") is State.UNINSTALLED)
    assert move.items(VAULT) == [] and move.calls() == ["DisableProtection"]


def test_nothing_is_protected_anew_while_the_old_vault_is_not_known(move: Move) -> None:
    move.ask()
    control = move.scene.control
    gone = Origin("asr", None, StopFault("RecoveryVault asr does not exist", "Create it", reason="SwitchFromNotFound"))
    control.machines["web1"] = replace(control.machines["web1"], origin=gone)
    move.scene.look(3)
    assert move.scene.report("web1").reason == "SwitchFromNotFound" and move.calls() == []
    control.machines["web1"] = replace(control.machines["web1"], origin=Origin("asr", settings(move.scene.cloud)))
    move.scene.until(move.moved)
    control.machines["web1"] = replace(control.machines["web1"], origin=gone)
    move.scene.cloud.sr.advance(minutes=10)
    move.scene.look(2)
    assert move.scene.state("web1") is State.REPLICATING, "once it has moved, the old vault is not needed"


def test_a_machine_that_was_protected_by_hand_moves_too(move: Move) -> None:
    scene, cloud = move.scene, move.scene.cloud
    vault = next(one for one in cloud.sr.vaults.values() if one.classic)
    target = Target(cloud.group_id, cloud.network_id, "default", vm_name="old-dr", log_storage={"": cloud.storage_id})
    protected(cloud.sr, vault, move.server, cloud.machine("old", "10.0.0.30"), target, name="made-by-hand")
    wish = scene.control.machines["web1"]
    scene.control.machines = {"web1": replace(wish, name="web1", machine_id="dr.old", address="10.0.0.30", report=None)}
    move.ask()
    scene.until(move.moved)
    assert move.calls() == ["SwitchProvider"]
    assert scene.state("web1") is State.REPLICATING
