"""What waits does so for a bounded time, and holds nobody else up: agents that hang, tasks, packs, an absent vault."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import SecretBytes
from tests.machine.memory_controlplane import assignment

from farshore_engine.blocks.encoded import encode
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import (
    Desired,
    DirectoryAccess,
    Policy,
    VaultAccess,
)
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskInput, TaskKind, TaskPhase, TaskReport, TaskResult
from farshore_engine.processserver import keeper as keeper_module
from farshore_engine.processserver import machine as machine_module
from farshore_engine.processserver import service as service_module
from farshore_engine.processserver import taskrunner as runner_module
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.closedpoint import server_time
from farshore_engine.processserver.generation import AgentSession
from farshore_engine.processserver.keeper import SILENCE, PointKeeper, Points
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.opening import open_replica
from farshore_engine.processserver.push import shutdown
from farshore_engine.processserver.replica import Replica
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.shared import Link, Shared
from farshore_engine.wire.frames import PROTOCOL
from farshore_engine.wire.messages import Baseline, Consistency, Hello

WAIT = 60.0
DISK = "disk-a"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


class Agent:
    """A session that only counts."""

    def __init__(self) -> None:
        self.cuts = 0
        self.told: list[object] = []
        self.peer = "10.0.0.1"

    def cut(self) -> None:
        self.cuts += 1

    def send(self, message: object, payload: bytes = b"") -> None:
        self.told.append(message)

    def hang_up(self, reason: str) -> None: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replica(tmp_path: Path, clock: Clock) -> Iterator[Replica]:
    with ThreadPoolExecutor(2) as encoders:
        shared = Shared("ps", SpoolBudget(1 << 30), encoders, Metrics(), monotonic=clock, now=clock.now)
        vault = VaultAccess(name="v", storage=DirectoryAccess(path=tmp_path / "v"), key=SecretBytes(b"k" * 32))
        replica = open_replica(assignment("vm", vault, Policy()), tmp_path / "spool", shared)
        replica.link = Link(connected=True, synced=True)
        yield replica
        replica.close("end")


def connected(replica: Replica) -> Agent:
    agent = Agent()
    replica.session = cast(Any, agent)
    return agent


# -- an agent that hangs -----------------------------------------------------------------------------------------------


def test_an_agent_that_owes_a_point_and_says_nothing_loses_its_connection(replica: Replica, clock: Clock) -> None:
    """Its session hung in a read and its channel went on answering pings: there was never another point."""
    agent, keeper = connected(replica), PointKeeper(replica, Points())
    assert replica.attempts.ask("p1", Consistency.CRASH)
    clock.seconds += SILENCE + 2 * replica.assignment.policy.hook_window.total_seconds() - 1
    keeper._look_for_silence()
    assert agent.cuts == 0
    clock.seconds += 2
    keeper._look_for_silence()
    assert agent.cuts == 1


@pytest.mark.parametrize("what", ["owes nothing", "is paused", "is held back", "says something"])
def test_an_agent_that_cannot_or_need_not_speak_keeps_its_connection(replica: Replica, clock: Clock, what: str) -> None:
    agent, keeper = connected(replica), PointKeeper(replica, Points())
    if what != "owes nothing":
        assert replica.attempts.ask("p1", Consistency.CRASH)
    if what == "is paused":
        replica.assignment = replica.assignment.model_copy(update={"desired": Desired.PAUSE})
    for _ in range(10):
        with replica.silence.busy() if what == "is held back" else nullcontext():
            clock.seconds += SILENCE / 2
            keeper._look_for_silence()
        if what == "says something":
            replica.silence.broken()
    assert agent.cuts == 0


def test_a_low_bandwidth_limit_is_no_silence(replica: Replica, clock: Clock) -> None:
    agent, keeper = connected(replica), PointKeeper(replica, Points())
    policy = replica.assignment.policy.model_copy(update={"bandwidth_limit": 1 << 10})
    replica.assignment = replica.assignment.model_copy(update={"policy": policy})
    assert replica.attempts.ask("p1", Consistency.CRASH)
    clock.seconds += 1500  # a frame of a megabyte takes 1024 s
    keeper._look_for_silence()
    assert agent.cuts == 0


# -- a point now -------------------------------------------------------------------------------------------------------


def take_now(keeper: PointKeeper, timeout: float = 120.0) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(keeper.take_now, timeout)
    pool.shutdown(wait=False)
    return future


def after(clock: Clock, seconds: float, future: Future[Any]) -> Any:
    """Return the result that there is when so much time has passed, whenever its thread began to look at the clock."""
    deadline = time.monotonic() + WAIT
    while not future.done() and time.monotonic() < deadline:
        clock.seconds += seconds
        time.sleep(0.02)
    return future.result(WAIT)


def test_an_agent_that_is_connecting_again_is_waited_for(replica: Replica, clock: Clock) -> None:
    """It counted as away, and a failover took the point before the last."""
    keeper = PointKeeper(replica, Points())
    replica.link = Link(connected=False, last_seen=clock.now())
    future = take_now(keeper)
    with pytest.raises(TimeoutError):
        future.result(0.6)
    with pytest.raises(StopFault):  # nothing was ever received; with points, the newest would come back
        after(clock, keeper_module.RECONNECTING + 1, future)


def test_an_agent_that_is_long_away_is_not_waited_for(replica: Replica, clock: Clock) -> None:
    keeper = PointKeeper(replica, Points())
    replica.link = Link(connected=False, last_seen=clock.now() - timedelta(hours=1))
    future = take_now(keeper)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    with pytest.raises(StopFault):
        after(clock, 0.01, future)


# -- packs on slow links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "packs"),
    [
        pytest.param(0.01, 1, id="a stream that pauses is sealed soon"),
        # Nothing is known of the link at the first two frames; then a pack is open for 10 s, which is three frames.
        pytest.param(4.0, 2 + 18 // 3, id="a slow link does not get a pack for each frame"),
    ],
)
def test_packs_fill_on_a_slow_link(replica: Replica, clock: Clock, gap: float, packs: int) -> None:
    replica.spool.begin_session(AgentSession("s"))
    acknowledged = threading.Event()
    replica.intake.on_durable = lambda seq: acknowledged.set() if seq == 20 else None
    for seq in range(1, 21):
        _, encoded = encode(replica.vault.digest_key, np.random.default_rng(seq).bytes(BLOCK_SIZE))
        replica.intake.data(seq, DISK, np.array([seq], np.int64), encoded)
        with replica.intake._changed:  # however long the encoders take, no time passes meanwhile
            assert replica.intake._changed.wait_for(lambda: all(one.refs.done() for one in replica.intake._items), WAIT)
        clock.seconds += gap
    for _ in range(2000):
        clock.seconds += 0.5
        if acknowledged.wait(0.05):
            break
    assert acknowledged.is_set(), "nothing waits for ever"
    made = len(replica.spool.current.packs)
    assert made <= packs


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_tasks_that_wait_hold_no_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight of them waited for a process server of another site, and a failover behind them did not begin."""
    waits, done = threading.Semaphore(0), threading.Event()

    def wait(task: TaskAssignment, context: object) -> TaskResult:
        waits.release()
        raise WaitFault("the vault is away", retry_after=60)

    def work(task: TaskAssignment, context: object) -> TaskResult:
        done.set()
        return TaskResult()

    own = {TaskKind.PREFLIGHT: wait, TaskKind.HYDRATE: work}
    monkeypatch.setattr(runner_module, "executor_of", lambda task: own[task.kind])

    class Plane:
        def report_task(self, name: str, report: TaskReport) -> None: ...

    context = SimpleNamespace(now=lambda: datetime.now(UTC))
    monkeypatch.setattr(runner_module, "replace", lambda context, **changes: context)
    runner = runner_module.TaskRunner(cast(Any, Plane()), cast(Any, context))

    def task(name: str, kind: TaskKind) -> TaskAssignment:
        return TaskAssignment(name=name, kind=kind, run="run", input=TaskInput(machine_id="demo.vm"))

    waiting = [task(f"wait-{n}", TaskKind.PREFLIGHT) for n in range(3 * runner_module.WORKERS)]
    try:
        runner.take(waiting)
        for _ in waiting:
            assert waits.acquire(timeout=WAIT)
        runner.take([*waiting, task("work", TaskKind.HYDRATE)])
        assert done.wait(WAIT)
    finally:
        runner.stop()
    assert not any(thread.is_alive() for thread in runner._threads)


