"""The demo's story, whole, and with its actors killed in the middle of it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests.demo.kube import phase
from tests.demo.scenario import Scenario, failure, progress
from tests.demo.stage import Stage
from tests.demo.summary import Summary
from tests.e2e.conftest import left_behind
from tests.e2e.secrets import CommandLines, leaks, places, secrets_of
from tests.machine.traces import processes_of

from farshore_engine.machines.network import namespaces


def play(scenario: Scenario) -> None:
    try:
        scenario.play()
    finally:
        scenario.close()


def network_namespaces(directory: Path) -> set[str]:
    """Return the network namespaces of the machines that run below a directory."""
    pids = [line.split()[0] for line in processes_of(str(directory))]
    return {subprocess.check_output(["ip", "netns", "identify", pid], text=True).strip() for pid in pids}


class Overheard(Scenario):
    """The story with somebody who reads everything that can be read, just before the source is shut down."""

    def __init__(self, stage: Stage, summary: Summary) -> None:
        super().__init__(stage, summary, lambda _: None, print)
        self.command_lines = CommandLines()
        self.leaks: list[str] = []

    def fail_over(self) -> None:
        secrets = secrets_of(self.stage, self)
        assert len(secrets) > 10, f"too few secrets were found to look for: {sorted(secrets)}"
        self.leaks = leaks(secrets, places(self.stage, self, self.command_lines))
        super().fail_over()
        self.leaks += leaks(secrets, places(self.stage, self, self.command_lines))

    def close(self) -> None:
        self.command_lines.close()
        super().close()


def test_a_machine_is_protected_drilled_and_failed_over(stage: Stage, tmp_path: Path) -> None:
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
    used = network_namespaces(stage.directory)
    assert used, "the recovered machine runs in a namespace"
    stage.down()
    assert left_behind(stage.directory) == []
    assert used.isdisjoint(namespaces())


class Killed(Scenario):
    """The story with kill -9: the operator and both process servers, while copying and while drilling."""

    def protect(self) -> None:
        self._kill_soon_after("protectedvm", self.machine, "InitialReplication", ("operator", "ps-stack"))
        super().protect()

    def drill(self) -> None:
        super().drill()
        runs = self._runs()
        assert len(runs) == 1, f"one drill, one run: {runs}"

    def fail_over(self) -> None:
        self._restart("operator")
        super().fail_over()
        assert len(self._runs()) == 2, f"one failover, one run: {self._runs()}"

    def _runs(self) -> list[str]:
        plane = self.stage.environment.control_plane
        return plane.kubectl("-n", self.kube.namespace, "get", "failoverruns", "-o", "name").stdout.split()

    def _kill_soon_after(self, kind: str, name: str, wanted: str, actors: tuple[str, ...]) -> None:
        self.kube.apply(self._write("ProtectedVM"))
        self.kube.wait(kind, name, lambda one: phase(one) in (wanted, "Protected"), within=120, say=progress,
                       failed=failure)  # fmt: skip
        for actor in actors:
            self._restart(actor)

    def _restart(self, actor: str) -> None:
        self.stage.processes[actor].kill()
        time.sleep(1)
        if actor == "operator":
            self.stage.start_operator()
        elif actor == "ps-stack":
            self.stage.restart_process_server(actor, self.source.gateway)
        else:
            self.stage.restart_process_server(actor, "127.0.0.1")


class KilledInTheDrill(Killed):
    """Operator and recovery process server die while the drill's disks are hydrated."""

    def protect(self) -> None:
        Scenario.protect(self)

    def drill(self) -> None:
        self.kube.apply(self._write("TestFailover"))
        self.kube.wait("testfailover", self._name("TestFailover"), lambda one: phase(one) == "Running", within=60)
        for actor in ("ps-shore", "operator"):
            self._restart(actor)
        super().drill()


def test_killing_operator_and_process_server_while_copying_loses_nothing(stage: Stage) -> None:
    summary = Summary()
    play(Killed(stage, summary, lambda _: None, print))
    assert summary.ok, summary


def test_killing_operator_and_process_server_in_a_drill_ends_with_one_run(stage: Stage) -> None:
    summary = Summary()
    play(KilledInTheDrill(stage, summary, lambda _: None, print))
    assert summary.ok, summary


def test_a_secret_in_a_log_would_be_noticed() -> None:
    assert leaks({"the SSH password": "hunter22"}, {"ps.log": "login as root with hunter22"}) == [
        "the SSH password is in ps.log"
    ]
