"""One command moves everything: `farshore plan`, `failover`, `approve` and `run` with a real operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.moving_scene import PLAN, VM, Scene, approve
from tests.cluster.operator_process import condition, samples
from tests.cluster.people import person

from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import FailoverPlan, FailoverRun, ProtectedVM
from farshore_operator.api.protectedvm import ProtectionPhase


def as_person(scene: Scene, directory: Path, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as somebody whom the administrator impersonates."""
    config = yaml.safe_load(scene.world.plane.kubeconfig.read_text())
    for one in config["users"]:
        one["user"]["as"] = user
        one["user"]["as-groups"] = ["system:authenticated"]
    path = directory / f"{user}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    environment = {**os.environ, **scene.world.plane.environment(), "KUBECONFIG": str(path)}
    command = [sys.executable, "-m", "farshore_cli.main", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)


def tree(directory: Path, **spec: Any) -> Path:
    """Write a pull request's tree: the plan with another spec, and the machine as it is."""
    plan = samples("FailoverPlan")[0]
    group = {"name": "web", "members": [{"name": VM}], "before": [], "after": []}
    plan["spec"] |= {"groups": [group], "mode": "unplanned", **spec}
    path = directory / "tree"
    path.mkdir(exist_ok=True)
    (path / "all.yaml").write_text(yaml.safe_dump_all([plan, *samples("ProtectedVM", "Site")]))
    return path


def test_plan_says_what_the_operator_then_does(scene: Scene, tmp_path: Path) -> None:
    scene.plan()
    words = ("plan", str(tree(tmp_path)), "-n", scene.namespace, "-o", "json")
    quiet = scene.world.farshore(*words, check=False)
    assert quiet.returncode == 0, quiet.stdout + quiet.stderr
    before = scene.world.get(FailoverPlan, scene.namespace, PLAN)
    tree(tmp_path, activeSite="recovery")
    moves = scene.world.farshore(*words, check=False)
    assert moves.returncode == 2, moves.stdout + moves.stderr
    (shown,) = [one for one in json.loads(moves.stdout)["objects"] if one["kind"] == "FailoverPlan"]
    assert shown["checked"] == "dry run"
    assert list(shown["fields"][0].values()) == ["spec.activeSite", "source", "recovery"]
    after = scene.world.get(FailoverPlan, scene.namespace, PLAN)  # whose status the operator may have written
    assert (after.metadata.generation, after.spec) == (before.metadata.generation, before.spec), "nothing is written"
    assert after.metadata.annotations == before.metadata.annotations
    (run,) = shown["runs"]
    scene.fail_over()
    real = scene.run()
    assert real.metadata.name == run["name"]
    done = scene.wait_run(real.metadata.name, lambda run: run.status.finished_at is not None)
    steps = [step.name for step in done.status.steps if step.member and step.name != "WriteReport"]
    assert [step.split()[0] for step in run["stages"][0]["machines"][0]["steps"]] == steps, "the same decisions"


def test_a_reader_may_plan(scene: Scene, tmp_path: Path) -> None:
    """Without the right to patch there is no dry run, and without Secrets those are taken as good: it says both."""
    scene.plan()
    space = ("-n", scene.namespace)
    person(scene.world.plane, scene.namespace, "rita", "farshore-reader")
    words = ("plan", str(tree(tmp_path, activeSite="recovery")), *space)
    told = as_person(scene, tmp_path, "rita", *words)
    assert told.returncode == 2, told.stdout + told.stderr
    assert "schema only" in told.stdout and "Secrets may not be read here" in told.stdout
    assert "Failover " in told.stdout and f"{VM}: point " in told.stdout
    tree(tmp_path, activeSite="recovery", typo=1)
    wrong = as_person(scene, tmp_path, "rita", *words)
    assert wrong.returncode == 3 and "fields that do not exist: spec.typo" in wrong.stdout
    tree(tmp_path, commit="yes")
    refused = scene.world.farshore(*words, check=False)
    assert refused.returncode == 3 and "names no run" in refused.stdout, "a rule that only the API server knows"