def test_a_clean_up_that_is_over_calls_off_no_later_task_of_a_machine_of_that_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine went away a second time under its name, and its disks were not written."""
    reports: dict[str, TaskReport] = {}
    done = threading.Event()

    class Plane:
        def report_task(self, name: str, report: TaskReport) -> None:
            reports[name] = report
            if report.phase in runner_module.FINAL:
                done.set()

    monkeypatch.setattr(runner_module, "executor_of", lambda _: lambda task, context: TaskResult())
    monkeypatch.setattr(runner_module, "replace", lambda context, **changes: context)
    runner = runner_module.TaskRunner(cast(Any, Plane()), cast(Any, SimpleNamespace(now=lambda: datetime.now(UTC))))

    def task(name: str, kind: TaskKind, report: TaskReport | None = None) -> TaskAssignment:
        wanted = TaskInput(machine_id="demo.vm", machine_name="vm")
        return TaskAssignment(name=name, kind=kind, run="run", input=wanted, report=report)

    over = task("clean", TaskKind.CLEAN_UP, TaskReport(phase=TaskPhase.SUCCEEDED))
    try:
        runner.take([over, task("hydrate", TaskKind.HYDRATE)])
        assert done.wait(WAIT)
    finally:
        runner.stop()
    assert reports["hydrate"].phase is TaskPhase.SUCCEEDED, reports["hydrate"]


# -- the end -----------------------------------------------------------------------------------------------------------


def test_an_end_does_not_wait_for_a_vault_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(service_module, "STOP_SECONDS", 0.2)
    settings = service_module.Settings(state_dir=tmp_path, address="127.0.0.1")
    server = service_module.ProcessServer(cast(Any, None), cast(Any, None), settings)
    server.__dict__["_tasks"] = SimpleNamespace(stop=lambda: None)
    release = threading.Event()
    stuck = SimpleNamespace(stop=lambda: release.wait(WAIT), assignment=SimpleNamespace(machine_id="demo.vm"))
    server._supervisors["vm"] = cast(Any, stuck)
    ended = threading.Thread(target=server._shut_down, daemon=True)
    ended.start()
    ended.join(WAIT / 2)
    try:
        assert not ended.is_alive()
    finally:
        release.set()


def test_a_failed_over_machine_is_hung_up_on_while_its_agent_is_pushed(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A push takes minutes; until its end the agent of a machine that runs elsewhere now fed its old chain."""
    agent = connected(replica)
    around = SimpleNamespace(
        state_dir=tmp_path, shared=replica.shared, report=lambda name, report: None, cadence=Cadence()
    )
    served = machine_module.MachineSupervisor(replica.assignment, cast(Any, around))
    served._replica = replica
    served._keeper = PointKeeper(replica, Points())
    served.assign(replica.assignment.model_copy(update={"desired": Desired.STOP}))
    assert agent.cuts == 1
    assert replica.closed
    refused = served.replica_of_agent()
    assert not isinstance(refused, Replica)


