"""Approval by Git: who may change where machines run, and what the others are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster.api_objects import Answer, Caller, Manifest
from tests.cluster.chart_world import CHART, SYSTEM, beyond_rbac, fresh, install, named, operator
from tests.cluster.people import person, settled, settled_policy

from farshore_cli.dev.controlplane import ControlPlane

SPACE, PLAN = "payments", named("FailoverPlan", "shop")
FLUX = "system:serviceaccount:payments:kustomize-controller"
APPROVAL = ("--set", "approval.enabled=true", "--set", f"approval.gitOps={{{FLUX}}}")
EMERGENCY = "farshore:break-glass"
BY, WHY = "farshore.dev/requested-by", "farshore.dev/reason"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own with the chart, approval by Git, and a plan."""
    with fresh(tmp_path_factory.mktemp("approval")) as running:
        install(running, *APPROVAL)
        running.kubectl("create", "namespace", SPACE)
        assert Caller.operator(running).create(SPACE, PLAN).message == ""
        root = Caller(running, "root", ("system:masters",))
        settled(lambda: root.merge(SPACE, PLAN, {"spec": {"abort": "probe"}}), "is changed in Git")
        yield running


@pytest.fixture(scope="module")
def flux(plane: ControlPlane) -> Caller:
    return beyond_rbac(plane, SPACE, "kustomize-controller")


@pytest.fixture(scope="module")
def jane(plane: ControlPlane) -> Caller:
    """A failover operator on an ordinary day."""
    return person(plane, SPACE, "jane@example.com", "farshore-failover-operator")


@pytest.fixture(scope="module")
def jane_in_need(plane: ControlPlane, jane: Caller) -> Caller:
    """The same person in an emergency: with her own rights, and in the group."""
    assert jane
    return Caller(plane, "jane@example.com", (EMERGENCY, "system:authenticated"))


def edit(who: Caller, spec: Manifest, **notes: str) -> Answer:
    """Edit the plan, with the annotations by (requested-by) and why (reason)."""
    names = {"by": BY, "why": WHY}
    annotations = {names[key]: value for key, value in notes.items()}
    return who.merge(SPACE, PLAN, {"metadata": {"annotations": annotations}, "spec": spec})


MOVES: list[Manifest] = [
    {"activeSite": "recovery"},
    {"commit": "shop-1-2-failover"},
    {"abort": "shop-1-3-failover"},
    {"recoveryPoint": "LatestProcessed"},
    {"changeRecoveryPoint": {"run": "shop-1-2-failover", "point": "LatestProcessed"}},
    {"reprotect": "Automatic"},
]


@pytest.mark.parametrize("spec", MOVES, ids=lambda spec: next(iter(spec)))
def test_a_person_does_not_move_machines_past_git(jane: Caller, spec: Manifest) -> None:
    (field,) = spec
    answer = edit(jane, spec, by="jane@example.com", why="I want to")
    assert (
        f"spec.{field} of FailoverPlan shop is changed in Git, which {FLUX} applies, and not by jane@example.com: "
        "commit it there; in an emergency act as group farshore:break-glass and say why in annotation "
        "farshore.dev/reason" in answer.message
    )


def test_git_moves_them(flux: Caller) -> None:
    for spec in MOVES:
        assert edit(flux, spec).message == ""
    assert edit(flux, {"activeSite": "source", "abort": None, "commit": "Manual"}).message == ""


def test_what_is_no_movement_is_free(plane: ControlPlane, jane: Caller) -> None:
    assert edit(jane, {"shutdownSource": "Required"}).message == ""
    root = Caller(plane, "root", ("system:masters",))
    assert edit(root, {"network": "dmz"}).message == ""
    assert edit(operator(plane), {}).message == "", "the operator puts its finalizers and annotations"


REFUSED = {
    "no reason": ({}, {"by": "jane@example.com"}, "says why, anew each time: set annotation farshore.dev/reason"),
    "an empty reason": ({}, {"by": "jane@example.com", "why": ""}, "says why, anew each time"),
    "no name": ({}, {"why": "the site burns"}, "signs for it: set annotation farshore.dev/requested-by to jane@"),
    "the name of another": (
        {},
        {"by": "boss@example.com", "why": "the site burns"},
        "set annotation farshore.dev/requested-by to jane@example.com, not boss@example.com",
    ),
}


@pytest.mark.parametrize(("spec", "notes", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_an_emergency_needs(jane_in_need: Caller, spec: Manifest, notes: dict[str, str], sentence: str) -> None:
    assert sentence in edit(jane_in_need, {**spec, "activeSite": "recovery"}, **notes).message


def test_an_emergency_with_name_and_reason_goes_through_and_each_needs_its_own(jane_in_need: Caller) -> None:
    me = "jane@example.com"
    assert edit(jane_in_need, {"activeSite": "recovery"}, by=me, why="the site burns").message == ""
    again = edit(jane_in_need, {"activeSite": "source"}, by=me, why="the site burns")
    assert "says why, anew each time" in again.message
    assert edit(jane_in_need, {"activeSite": "source"}, by=me, why="a false alarm").message == ""


def test_a_name_cannot_be_put_there_beforehand(plane: ControlPlane, jane: Caller) -> None:
    """Otherwise one person lays another's name down, and whoever moves the machines next is not asked again."""
    answer = edit(jane, {}, by="boss@example.com")
    assert "is for your own name: you are jane@example.com, not boss@example.com" in answer.message
    assert edit(jane, {}, by="jane@example.com").message == ""


def test_a_plan_is_not_made_anew_with_what_may_not_be_changed(plane: ControlPlane) -> None:
    root = Caller(plane, "root", ("system:masters",))
    moved = named("FailoverPlan", "second", spec__activeSite="recovery", spec__commit="Automatic")
    answer = root.create(SPACE, moved)
    assert "spec.activeSite, spec.commit of FailoverPlan second is changed in Git" in answer.message
    assert root.create(SPACE, named("FailoverPlan", "second")).message == ""


def test_teams_without_git_sign_with_their_names(plane: ControlPlane, jane: Caller) -> None:
    """people: Named. The last test here, because it changes the installation."""
    plane.helm("upgrade", "farshore", str(CHART), "-n", SYSTEM, *APPROVAL, "--set", "approval.people=Named")
    settled(lambda: edit(jane, {"abort": "probe"}, by=""), "signs for it")
    assert "not boss" in edit(jane, {"activeSite": "recovery"}, by="boss").message
    assert edit(jane, {"activeSite": "recovery"}, by="jane@example.com").message == ""


def test_the_policy_is_free_of_mistakes_that_the_api_server_finds(plane: ControlPlane) -> None:
    assert settled_policy(plane, "farshore-approval")["status"].get("typeChecking", {}) == {}


def test_it_needs_admission(plane: ControlPlane) -> None:
    without = plane.helm("template", "x", str(CHART), *APPROVAL, "--set", "admission.enabled=false", check=False)
    assert "approval.enabled needs admission.enabled" in without.stderr
