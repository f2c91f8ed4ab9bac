"""The demo's story, whole, and with its actors killed and Git reverted in the middle of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.demo.circle import Circle
from tests.demo.kube import Object, phase
from tests.demo.scenario import failure, progress
from tests.demo.stage import Stage
from tests.demo.summary import Summary
from tests.e2e.conftest import left_behind
from tests.e2e.secrets import CommandLines, leaks, places, secrets_of
from tests.machine.traces import processes_of

from farshore_engine.machines.network import namespaces
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import MachineState

MOVES = {"Failover", "Commit", "Reprotect", "Failback"}


def play(scenario: Circle) -> None:
    try:
        scenario.play()
    finally:
        scenario.close()


def network_namespaces(directory: Path) -> set[str]:
    """Return the network namespaces of the machines that run below a directory."""
    pids = [line.split()[0] for line in processes_of(str(directory))]
    asked = [subprocess.run(["ip", "netns", "identify", pid], capture_output=True, text=True) for pid in pids]
    return {answer.stdout.strip() for answer in asked if answer.returncode == 0} - {""}  # it may have ended meanwhile


class Overheard(Circle):
    """The story with somebody who reads everything that can be read, before the machines move and after."""

    def __init__(self, stage: Stage, summary: Summary) -> None:
        super().__init__(stage, summary, lambda _: None, print)
        self.command_lines = CommandLines()
        self.leaks: list[str] = []

    def fail_over(self) -> None:
        secrets = secrets_of(self.stage, self)
        assert len(secrets) > 10, f"too few secrets were found to look for: {sorted(secrets)}"
        self.leaks = leaks(secrets, places(self.stage, self, self.command_lines))
        super().fail_over()

    def protected_again(self) -> None:
        super().protected_again()
        self.leaks += leaks(secrets_of(self.stage, self), places(self.stage, self, self.command_lines))

    def close(self) -> None:
        self.command_lines.close()
        super().close()


@pytest.mark.timeout(1800)
def test_machines_are_protected_drilled_moved_and_brought_home(stage: Stage, tmp_path: Path) -> None:
    summary = Summary()
    scenario = Overheard(stage, summary)
    play(scenario)
    assert scenario.leaks == []  # invariant 10
    summary.write(tmp_path / "demo.json")
    written = json.loads((tmp_path / "demo.json").read_text())
    assert written["ok"] is True, written
    assert written["test_failover"]["disks_match"] is True
    assert written["failover"]["disks_match"] is True
    assert written["failover"]["database_ok"] is True
    assert written["failover"]["rpo_seconds"] >= 0
    assert written["failback"]["lost_transactions"] == 0
    for move in ("reprotect", "failback"):
        assert 0 < written[move]["bytes_moved"] < written[move]["disk_bytes"] / 4, "what changed, not the disks"
    used = network_namespaces(stage.directory)
    assert used, "the machines run in namespaces"
    stage.down()
    deadline = time.monotonic() + 180
    while left_behind(stage.directory) or not used.isdisjoint(namespaces()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)  # who was killed a moment ago
    assert left_behind(stage.directory) == []
    assert used.isdisjoint(namespaces())


class Killed(Circle):
    """The story with kill -9 of operator and process servers in the middle of copying, drilling and every move, and
    with a commit in Git reverted while a move is under way.

    Attributes:
        struck: what was killed, and in the middle of what.
        late: whether WriteBack had ended when its process server was killed, which a busy machine may bring about.
    """

    def __init__(self, stage: Stage, summary: Summary) -> None:
        super().__init__(stage, summary, lambda _: None, print)
        self.struck: list[str] = []
        self.late = False

    def protect(self) -> None:
        self.kube.apply(self._write("ProtectedVM"))
        self.kube.wait("protectedvm", self.machine, lambda one: phase(one) in ("InitialReplication", "Protected"),
                       within=600, say=progress, failed=failure)  # fmt: skip
        self.kill("the first copy", "operator", "ps-stack")
        super().protect()

    def begin_drill(self, point: str) -> None:
        super().begin_drill(point)
        self.kube.wait("testfailover", self._name("TestFailover"), lambda one: phase(one) in ("Running", "Succeeded"),
                       within=600)  # fmt: skip
        self.kill("the drill", "ps-shore", "operator")

    def clean_up(self) -> None:
        super().clean_up()
        assert len(self.runs("TestFailover")) == 1

    def edit(self, **spec: object) -> None:
        super().edit(**spec)
        site = spec.get("activeSite")
        if site == "recovery":
            self.middle("Failover", "db-01", "FinalPoint", self.revert_and_kill)
        elif site == "source" and self.moves:
            self.middle("Failback", "db-01", "Fence", lambda run: self.kill("the failback", "operator"))
            self._until(lambda: self.begun("ps-stack", "writeback") > 0, "WriteBack does not begin", 240, 0.02)
            self.kill("WriteBack", "ps-stack")

    def revert_and_kill(self, run: Object) -> None:
        """Set the field back, kill the operator, and see that nothing in flight has changed; then set it anew."""
        super().edit(activeSite="source")
        self.kill("the planned failover", "operator")

        def refused(plan: Object) -> bool:
            seen = plan["status"].get("edit", {})
            return bool(seen.get("generation") == plan["metadata"]["generation"] and not seen["accepted"])

        plan = self.kube.wait("failoverplan", self.plan, refused, within=600)
        assert plan["status"]["edit"]["reason"] == "RunUnderWay", plan["status"]["edit"]
        (now,) = self.runs("Failover")
        assert now["spec"] == run["spec"]
        assert now["metadata"]["uid"] == run["metadata"]["uid"]
        assert self.runs("Abort") == self.runs("Failback") == []
        super().edit(activeSite="recovery")

    def middle(self, kind: str, member: str, step: str, strike: Callable[[Object], None]) -> None:
        """Do something as soon as a step of a run has begun."""

        def begun() -> Object | None:
            for run in self.runs(kind):
                for one in run["status"].get("steps", ()):
                    if (one["name"], one["member"]) == (step, member) and one["phase"] != "Pending":
                        return run
            return None

        self._until(lambda: begun() is not None, f"{kind} does not come to {step} of {member}", 400)
        run = begun()
        assert run is not None
        assert phase(run) == "Running", f"{step} was not caught in the middle of the run: {run['status']}"
        strike(run)

    def begun(self, actor: str, step: str) -> int:
        """Return how often a process server has begun a step of the first machine's moves."""
        lines = self.stage.log(actor).read_text(errors="replace").splitlines()
        return sum("task begins" in line and f"-db-01-{step}" in line for line in lines)

    def written_back(self) -> bool:
        """Tell whether the end of the first machine's WriteBack was told, to its task or already to its run."""
        tasks = [(one["metadata"]["name"], phase(one)) for one in self.kube.all("tasks")]
        steps = [step for run in self.runs("Failback") for step in run["status"].get("steps", ())]
        known = [(s["name"], s["member"], s["phase"]) for s in steps]
        return ("WriteBack", "db-01", "Succeeded") in known or any(
            "-db-01-writeback" in name and ended == "Succeeded" for name, ended in tasks
        )

    def kill(self, when: str, *actors: str) -> None:
        for actor in actors:
            self.stage.processes[actor].kill()
            time.sleep(1)
            if when == "WriteBack":  # looked at while nobody is there who could end it
                self.late = self.written_back()
            if actor == "operator":
                self.stage.start_operator()
            else:
                self.stage.restart_process_server(actor)
            self.struck.append(f"{actor} in {when}")

    def commit(self) -> None:
        self.one_each("ps-shore", self.source.machines.run_dir)
        super().commit()

    def commit_back(self) -> None:
        again = self.begun("ps-stack", "writeback") > 1
        assert again or self.late, "it was killed in the middle of it, and did it again"
        self.one_each("home", self.stage.directory / "ps-shore" / "state" / "runtime")
        super().commit_back()

    def one_each(self, where: str, other: Path) -> None:
        """See that no machine runs at the place that they left."""
        still = [one.name for one in MachineRuntime(other).list() if one.state is MachineState.RUNNING]
        assert still == [], f"they run at {where}, and these at {other} too"


@pytest.mark.timeout(2400)
def test_kills_and_reverts_in_the_middle_of_everything_end_with_one_run_and_one_machine(stage: Stage) -> None:
    summary = Summary()
    scenario = Killed(stage, summary)
    play(scenario)
    assert summary.ok, summary
    assert len(scenario.struck) == 7, scenario.struck
    for kind in MOVES:
        runs = scenario.runs(kind)
        wanted = 2 if kind == "Commit" else 1
        assert [phase(run) for run in runs] == ["Succeeded"] * wanted, (kind, runs)


def test_a_secret_in_a_log_would_be_noticed() -> None:
    assert leaks({"the SSH password": "hunter22"}, {"ps.log": "login as root with hunter22"}) == [
        "the SSH password is in ps.log"
    ]
