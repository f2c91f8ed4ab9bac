"""Random histories of edits, reverts, crashes, losses: never two machines, never a move that nobody asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.circle import AWAY, HOME, Circle

from farshore_engine.contract.tasks import TaskKind

FAILING = (
    TaskKind.FINAL_POINT, TaskKind.FENCE, TaskKind.SELECT_POINT, TaskKind.HYDRATE, TaskKind.START_MACHINE,
    TaskKind.PROBE_MACHINE, TaskKind.WRITE_BACK, TaskKind.START_SOURCE, TaskKind.CLEAN_UP, TaskKind.READ_JOURNAL,
)  # fmt: skip


class Histories(RuleBasedStateMachine):
    """One or two machines, a plan, and whatever may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.circle = Circle("web-01", "web-02", recoveryPoint="LatestProcessed")

    # People and Git.

    @rule(site=st.sampled_from(["source", "recovery"]))
    def declare(self, site: str) -> None:
        self.circle.edit(activeSite=site)

    @rule(field=st.sampled_from(["commit", "abort", "reprotect"]), data=st.data())
    def name_a_run(self, field: str, data: st.DataObject) -> None:
        names = [*self.circle.begun, "another-run"]
        self.circle.edit(**{field: data.draw(st.sampled_from(names))})

    @rule(field=st.sampled_from(["commit", "abort", "reprotect", "changeRecoveryPoint"]))
    def take_back(self, field: str) -> None:
        self.circle.edit(**{field: None})

    @rule(data=st.data())
    def change_the_point(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([*self.circle.begun, "another-run"]))
        self.circle.edit(changeRecoveryPoint={"run": run, "point": "p-1"})

    @rule(word=st.sampled_from(["Automatic", "Manual"]))
    def commit_by_itself(self, word: str) -> None:
        self.circle.edit(commit=word, reprotect=word)

    @rule(rounds=st.integers(1, 12), mode=st.sampled_from(["planned", "planned", "unplanned"]))
    def go_on(self, rounds: int, mode: str) -> None:
        """Ask for what comes next on the way round, and begin with it."""
        self._next(mode)
        self.work(rounds)

    @rule(mode=st.sampled_from(["planned", "unplanned"]))
    def go_on_to_the_end(self, mode: str) -> None:
        self.circle.connected = {HOME, AWAY}
        self._next(mode)
        self.circle.settle()

    @rule()
    def go_on_and_lose_the_control_plane(self) -> None:
        self._next("planned")
        self.work(5)
        self.circle.build()
        self.circle.settle()

    @precondition(lambda self: self.circle.plan.status.active_run)
    @rule(rounds=st.integers(1, 12))
    def undo(self, rounds: int) -> None:
        self.circle.edit(abort=self.circle.plan.status.active_run)
        self.work(rounds)

    @precondition(lambda self: self.circle.plan.status.active_run)
    @rule(point=st.sampled_from(["p-1", "LatestProcessed"]), rounds=st.integers(1, 12))
    def take_another_point(self, point: str, rounds: int) -> None:
        self.circle.edit(changeRecoveryPoint={"run": self.circle.plan.status.active_run, "point": point})
        self.work(rounds)

    def _next(self, mode: str) -> None:
        plan = self.circle.plan
        run, site = plan.status.active_run, plan.status.active_site
        standing = self.circle.vm.status.standing
        place = standing.place.value if standing is not None else "Source"
        wanted: dict[str, object] = {
            "Source": {"activeSite": "recovery" if plan.spec.active_site == site else site},
            "FailedOver": {"commit": run},
            "Committed": {"reprotect": standing.run if standing is not None else None},
            "Reversed": {"activeSite": "source" if plan.spec.active_site == site else site},
            "FailedBack": {"commit": run},
        }[place]
        self.circle.edit(mode=mode, abort=None, changeRecoveryPoint=None, **wanted)

    # What happens.

    @rule(rounds=st.integers(1, 6))
    def work(self, rounds: int) -> None:
        for _ in range(rounds):
            self._reconcile_all()
            self.circle.work()
            self.circle.now += timedelta(seconds=1)

    @rule()
    def work_it_out(self) -> None:
        self.circle.settle()

    @rule(kind=st.sampled_from(["FailoverPlan", "FailoverRun", "ProtectedVM"]), data=st.data())
    def kill_the_operator(self, kind: str, data: st.DataObject) -> None:
        names = [name for found, name in self.circle.objects() if found == kind]
        if names:
            self.circle.reconcile(kind, data.draw(st.sampled_from(names)), killed=True)

    @rule(data=st.data())
    def kill_an_appliance(self, data: st.DataObject) -> None:
        tasks = [body["metadata"]["name"] for body in self.circle.cache.all("Task")]
        if tasks:
            self.circle.carry_out(data.draw(st.sampled_from(tasks)), heard=False)

    @rule(kind=st.sampled_from(FAILING))
    def something_will_fail(self, kind: TaskKind) -> None:
        self.circle.fail = {kind}

    @rule(server=st.sampled_from([HOME, AWAY]))
    def lose_a_site(self, server: str) -> None:
        self.circle.connected.discard(server)
        self.circle.now += timedelta(minutes=1)

    @rule()
    def find_the_sites_again(self) -> None:
        self.circle.connected = {HOME, AWAY}

    @rule()
    def lose_the_control_plane(self) -> None:
        self.circle.build()

    @rule()
    def prune_the_plan(self) -> None:
        self.circle.delete("FailoverPlan", "plan")
        self.circle.apply_plan()

    @precondition(lambda self: self.circle.runs())
    @rule(data=st.data())
    def prune_a_run(self, data: st.DataObject) -> None:
        names = [run.metadata.name for run in self.circle.runs()]
        self.circle.delete("FailoverRun", data.draw(st.sampled_from(names)))

    @rule()
    def let_time_pass(self) -> None:
        """When everything has come to rest, a day changes nothing."""
        self.circle.settle()
        begun = list(self.circle.begun)
        self.circle.now += timedelta(days=1)
        self.circle.settle()
        assert self.circle.begun == begun, "time alone has begun a run"

    def _reconcile_all(self) -> None:
        for kind, name in list(self.circle.objects()):
            self.circle.reconcile(kind, name)

    # What must always be.

    @invariant()
    def nothing_forbidden_has_happened(self) -> None:
        assert self.circle.violations == [], self.circle.violations

    @invariant()
    def no_machine_runs_twice(self) -> None:
        assert all(sum(power.values()) <= 1 for power in self.circle.power.values()), self.circle.power

    @invariant()
    def moves_begin_from_accepted_edits_only(self) -> None:
        moves = [name for name in self.circle.begun if name.endswith(("-failover", "-failback"))]
        assert len(moves) <= len(self.circle.accepted), (moves, self.circle.accepted)

    def teardown(self) -> None:
        """In the end no machine is lost: it runs, or a run that failed says that it does not, and how to go on."""
        self.circle.connected, self.circle.fail = {HOME, AWAY}, set()
        self.circle.settle()
        assert self.circle.violations == []
        for name, power in self.circle.power.items():
            if not any(power.values()):
                told = self.circle.get("ProtectedVM", name).status.condition("Ready")
                plan = self.circle.plan.status.condition("Ready")
                assert told.status == "False" or plan.status == "False", (told, plan)


def _run(examples: int) -> Callable[[], None]:
    case = Histories.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=examples < 100,
        phases=(Phase.explicit, Phase.generate) if examples < 100 else tuple(Phase),
    )
    return case().runTest


def test_histories() -> None:
    _run(6)()


@pytest.mark.soak
def test_many_histories() -> None:
    _run(500)()
