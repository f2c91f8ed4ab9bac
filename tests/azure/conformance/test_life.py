"""The failover life as its users see it, the same at every engine: what they edit, what becomes of the machines, and
what the objects say of it."""

from __future__ import annotations

from tests.azure.conformance.conftest import Begin
from tests.azure.conformance.life import PLAN, Life

DRILL = {"protectedVMRef": {"name": "web"}, "recoveryPoint": "LatestProcessed", "notes": "the page opens"}


def content(life: Life) -> str:
    """Let the machine have two points with different content, and write what no point has; return the older point."""
    life.write("web", "older")
    life.later()
    older = life.point_names("web")[-1]
    life.write("web", "newer")
    life.later()
    life.write("web", "newest")
    return older


def moved(life: Life, **more: object) -> str:
    """Fail over, and return the name of the run."""
    life.wish(activeSite="recovery", **more)
    assert life.phase("web") == "FailedOver", life.said("FailoverPlan", PLAN)
    assert life.running()["web"] == ["away"]
    return str(life.last_run("Failover").metadata.name)


def test_a_machine_is_protected_and_its_points_are_listed(begin: Begin) -> None:
    life = begin("web", "db")
    for name in ("web", "db"):
        assert life.phase(name) == "Protected" and life.ready(name), life.said("ProtectedVM", name)
        assert "Ready=True" in life.said("ProtectedVM", name) and life.point_names(name)
    before = life.point_names("web")
    life.later()
    assert life.point_names("web")[-1] not in before
    assert life.running() == {"web": ["home"], "db": ["home"]} and not life.wrong()


def test_a_drill_is_apart_tells_its_result_and_leaves_nothing(begin: Begin) -> None:
    life = begin("web", "db")
    content(life)
    home = life.touched()
    life.apply("TestFailover", "drill", DRILL)
    assert "DrillSucceeded=True" in life.said("TestFailover", "drill"), life.said("TestFailover", "drill")
    assert life.running() == {"web": ["home", "drill"], "db": ["home"]}
    assert any(word in life.drill_network("web") for word in ("drill-", "testvnet")), life.drill_network("web")
    assert life.read("web") == "newest" and life.ready("web"), "production goes on, and is as ready as before"
    life.remove("TestFailover", "drill")
    run = life.last_run("TestFailover")
    assert run.status.phase == "CleanedUp" and run.status.notes == "the page opens"
    assert life.running() == {"web": ["home"], "db": ["home"]} and not life.wrong()
    assert life.left(home), "something of the drill is left"


def test_a_failover_to_latest_takes_along_what_no_point_had(begin: Begin) -> None:
    life = begin("web", "db")
    content(life)
    moved(life)
    assert life.read("web") == "newest"
    assert life.running() == {"web": ["away"], "db": ["away"]} and not life.wrong()


def test_a_failover_to_a_chosen_point_brings_that_one(begin: Begin) -> None:
    life = begin("web")
    older = content(life)
    moved(life, recoveryPoint=older)
    assert life.read("web") == "older" and not life.wrong()


def test_another_point_is_chosen_then_it_is_final(begin: Begin) -> None:
    life = begin("web")
    older = content(life)
    run = moved(life)
    life.wish(changeRecoveryPoint={"run": run, "point": older})
    assert life.read("web") == "older" and life.running()["web"] == ["away"], life.said("FailoverPlan", PLAN)
    life.wish(commit=run)
    assert life.phase("web") == "FailedOver", "the name of an older run commits nothing"
    life.wish(commit=life.last_run("ChangePoint").metadata.name)
    assert life.phase("web") == "Committed" and life.read("web") == "older" and not life.wrong()


def test_a_machine_is_disabled_and_goes_on(begin: Begin) -> None:
    life = begin("web", "db")
    life.wish(groups=[{"name": "g", "members": [{"name": "db"}]}])
    life.remove("ProtectedVM", "web")
    assert life.cache.get("ProtectedVM", "shop", "web") is None
    assert life.running() == {"web": ["home"], "db": ["home"]}
    assert life.phase("db") == "Protected" and life.ready("db") and not life.wrong()


def test_while_a_run_is_under_way_no_second_one_begins(begin: Begin) -> None:
    life = begin("web")
    content(life)
    life._put("FailoverPlan", "other", {**life.plan_spec})
    life.settle()
    life.edit(activeSite="recovery")
    life.waiting("SelectPoint")
    life.edit(activeSite="source")
    other = {**life.body("FailoverPlan", "other")["spec"], "activeSite": "recovery"}
    life.change("FailoverPlan", "other", **other)
    assert len(life.runs()) == 1, [run.metadata.name for run in life.runs()]
    for name in (PLAN, "other"):
        edit = life.get("FailoverPlan", name).status.edit
        assert not edit.accepted and edit.reason == "RunUnderWay" and edit.message, edit
    assert life.running()["web"] == ["away"] and life.read("web") == "newest", "it goes on as it began"
    assert not life.wrong()


def test_an_old_manifest_moves_nothing(begin: Begin) -> None:
    life = begin("web")
    older = content(life)
    life.apply("TestFailover", "drill", DRILL)
    life.remove("TestFailover", "drill")
    before = {**life.plan_spec}
    run = moved(life)
    runs, touched = len(life.runs()), life.touched()
    life.wish(**before)  # somebody reverts the commit that asked for the failover
    assert "DesiredStateMismatch" in life.said("FailoverPlan", PLAN)
    life.wish(activeSite="recovery")  # and somebody reverts the revert
    life.wish(changeRecoveryPoint={"run": "an-older-run", "point": older}, commit="an-older-run")
    assert (len(life.runs()), life.touched()) == (runs, touched)
    life.wish(changeRecoveryPoint=None, commit=run)
    assert life.phase("web") == "Committed" and life.read("web") == "newest"
    life.wish(**before)
    assert life.running()["web"] == ["away"] and life.read("web") == "newest" and not life.wrong()


def test_who_carries_it_out_may_die_in_the_middle_of_each_step(begin: Begin) -> None:
    life = begin("web")
    older = content(life)
    life.be_killed()
    life.apply("TestFailover", "drill", DRILL)
    assert "DrillSucceeded=True" in life.said("TestFailover", "drill"), life.said("TestFailover", "drill")
    life.remove("TestFailover", "drill")
    run = moved(life)
    assert life.read("web") == "newest"
    life.wish(changeRecoveryPoint={"run": run, "point": older})
    life.wish(commit=life.last_run("ChangePoint").metadata.name)
    assert life.phase("web") == "Committed", life.said("FailoverPlan", PLAN)
    assert life.read("web") == "older" and life.running()["web"] == ["away"]
    assert not life.repeated() and not life.wrong(), (life.repeated(), life.wrong())
