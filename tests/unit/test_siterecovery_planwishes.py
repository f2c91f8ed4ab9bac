"""What a FailoverPlan asks of a recovery plan of Site Recovery, and what of it is told as left out."""

from __future__ import annotations

from typing import Any

import pytest

from farshore_operator.api import FailoverPlan
from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.planwishes import PlannedMachine, plan_wish
from farshore_operator.engines.siterecovery.wishes import GroupWish, Manual

WEB, DB = PlannedMachine("web1", "asr", True), PlannedMachine("db1", "asr", True)
OLD, OTHER = PlannedMachine("old", "own", False), PlannedMachine("far", "asr2", True)


def _plan(*groups: dict[str, Any], status: dict[str, Any] | None = None, **meta: Any) -> FailoverPlan:
    return FailoverPlan.of(
        {
            "apiVersion": "farshore.dev/v1alpha1",
            "kind": "FailoverPlan",
            "metadata": {"name": "shop", "namespace": "dr", "uid": "u", "resourceVersion": "1", **meta},
            "spec": {"groups": list(groups)},
            "status": status or {},
        }
    )


def _group(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "members": [{"name": "any"}], **more}


HOOKS: dict[str, tuple[dict[str, Any], tuple[Manual, ...], tuple[str, ...]]] = {
    "an approval by anybody": (
        {"name": "go", "approval": {"message": "Go?"}},
        (Manual("go", "Go?"),),
        (),
    ),
    "an approval in drills, too": (
        {"name": "go", "approval": {"message": "Go?"}, "inDrills": True},
        (Manual("go", "Go?", True),),
        (),
    ),
    "an approval by two of some": (
        {"name": "go", "approval": {"message": "Go?", "users": ["ann"], "groups": ["ops"], "count": 2}},
        (Manual("go", "Go? (to be confirmed by 2 of: ann, group ops)"),),
        ("group web, hook before/go: who may approve, and how many must, is told in its text only",),
    ),
    "an approval that expires and rolls back": (
        {"name": "go", "approval": {"message": "Go?"}, "timeout": "1h", "onFailure": "RollBack"},
        (Manual("go", "Go?"),),
        ("group web, hook before/go: a manual action has no timeout; a manual action cannot be rejected",),
    ),
    "a job": (
        {"name": "dns", "job": {"image": "dns:1"}},
        (),
        ("group web, hook before/dns: a job that Farshore makes, not Site Recovery",),
    ),
    "a call": (
        {"name": "dns", "http": {"url": "https://dns.example"}},
        (),
        ("group web, hook before/dns: a call that Farshore makes, not Site Recovery",),
    ),
}


@pytest.mark.parametrize("case", HOOKS)
def test_hooks(case: str) -> None:
    hook, manual, left = HOOKS[case]
    wish = plan_wish(_plan(_group("web", before=[hook])), {"web": (WEB,)}, "asr")
    assert wish is not None
    assert wish.groups == (GroupWish("web", ("web1",), manual),)
    assert wish.left_out == left


def test_what_else_a_recovery_plan_cannot_do_is_told() -> None:
    plan = _plan(_group("db", probes=[{"name": "ssh", "tcp": {"port": 22}}]), _group("web", maxParallel=2))
    wish = plan_wish(plan, {"db": (DB, OLD), "web": (WEB,)}, "asr")
    assert wish is not None and wish.refusal is None
    assert wish.groups == (GroupWish("db", ("db1",)), GroupWish("web", ("web1",)))
    assert wish.left_out == (
        "machine old: it replicates into own",
        "group db, probes: Site Recovery does not ask recovered machines",
        "group web, maxParallel: Site Recovery recovers all machines of a group at a time",
    )


def _reported(vault: str) -> dict[str, Any]:
    return {"siteRecovery": {"vault": vault, "name": "x"}}


def test_the_vault_that_has_the_plan_keeps_it_and_tells_of_several() -> None:
    members = {"web": (WEB, OTHER)}
    first = plan_wish(_plan(_group("web")), members, "asr")
    assert first is not None and first.refusal is not None and first.refusal.reason == "SeveralVaults"
    assert plan_wish(_plan(_group("web")), members, "asr2") is None
    kept = _plan(_group("web"), status=_reported("asr2"))
    assert plan_wish(kept, members, "asr") is None
    second = plan_wish(kept, members, "asr2")
    assert second is not None and second.refusal is not None and not second.unwanted


@pytest.mark.parametrize(
    ("plan", "members", "wish"),
    [
        (_plan(_group("web")), {"web": (OLD,)}, None),
        (_plan(_group("web")), {}, None),
        (_plan(_group("web"), status=_reported("asr")), {"web": (OLD,)}, "withdrawn"),
        (_plan(_group("web"), status=_reported("asr")), {}, "withdrawn"),
        (_plan(_group("web"), status=_reported("asr2")), {"web": (WEB,)}, "wished"),
    ],
    ids=["native machines only", "not wanted", "its machines have left", "not wanted any more", "it moves here"],
)
def test_whether_a_plan_is_wished(plan: FailoverPlan, members: dict[str, Any], wish: str | None) -> None:
    found = plan_wish(plan, members, "asr")
    said = None if found is None else "withdrawn" if found.unwanted else "wished"
    assert said == wish


def test_names_are_legal_and_hold_who_it_is() -> None:
    name = naming.plan("dr", "Shop.With.Dots-" + "x" * 60)
    assert len(name) <= 63 and name.startswith("farshore-shop-with-dots-")
    assert naming.plan("dr", "shop") != naming.plan("other", "shop")