def test_one_command_moves_everything_and_tells_it(scene: Scene, tmp_path: Path) -> None:
    people = {"name": "go", "approval": {"message": "Is it dark?", "users": ["ann"]}}
    scene.plan([people])
    space = ("-n", scene.namespace)
    person(scene.world.plane, scene.namespace, "olga", "farshore-failover-operator")
    unasked = as_person(scene, tmp_path, "olga", "failover", PLAN, "--to", "recovery", *space)
    assert unasked.returncode == 1 and "would start" in unasked.stdout and "give --yes" in unasked.stderr
    words = ("failover", PLAN, "--to", "recovery", "--point", "LatestProcessed", "--reason", "storm", "--yes")
    begun = as_person(scene, tmp_path, "olga", *words, "--no-follow", *space)
    assert begun.returncode == 0, begun.stderr
    name = begun.stdout.strip()
    waits = scene.wait_run(name, lambda run: condition(run, "AwaitingApproval") == "True")
    assert waits.spec.recovery_point == "LatestProcessed"
    asked = waits.spec.requested_by
    assert asked is not None and (asked.user, asked.reason, asked.field_manager) == ("olga", "storm", "farshore-cli")
    own = as_person(scene, tmp_path, "olga", "approve", name, "go", *space)
    assert own.returncode == 0, own.stderr
    person(scene.world.plane, scene.namespace, "ann", "farshore-approver")
    assert scene.shore.done[TaskKind.HYDRATE] == 0, "olga is not asked"
    assert as_person(scene, tmp_path, "ann", "approve", name, "web/before/go", "-m", "it is", *space).returncode == 0
    told = scene.world.farshore("run", name, "--follow", *space)
    for word in (
        f"Failover {name} of FailoverPlan {PLAN}: {VM}, asked by olga (storm)",
        "approved by ann",
        "Succeeded:",
    ):
        assert word in told.stdout
    assert told.stdout.index("web/before/go") < told.stdout.index(f"{VM} Hydrate")
    # The machine's status follows that of the run, in a reconciliation of its own.
    scene.world.wait(ProtectedVM, scene.namespace, VM, lambda vm: vm.status.phase is ProtectionPhase.FAILED_OVER)
    again = scene.world.farshore("failover", PLAN, "--to", "recovery", "--yes", *space, check=False)
    assert again.returncode == 1 and "is recovery already" in again.stderr


def test_a_move_that_cannot_start_says_why_and_ends_so(scene: Scene) -> None:
    scene.plan(groups=[{"name": "web", "members": [{"name": VM}, {"name": "ghost"}]}])
    words = ("failover", PLAN, "--to", "recovery", "--yes", "-n", scene.namespace)
    told = scene.world.farshore(*words, check=False)
    assert told.returncode == 3, told.stdout + told.stderr
    assert "it could not start: " in told.stderr and "ghost" in told.stderr
    assert scene.world.all(FailoverRun, scene.namespace) == []


def test_a_rejection_ends_the_command_with_a_failure(scene: Scene) -> None:
    scene.plan([{"name": "go", "approval": {"message": "?"}}])
    space = ("-n", scene.namespace)
    command = [sys.executable, "-m", "farshore_cli.main", "failover", PLAN, "--to", "recovery", "--yes", *space]
    environment = {**os.environ, **scene.world.plane.environment()}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            told = next(line for line in running.stdout if "waiting for people" in line)
            name = scene.run().metadata.name
            approve(scene, name, "bob", answer="Reject")
            output, _ = running.communicate(timeout=400)
        finally:
            running.kill()
    assert running.returncode == 1
    assert "farshore approve" in told and "bob rejected it: still light" in output
    with pytest.raises(AssertionError):
        scene.world.farshore("approve", name, "go", *space)
