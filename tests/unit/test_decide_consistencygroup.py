"""Machines that must be cut at one instant share a process server, and are told what keeps them from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.decide_world import NOW, STACK, observed, report, vm, with_meta, with_spec

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.points import GroupCut
from farshore_engine.contract.replication import GroupReport
from farshore_operator.api import ProtectedVM
from farshore_operator.api.protectedvm import Assignment
from farshore_operator.decide import protection
from farshore_operator.decide.assignment import Placement, place
from farshore_operator.decide.consistencygroup import Peer, conflict, peers, resolved
from farshore_operator.decide.readiness import blockers, failover_ready
from farshore_operator.report.conditions import Seen

SECOND = replace(STACK, name="ps-two", load=0)


def member(name: str, server: str = "ps-stack", **status: object) -> ProtectedVM:
    assignment = Assignment(process_server=server, epoch=1) if server else None
    made = with_spec(with_meta(vm(assignment=assignment, **status), name=name), consistency_group="shop")
    return made


def placed(machine: ProtectedVM, *others: ProtectedVM, servers: tuple[object, ...] = (STACK, SECOND)) -> Placement:
    group = peers((machine, *others), "shop")
    return place(observed(machine, servers=servers, group=group), Desired.REPLICATE, NOW)


def test_a_new_member_goes_where_its_group_is() -> None:
    joined = placed(member("a", ""), member("b", "ps-stack"))
    assert joined.assignment is not None
    assert joined.assignment.process_server == "ps-stack", "the other server has less to do"


def test_members_on_different_servers_come_together_on_the_first_ones() -> None:
    first = placed(member("a", "ps-two"), member("b", "ps-stack"))
    second = placed(member("b", "ps-stack"), member("a", "ps-two"))
    assert first.assignment == Assignment(process_server="ps-two", epoch=1)
    assert second.assignment is not None
    assert (second.assignment.process_server, second.assignment.epoch) == ("ps-two", 2)


def test_a_member_that_rests_leads_nobody() -> None:
    stays = placed(member("b", "ps-stack"), member("a", "ps-two", desired="Stop"))
    assert stays.assignment == Assignment(process_server="ps-stack", epoch=1)


def test_when_their_server_dies_the_first_moves_and_the_others_follow() -> None:
    dead = replace(STACK, connected=False, heartbeat=NOW - timedelta(hours=1))
    servers = (dead, SECOND)
    follower = placed(member("b"), member("a"), servers=servers)
    leader = placed(member("a"), member("b"), servers=servers)
    assert follower.assignment == Assignment(process_server="ps-stack", epoch=1)
    assert leader.assignment == Assignment(process_server="ps-two", epoch=2)
    followed = placed(member("b"), member("a", "ps-two"), servers=servers)
    assert followed.assignment == Assignment(process_server="ps-two", epoch=2)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param(tuple(Peer(f"m{n:02}", "stack") for n in range(16)), "", id="sixteen are not too many"),
        pytest.param(tuple(Peer(f"m{n:02}", "stack") for n in range(17)), "TooManyMembers", id="seventeen are"),
        pytest.param((Peer("a", "stack"), Peer("b", "other")), "SitesDiffer", id="two sites"),
        pytest.param(
            (Peer("a", "stack", "ps-1"), Peer("b", "stack", "ps-2")), "ProcessServersDiffer", id="two servers named"
        ),
        pytest.param((Peer("a", "stack", "ps-1"), Peer("b", "stack")), "", id="one server named by one of them"),
    ],
)
def test_a_group_that_cannot_be_cut_says_why(members: tuple[Peer, ...], reason: str) -> None:
    found = conflict("shop", members)
    assert (found.reason if found else "") == reason


def test_a_conflict_is_a_condition_and_the_machine_is_still_protected_alone() -> None:
    others = [member(f"m{n:02}") for n in range(16)]
    machine = member("web-01")
    everybody = [machine, *others]
    assert resolved(machine, everybody) is None
    seen = condition(machine, *others)
    assert (seen.holds, seen.reason) == (False, "TooManyMembers")
    assert "17 members" in seen.message
    assert placed(machine, *others).assignment == Assignment(process_server="ps-stack", epoch=1)


def test_paused_and_stopped_members_are_left_out_of_the_cut() -> None:
    machine = member("a")
    group = resolved(machine, [machine, member("b", desired="Pause"), member("c", desired="Stop"), member("d")])
    assert group is not None
    assert group.members == ("shop.a", "shop.d")


@pytest.mark.parametrize(
    ("told", "holds", "reason"),
    [
        pytest.param(None, None, "NotReported", id="nothing said yet"),
        pytest.param({"members": ("shop.a", "shop.b")}, None, "NoCutYet", id="no cut yet"),
        pytest.param({"members": ("shop.a",)}, True, "Alone", id="the others rest"),
        pytest.param(
            {"members": ("shop.a", "shop.b"), "last_cut": GroupCut(name="shop", id="1")}, True, "CutTogether", id="cut"
        ),
        pytest.param(
            {"members": ("shop.a", "shop.b"), "held_up_by": ("shop.b",)}, False, "HeldUp", id="a member holds it up"
        ),
    ],
)
def test_the_condition_tells_whether_the_machines_are_cut_together(
    told: dict[str, object] | None, holds: bool | None, reason: str
) -> None:
    group = GroupReport(name="shop", **told) if told is not None else None
    seen = condition(member("a", replication=report(group=group)), member("b"))
    assert (seen.holds, seen.reason) == (holds, reason)
    if reason == "HeldUp":
        assert "shop.b" in seen.message


def condition(machine: ProtectedVM, *others: ProtectedVM) -> Seen:
    facts = observed(machine, group=peers((machine, *others), "shop"))
    situation = protection.Situation(
        facts, Placement(machine.status.assignment), failover_ready(facts, blockers(facts, NOW), NOW), NOW
    )
    return next(s for s in protection.conditions(situation) if s.type == protection.CONSISTENCY_GROUP)