# -- clocks and ports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frozen", "ahead", "time", "said"),
    [
        pytest.param(105.0, 0.0, 105.0, "", id="clocks agree"),
        pytest.param(106.5, 1.5, 106.5, "", id="little is left as it is"),
        pytest.param(3705.0, 3600.0, 105.0, "3600 s ahead", id="an hour ahead"),
        pytest.param(-3495.0, -3600.0, 105.0, "3600 s behind", id="an hour behind"),
        pytest.param(9000.0, 0.0, 110.0, "s ahead", id="set while the agent was connected"),
        pytest.param(5.0, 0.0, 100.0, "s behind", id="set back meanwhile"),
    ],
)
def test_a_points_time_is_the_process_servers(frozen: float, ahead: float, time: float, said: str) -> None:
    found, note = server_time(frozen, ahead, asked=100.0, received=110.0)
    assert found == time
    assert said in note
    assert bool(note) == bool(said)


@pytest.mark.parametrize(
    ("clock", "waited", "ahead"),
    [
        pytest.param(1000.5, 0.0, 0.5, id="as it is"),
        pytest.param(940.0, 60.0, 0.0, id="stalled for a minute between Hello and its answer"),
        pytest.param(975.0, 60.0, 0.0, id="nobody knows in which moment of it"),
        pytest.param(1030.0, 60.0, 30.0, id="ahead whatever passed"),
        pytest.param(-2660.0, 60.0, -3600.0, id="an hour behind, and stalled"),
    ],
)
def test_the_time_that_a_stalled_process_server_lost_is_no_difference_of_clocks(
    clock: float, waited: float, ahead: float
) -> None:
    """A process server that was stopped for a minute moved every point of the session by a minute, with a note."""
    now = datetime.fromtimestamp(1000.0, UTC)
    hello = Hello(PROTOCOL, "1", "demo.vm", "b", "tracefs", "", (), {}, Baseline("s", "", 0, ""), clock)
    assert Link.of(hello, None, "", now, waited).clock_skew == pytest.approx(ahead)


@pytest.mark.parametrize(
    ("address", "forwarder"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("10.0.0.4", False), ("db.corp", False)],
)
def test_a_refused_port_is_a_machine_that_runs_unless_a_forwarder_refuses(address: str, forwarder: bool) -> None:
    assert shutdown._forwarded(address) is forwarder
