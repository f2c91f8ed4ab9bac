"""A recovery plan for each FailoverPlan: made, kept as declared, deleted with it; what is others' is left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery.scene import NAMESPACE, Scene, Trap
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.replication import State
from farshore_engine.contract.siterecovery import RecoveryPlanReport
from farshore_engine.contract.tasks import TaskKind, TaskPhase
from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.wishes import GroupWish, Manual, PlanWish

NAME = naming.plan(NAMESPACE, "shop")
DNS = Manual("dns", "Has the name server been told? (to be confirmed by 1 of: group ops)")
BOTH = (GroupWish("data", ("db1",)), GroupWish("web", ("web1",), before=(DNS,)))


def _plan(scene: Scene, *groups: GroupWish, **more: Any) -> None:
    known = scene.control.plans.get("shop")
    scene.control.plans["shop"] = PlanWish("shop", groups, report=known.report if known else None, **more)


def _report(scene: Scene) -> RecoveryPlanReport:
    report = scene.control.plans["shop"].report
    assert report is not None
    return report


def _in_place(scene: Scene) -> None:
    scene.until(lambda: scene.control.plans["shop"].report is not None and _report(scene).in_place)


def _writes(scene: Scene) -> list[str]:
    return [
        one.method for one in scene.cloud.sim.calls
        if "/replicationRecoveryPlans/" in one.path and one.method != "GET" and 200 <= one.status < 300
    ]  # fmt: skip


def _shown(scene: Scene, name: str = NAME) -> list[tuple[str, list[str], list[str]]]:
    """The groups of the plan: kind, friendly names of machines, names of the actions before."""
    items = {one.id.lower(): one.properties.friendly_name for one in scene.site.replication_protected_items.list(
        GROUP, VAULT)}  # fmt: skip
    groups = scene.site.replication_recovery_plans.get(GROUP, VAULT, name).properties.groups
    return [
        (str(getattr(one.group_type, "value", one.group_type)),
         sorted(items[item.id.lower()] for item in one.replication_protected_items),
         [action.action_name for action in one.start_group_actions])
        for one in groups
    ]  # fmt: skip


def _changed(scene: Scene, edit: Callable[[list[Any]], None]) -> None:
    """Somebody edits the plan in the portal."""
    groups = scene.site.replication_recovery_plans.get(GROUP, VAULT, NAME).properties.groups
    edit(groups)
    given = models.UpdateRecoveryPlanInput(properties=models.UpdateRecoveryPlanInputProperties(groups=groups))
    scene.site.replication_recovery_plans.begin_update(GROUP, VAULT, NAME, given).result()
    scene.cloud.sim.calls.clear()


@pytest.fixture
def shop(classic: Scene) -> Scene:
    _two(classic)
    _plan(classic, *BOTH)
    _in_place(classic)
    return classic


def _two(scene: Scene) -> None:
    for name, ip in (("db1", "10.0.0.12"), ("web1", "10.0.0.11")):
        scene.protect(name, ip)
    scene.protected("db1", "web1")


WANTED = [("Shutdown", [], []), ("Failover", [], []), ("Boot", ["db1"], []), ("Boot", ["web1"], ["dns"])]


@pytest.mark.parametrize("experience", ["classic", "modern"])
def test_a_plan_is_made_once_and_written_no_more(experience: str, request: pytest.FixtureRequest) -> None:
    scene: Scene = request.getfixturevalue(experience)
    for name, ip in (("db1", "10.0.0.12"), ("web1", "10.0.0.11")):
        scene.protect(name, ip)
    _plan(scene, *BOTH)
    scene.look()
    assert _report(scene).reason == "NoMachineProtected" and _report(scene).missing == ("db1", "web1")
    _in_place(scene)
    assert _shown(scene) == WANTED
    told = len(scene.control.told)
    for _ in range(6):
        scene.cloud.sr.advance(minutes=2)
        scene.look(2)
        scene.restart()
    assert _writes(scene) == ["PUT"]
    assert [one.name for one in scene.control.vault.report.plans] == [NAME]
    assert not any("ChangedOutside" in text for text in scene.control.told[told:])


def test_a_machine_joins_once_it_is_protected_and_leaves_before_it_goes(shop: Scene) -> None:
    shop.cloud.sim.calls.clear()
    shop.cloud.sr.sync_looks = 6
    shop.protect("web2", "10.0.0.13")
    _plan(shop, BOTH[0], GroupWish("web", ("web1", "web2"), before=(DNS,)))
    shop.look(2)
    assert (_report(shop).reason, _report(shop).missing) == ("MachinesMissing", ("web2",))
    assert _writes(shop) == []
    _in_place(shop)
    assert _shown(shop)[-1] == ("Boot", ["web1", "web2"], ["dns"]) and _writes(shop) == ["PATCH"]
    shop.control.machines["web2"] = replace(shop.control.machines["web2"], desired=Desired.UNINSTALL)
    shop.until(lambda: shop.state("web2") is State.UNINSTALLED)
    calls = [one.path.rsplit("/", 1)[-1] for one in shop.cloud.sim.calls if one.method in ("PATCH", "POST")]
    assert calls.index(NAME, 1) < calls.index("remove"), "it leaves the plan first"
    assert _shown(shop)[-1] == ("Boot", ["web1"], ["dns"])


EDITS: dict[str, tuple[Callable[[list[Any]], None], str]] = {
    "a machine is taken out": (lambda groups: groups.pop(), "web1 taken out"),
    "groups change places": (lambda groups: groups.append(groups.pop(2)), "its groups were changed"),
    "an action is taken away": (lambda groups: groups[3].start_group_actions.clear(), "its actions were changed"),
    "a script is added to the shutdown": (
        lambda groups: groups[0].start_group_actions.append(
            models.RecoveryPlanAction(
                action_name="stop", failover_types=["UnplannedFailover"], failover_directions=["PrimaryToRecovery"],
                custom_details=models.RecoveryPlanScriptActionDetails(path="/x.ps1", fabric_location="Recovery"),
            )
        ),
        "its actions were changed",
    ),
}  # fmt: skip


def test_what_is_changed_in_the_portal_is_put_back_and_told(shop: Scene) -> None:
    for edit, (change, told) in EDITS.items():
        _changed(shop, change)
        shop.cloud.sr.advance(minutes=2)
        shop.look()
        assert (_report(shop).reason, _report(shop).in_place) == ("ChangedOutside", False), edit
        assert told in _report(shop).message and "put back" in _report(shop).message, edit
        _in_place(shop)
        assert _shown(shop) == WANTED and _writes(shop) == ["PATCH"], edit
        assert _report(shop).changed == told and _report(shop).changed_at is not None, edit
    shop.site.replication_recovery_plans.begin_delete(GROUP, VAULT, NAME).result()
    shop.cloud.sr.advance(minutes=2)
    shop.look()
    assert _report(shop).changed == "it was deleted"
    _in_place(shop)
    assert _shown(shop) == WANTED


def test_a_plan_that_somebody_drills_is_left_until_that_is_over(shop: Scene) -> None:
    plans = shop.site.replication_recovery_plans
    test = models.RecoveryPlanTestFailoverInput(
        properties=models.RecoveryPlanTestFailoverInputProperties(
            failover_direction="PrimaryToRecovery", network_type="VmNetworkAsInput", network_id=shop.cloud.network_id,
            provider_specific_details=[models.RecoveryPlanInMageAzureV2FailoverInput(recovery_point_type="Latest")],
        )
    )  # fmt: skip
    plans.begin_test_failover(GROUP, VAULT, NAME, test).result()
    shop.cloud.sim.calls.clear()
    _plan(shop, BOTH[0])
    shop.look(3)
    assert _report(shop).reason == "InUse" and _writes(shop) == []
    cleanup = models.RecoveryPlanTestFailoverCleanupInput(
        properties=models.RecoveryPlanTestFailoverCleanupInputProperties(comments="done")
    )
    plans.begin_test_failover_cleanup(GROUP, VAULT, NAME, cleanup).result()
    _in_place(shop)
    assert _shown(shop) == WANTED[:3]


def test_deleting_the_failoverplan_deletes_its_plan_and_no_other(shop: Scene) -> None:
    item = next(iter(shop.site.replication_protected_items.list(GROUP, VAULT)))
    _foreign(shop, "by-hand", item.id)
    _foreign(shop, naming.plan("other", "shop"), item.id)  # another cluster's
    shop.control.plans.clear()
    shop.restart()
    shop.cloud.sim.calls.clear()
    shop.until(lambda: not shop.control.vault.report.plans)
    shop.look(3)
    assert _writes(shop) == ["DELETE"]
    left = sorted(one.name for one in shop.site.replication_recovery_plans.list(GROUP, VAULT))
    assert left == sorted(["by-hand", naming.plan("other", "shop")])


def _foreign(scene: Scene, name: str, *ids: str) -> None:
    group = models.RecoveryPlanGroup(
        group_type="Boot", replication_protected_items=[models.RecoveryPlanProtectedItem(id=one) for one in ids],
        start_group_actions=[], end_group_actions=[],
    )  # fmt: skip
    given = models.CreateRecoveryPlanInput(
        properties=models.CreateRecoveryPlanInputProperties(
            primary_fabric_id=ids[0].split("/replicationProtectionContainers")[0], recovery_fabric_id="Microsoft Azure",
            failover_deployment_model="ResourceManager", groups=[group],
        )
    )  # fmt: skip
    scene.site.replication_recovery_plans.begin_create(GROUP, VAULT, name, given).result()


def test_a_plan_of_that_name_that_is_not_ours_is_never_changed(classic: Scene) -> None:
    _two(classic)
    ids = [one.id for one in classic.site.replication_protected_items.list(GROUP, VAULT)]
    _foreign(classic, NAME, *ids)
    classic.cloud.sim.calls.clear()
    _plan(classic, BOTH[0])
    classic.look(3)
    assert _report(classic).reason == "NotOurs" and "portal" in _report(classic).remedy
    classic.control.plans.clear()
    classic.look(3)
    assert _writes(classic) == [] and classic.control.vault.report.plans == ()


def test_a_rebuilt_cluster_goes_on_with_the_plan_that_it_finds(shop: Scene) -> None:
    shop.control.plans.clear()
    shop.control.vault = replace(shop.control.vault, report=shop.control.vault.report.model_copy(update={"plans": ()}))
    shop.restart()
    shop.cloud.sim.calls.clear()
    _plan(shop, *BOTH)
    _in_place(shop)
    assert _writes(shop) == [] and [one.name for one in shop.control.vault.report.plans] == [NAME]


def test_a_plan_that_is_withdrawn_is_deleted_and_told_no_more(shop: Scene) -> None:
    _plan(shop, unwanted=True)
    shop.until(lambda: not shop.control.vault.report.plans)
    assert shop.control.plans["shop"].report is None
    assert list(shop.site.replication_recovery_plans.list(GROUP, VAULT)) == []


REFUSALS: dict[str, tuple[tuple[GroupWish, ...], dict[str, Any], str]] = {
    "eight groups": (tuple(GroupWish(str(n), (f"m{n}",)) for n in range(8)), {}, "TooManyGroups"),
    "101 machines": ((GroupWish("all", tuple(f"m{n}" for n in range(101))),), {}, "TooManyMachines"),
    "two vaults": (BOTH, {"refusal": StopFault("two", "split", reason="SeveralVaults")}, "SeveralVaults"),
}


def test_what_a_recovery_plan_cannot_be_is_refused_and_the_one_there_left(shop: Scene) -> None:
    shop.cloud.sim.calls.clear()
    for case, (groups, more, reason) in REFUSALS.items():
        _plan(shop, *groups, **more)
        shop.look(2)
        assert _report(shop).reason == reason and _report(shop).remedy, case
    assert _writes(shop) == [] and _shown(shop) == WANTED


METHODS = ("PUT", "PATCH", "DELETE")
FAULTS: dict[str, Callable[[Scene, str], object]] = {
    "conflict": lambda s, m: s.cloud.sim.faults.conflict(m, "*/replicationRecoveryPlans/*"),
    "answer lost": lambda s, m: s.cloud.sim.faults.lose_response(m, "*/replicationRecoveryPlans/*"),
    "question lost": lambda s, m: s.cloud.sim.faults.lose_request(m, "*/replicationRecoveryPlans/*"),
    "fails at the end": lambda s, m: s.cloud.sim.faults.fail_at_end(m, "*/replicationRecoveryPlans/*", "X", "no"),
    "not allowed": lambda s, m: s.cloud.sim.faults.refuse(m, "*/replicationRecoveryPlans/*", 403, "Forbidden", "no"),
}

RESTS = ("fails at the end", "not allowed")
"""After these it is tried again only after a while."""


def _life(scene: Scene, minutes: int = 0) -> None:
    """A plan is made, changed and deleted; `minutes` go by between two looks."""
    _plan(scene, *BOTH)
    scene.until(lambda: _is(scene, 2, minutes), 30)
    _plan(scene, BOTH[0])
    scene.until(lambda: _is(scene, 1, minutes), 30)
    scene.control.plans.clear()
    scene.until(lambda: _gone(scene, minutes), 30)


def _gone(scene: Scene, minutes: int) -> bool:
    scene.cloud.sr.advance(minutes=minutes)
    return not scene.control.vault.report.plans


def _is(scene: Scene, groups: int, minutes: int) -> bool:
    scene.cloud.sr.advance(minutes=minutes)
    report = scene.control.plans["shop"].report
    return report is not None and report.in_place and report.groups == groups


@pytest.fixture
def pair(classic: Scene) -> Scene:
    _two(classic)
    return classic


def test_every_fault_at_every_call_is_healed(pair: Scene) -> None:
    for fault, plan in FAULTS.items():
        before = len(pair.cloud.sim.faults.struck)
        pair.cloud.sim.calls.clear()
        for method in METHODS:
            plan(pair, method)
        _life(pair, 11 if fault in RESTS else 0)
        assert len(pair.cloud.sim.faults.struck) == before + 3, fault
        assert list(pair.site.replication_recovery_plans.list(GROUP, VAULT)) == []
        more = METHODS if fault == "fails at the end" else ()
        assert sorted(_writes(pair)) == sorted((*METHODS, *more)), fault


def test_what_is_not_allowed_is_told_and_asked_for_again_only_after_a_while(pair: Scene) -> None:
    pair.cloud.sim.faults.refuse("PUT", "*/replicationRecoveryPlans/*", 403, "AuthorizationFailed", "no", times=2)
    _plan(pair, *BOTH)
    pair.look(12)
    asked = [one for one in pair.cloud.sim.calls if "/replicationRecoveryPlans/" in one.path and one.method == "PUT"]
    assert len(asked) == 1
    assert _report(pair).reason == "Forbidden" and "Site Recovery Contributor" in _report(pair).remedy
    pair.cloud.sr.advance(minutes=11)
    pair.look(2)
    pair.cloud.sr.advance(minutes=11)
    _in_place(pair)


def test_a_machine_that_runs_in_azure_is_put_into_no_other_plan(pair: Scene) -> None:
    _plan(pair, BOTH[0])
    _in_place(pair)
    pair.control.machines["web1"] = replace(pair.control.machines["web1"], desired=Desired.STOP)
    assert pair.task(TaskKind.FAILOVER, "web1", "go", shutdown=True).phase is TaskPhase.SUCCEEDED
    pair.cloud.sim.calls.clear()
    _plan(pair, *BOTH)
    pair.look(3)
    assert _report(pair).reason == "FailedOver" and "web1" in _report(pair).message and _writes(pair) == []
    _plan(pair, BOTH[0])
    pair.look(3)
    assert _report(pair).in_place and _writes(pair) == []


def test_a_crash_at_each_place_writes_nothing_twice(pair: Scene) -> None:
    pair.cloud.sim.pace.polls = 2
    for crash in range(1, 16, 5):
        pair.cloud.sim.calls.clear()
        pair.control.trap = Trap(crash)
        _life(pair)
        assert pair.control.trap.count >= crash
        assert _writes(pair) == list(METHODS), crash


def test_plans_at_rest_are_looked_at_once_a_minute(shop: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, began = shop.cloud.sr.clock, shop.now() - shop.cloud.sr.clock.ahead
    monkeypatch.setattr(clock, "now", lambda: began + clock.ahead)  # looks take no time, however slow this host is
    shop.cloud.sr.advance(minutes=2)
    shop.look(2)
    shop.cloud.sim.calls.clear()
    shop.look(10)
    assert [one.path for one in shop.cloud.sim.calls if one.path.endswith("/replicationRecoveryPlans")] == []
    shop.cloud.sr.advance(minutes=1)
    shop.look(10)
    assert len([one.path for one in shop.cloud.sim.calls if one.path.endswith("/replicationRecoveryPlans")]) == 1
