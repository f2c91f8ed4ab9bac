"""The machines of a consistency group are cut at one instant; whoever breaks it costs the others a little time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.machine.group_rig import POLICY, Fleet, Ledgers, effects_without_cause, fleet_disks, open_fleet
from tests.machine.light_agent import LightAgent

from farshore_engine.contract.assignment import ConsistencyGroup, Desired
from farshore_engine.contract.points import RecoveryPoint, newest_group_cut
from farshore_engine.processserver import groups, keeper
from farshore_engine.vault.machine import StoredPoint

REAL = POLICY.model_copy(
    update={"crash_consistent_interval": timedelta(seconds=3), "freeze_bound": timedelta(seconds=15)}
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PATIENCE", 0.5)
    monkeypatch.setattr(groups, "ATTEMPTS", 2)
    monkeypatch.setattr(groups, "READY_SECONDS", 2.0)
    monkeypatch.setattr(groups, "SHORT_READY_SECONDS", 2.0)
    monkeypatch.setattr(keeper, "ATTEMPT_PAUSE", 0.5)


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with open_fleet(tmp_path, request.param) as fleet:
        yield fleet


def light(fleet: Fleet, stack: ExitStack, last: str = "") -> list[LightAgent]:
    """Start an agent for each machine; `last` is the mood of the last one."""
    agents = []
    for machine in fleet.machines:
        agent = LightAgent(machine, lambda machine=machine: fleet.identity(machine))  # type: ignore[misc]
        agent.mood = last if machine == fleet.machines[-1] else ""
        stack.callback(agent.stop)
        agents.append(agent.start())
    return agents


def cuts(fleet: Fleet) -> list[dict[str, RecoveryPoint]]:
    """All whole cuts, newest first."""
    points, found = fleet.summaries(), []
    while (newest := newest_group_cut(points)) is not None:
        found.append(newest)
        used = {p.name for p in newest.values()}
        points = {m: [p for p in its if p.name not in used] for m, its in points.items()}
    return found


def together(agents: list[LightAgent], point: str) -> bool:
    spans = [agent.freezes[point] for agent in agents]
    return max(since for since, _ in spans) <= min(until for _, until in spans)


@pytest.mark.parametrize("fleet", [4], indirect=True)
def test_a_restored_cut_of_four_machines_never_shows_an_effect_without_its_cause(fleet: Fleet) -> None:
    with ExitStack() as stack:
        disks = stack.enter_context(fleet_disks(fleet.directory, 4))
        writer = stack.enter_context(Ledgers(disks))
        stack.enter_context(fleet.process_server())
        fleet.assign(policy=REAL)
        for machine, disk in zip(fleet.machines, disks, strict=True):
            stack.enter_context(fleet.agent(machine, disk))
        fleet.wait(lambda: len(cuts(fleet)) >= 3 and writer.written > 100, 400, fleet.troubles)
        written = writer.written
    found = cuts(fleet)[:3]
    numbers = [restored(fleet, cut) for cut in found]
    for each in numbers:
        assert effects_without_cause(each) == set()
        assert all(each), "each machine was written to"
    assert max(max(s) for s in numbers[0]) > max(max(s) for s in numbers[2]), "the writer went on between the cuts"
    assert written > 100
    for cut in found:
        assert len({p.time for p in cut.values()}) == 1
        assert {p.consistency.value for p in cut.values()} == {"crash"}


@pytest.mark.parametrize("fleet", [4], indirect=True)
def test_without_the_barrier_the_same_machines_show_effects_without_their_causes(fleet: Fleet) -> None:
    """The control: were this to pass by luck, the test above would prove nothing.

    Where freezes are long, those of all machines may overlap by chance, so there are more rounds until one shows it.
    """
    shown, first = False, 1
    with ExitStack() as stack:
        disks = stack.enter_context(fleet_disks(fleet.directory, 4))
        stack.enter_context(Ledgers(disks))
        stack.enter_context(fleet.process_server())
        fleet.assign("", REAL)
        for machine, disk in zip(fleet.machines, disks, strict=True):
            stack.enter_context(fleet.agent(machine, disk))
        for count in (3, 6, 12, 24):
            fleet.wait(lambda: all(len(fleet.points(m)) >= count for m in fleet.machines))  # noqa: B023 - called at once
            rounds = [{m: fleet.points(m)[n].summary for m in fleet.machines} for n in range(first, count)]
            shown = any(effects_without_cause(restored(fleet, points)) for points in rounds)
            first = count
            if shown:
                break
    assert shown


def restored(fleet: Fleet, points: dict[str, RecoveryPoint]) -> list[set[int]]:
    found = []
    for machine, point in sorted(points.items()):
        stored: StoredPoint = next(p for p in fleet.points(machine) if p.manifest.name == point.name)
        found.append(Ledgers.numbers(fleet.content(machine, stored, Ledgers.NAME)))
    return found


@pytest.mark.parametrize("fleet", [16], indirect=True)
def test_sixteen_machines_freeze_together(fleet: Fleet) -> None:
    with ExitStack() as stack:
        stack.enter_context(fleet.process_server())
        fleet.assign()
        agents = light(fleet, stack)
        fleet.wait(lambda: all(len(a.committed) >= 2 for a in agents) and len(cuts(fleet)) >= 2)
    assert not any(agent.errors for agent in agents)
    for cut in cuts(fleet):
        group = next(iter(cut.values())).group
        assert group is not None
        assert group.members == tuple(fleet.machines)
        assert together(agents, group.id)
        assert len({p.time for p in cut.values()}) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fleet", [3], indirect=True)
def test_a_member_that_breaks_at_any_stage_spoils_that_cut_alone(fleet: Fleet) -> None:
    with ExitStack() as stack:
        stack.enter_context(fleet.process_server())
        fleet.assign()
        agents = light(fleet, stack)
        bad = agents[1]
        fleet.wait(lambda: len(cuts(fleet)) >= 1)
        for stage in ("the order", "ready", "frozen", "the cut"):
            count, broken = len(cuts(fleet)), len(bad.broken_at)
            bad.mood = f"dies at {stage}"
            fleet.wait(lambda: len(bad.broken_at) > broken)  # noqa: B023 - called at once
            fleet.wait(lambda: len(cuts(fleet)) > count)  # noqa: B023
        for mood in ("never ready", "never frozen", "thaws early"):
            count, seen = len(cuts(fleet)), len(alone(fleet))
            bad.mood = mood
            # On a busy machine a good one may be late too, for once.
            held = fleet.control.wait_report(
                "m00", lambda r: r.group is not None and r.group.held_up_by == (fleet.machines[1],)
            )
            assert fleet.machines[1] in held.message
            fleet.wait(lambda: len(alone(fleet)) > seen)  # noqa: B023
            bad.mood = ""
            fleet.wait(lambda: len(cuts(fleet)) > count)  # noqa: B023
            fleet.control.wait_report("m00", lambda r: r.group is not None and not r.group.held_up_by)
    for cut in cuts(fleet):
        group = next(iter(cut.values())).group
        assert group is not None
        assert together(agents, group.id)
    assert all("without the other machines" in " ".join(p.notes) for p in alone(fleet))
    assert not any(agent.errors for agent in agents)


def alone(fleet: Fleet) -> list[RecoveryPoint]:
    return [p for its in fleet.summaries().values() for p in its if p.group is None]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fleet", [3], indirect=True)
def test_a_process_server_that_ends_while_machines_are_frozen_cuts_nothing_and_then_goes_on(fleet: Fleet) -> None:
    with ExitStack() as stack:
        fleet.assign()
        with fleet.process_server():
            agents = light(fleet, stack, last="hangs at ready")
            fleet.wait(lambda: any(a.freezes or a._frozen_since for a in agents[:2]))
        assert cuts(fleet) == []
        agents[2].mood = ""
        stack.enter_context(fleet.process_server())
        fleet.wait(lambda: len(cuts(fleet)) >= 1)
    for cut in cuts(fleet):
        group = next(iter(cut.values())).group
        assert group is not None
        assert together(agents, group.id)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fleet", [3], indirect=True)
def test_a_paused_member_is_left_out_and_the_others_are_cut_without_it(fleet: Fleet) -> None:
    with ExitStack() as stack:
        stack.enter_context(fleet.process_server())
        fleet.assign()
        light(fleet, stack)
        fleet.wait(lambda: len(cuts(fleet)) >= 1)
        rest = ConsistencyGroup(name="shop", members=tuple(fleet.machines[:2]))
        fleet.control.change("m02", desired=Desired.PAUSE)
        for name in fleet.names:
            fleet.control.change(name, consistency_group=rest)

        def pair() -> bool:
            points = {m: its for m, its in fleet.summaries().items() if m in rest.members}
            newest = newest_group_cut(points)
            return newest is not None and all(p.group and p.group.members == rest.members for p in newest.values())

        fleet.wait(pair)


@pytest.mark.parametrize("fleet", [2], indirect=True)
def test_a_large_first_copy_leaves_bandwidth_to_the_points_of_another_machine(fleet: Fleet) -> None:
    """It took all of the appliance's limit, and the other machine's points came an hour late."""
    with ExitStack() as stack:
        stack.enter_context(fleet.process_server())
        fleet.control.configure(bandwidth_limit=1 << 20)
        fleet.assign(group="")
        small, large = (LightAgent(m, lambda m=m: fleet.identity(m)) for m in fleet.machines)  # type: ignore[misc]
        large.rounds = 1024  # a quarter of an hour of the limit, were it alone
        for agent in (small, large):
            stack.callback(agent.stop)
        small.start()
        fleet.wait(lambda: small.committed)
        large.start()
        fleet.wait(lambda: large._seq > 16)
        before = len(small.committed)
        fleet.wait(lambda: len(small.committed) >= before + 3)
        assert not large.synced


@pytest.mark.parametrize("fleet", [2], indirect=True)
def test_a_machine_whose_clock_is_off_gets_the_process_servers_time(fleet: Fleet) -> None:
    """Retention and selectors compare times of many machines; a clock that was an hour ahead kept points too long."""
    with ExitStack() as stack:
        stack.enter_context(fleet.process_server())
        fleet.assign(group="")
        agents = [LightAgent(m, lambda m=m: fleet.identity(m)) for m in fleet.machines]  # type: ignore[misc]
        agents[0].ahead, agents[1].ahead = 3600.0, 0.3
        for agent in agents:
            stack.callback(agent.stop)
            agent.start()
        fleet.wait(lambda: all(len(its) >= 1 for its in fleet.summaries().values()))
    off, good = (fleet.summaries()[m][0] for m in fleet.machines)
    assert abs((off.time - datetime.now(UTC)).total_seconds()) < 600
    told = re.search(r"clock was (\d+) s ahead", " ".join(off.notes))
    assert told and 3600 - 120 < int(told[1]) <= 3600, "as much as is certain: less by what its Hello was on its way"
    assert not good.notes
