"""The commands that move machines: how a run is told, which hook is meant, and whose name an approval carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.decide_world import NOW, meta, run

from farshore_cli import runstory
from farshore_cli.commands.approve import approval, waiting_step
from farshore_cli.formats import MoveMode, Place, Shutdown
from farshore_engine.contract.faults import StopFault
from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverplan import ActiveSite, Mode, ShutdownSource
from farshore_operator.kube.connection import from_environment

ASK = {"name": "go", "approval": {"message": "?", "groups": ["dba"]}}


def told(*steps: dict[str, Any], phase: str = "Running", **status: Any) -> FailoverRun:
    base = run(phase=phase, steps=[{"member": "", **step} for step in steps], **status).dump()
    base["spec"] |= {"groups": [{"name": "web", "before": [ASK]}, {"name": "db", "after": [ASK]}]}
    return FailoverRun.of({**base, "metadata": meta("a-run", creationTimestamp=NOW.isoformat())})


def step(name: str, phase: str = "Running", **more: Any) -> dict[str, Any]:
    return {"name": name, "member": "web-01", "phase": phase, "startedAt": NOW.isoformat(), **more}


def waits(name: str) -> dict[str, Any]:
    return {**step(name, remedy=f"farshore approve a-run {name}"), "member": ""}


HALF = told(step("Fence", "Succeeded"), step("Hydrate", percent=50))


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        pytest.param(
            None, HALF, ["08:00:00  web-01 Fence Succeeded", "08:00:00  web-01 Hydrate Running 50 %"], id="first-look"
        ),
        pytest.param(HALF, HALF, [], id="nothing-new"),
        pytest.param(HALF, told(step("Fence", "Succeeded"), step("Hydrate", percent=54)), [], id="a-little-further"),
        pytest.param(
            HALF,
            told(step("Fence", "Succeeded"), step("Hydrate", percent=61, message="2 of 3 disks")),
            ["08:00:00  web-01 Hydrate Running 61 %: 2 of 3 disks"],
            id="a-tenth-further",
        ),
        pytest.param(
            HALF,
            told(
                step("Fence", "Succeeded"), step("Hydrate", percent=50), phase="Succeeded", rpoSeconds=4, rtoSeconds=90
            ),
            ["Succeeded: RPO 4 s, RTO 90 s"],
            id="the-end",
        ),
        pytest.param(
            None,
            told(waits("web/before/go")),
            [
                "08:00:00  web/before/go Running",
                "          waiting for people: farshore approve a-run web/before/go",
            ],
            id="waits-for-people",
        ),
    ],
)
def test_a_run_is_told_as_it_happens(before: FailoverRun | None, after: FailoverRun, lines: list[str]) -> None:
    assert runstory.news(before, after) == lines


def test_a_failed_run_says_what_to_do() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "RunFailed", "lastTransitionTime": NOW.isoformat()}
    failed = told(phase="Failed", conditions=[{**ready, "message": "no space"}], nextStep="make some")
    assert runstory.ending(failed) == "Failed: no space\n  what to do: make some"


@pytest.mark.parametrize("hook", ["go", "web/before/go"])
def test_a_hook_is_meant_by_either_name(hook: str) -> None:
    assert waiting_step(told(waits("web/before/go")), hook).name == "web/before/go"


@pytest.mark.parametrize(
    ("steps", "hook"),
    [
        pytest.param([waits("web/before/go")], "other", id="unknown"),
        pytest.param([], "go", id="none-waits"),
        pytest.param([waits("web/before/go"), waits("db/after/go")], "go", id="two-of-that-name"),
        pytest.param([{**waits("web/before/go"), "phase": "Succeeded"}], "go", id="over"),
    ],
)
def test_a_hook_that_is_not_clear_is_refused(steps: list[dict[str, Any]], hook: str) -> None:
    with pytest.raises(StopFault, match="no single hook"):
        waiting_step(told(*steps), hook)


def test_an_approval_names_the_person_and_only_the_groups_that_matter() -> None:
    found = told(waits("web/before/go"))
    (waiting,) = found.status.steps
    made = approval(found, waiting, "ann@example.com", ("system:authenticated", "dba"), reject=False, comment="dark")
    assert made["spec"] == {
        "run": "a-run", "hook": "web/before/go", "answer": "Approve", "user": "ann@example.com", "groups": ["dba"],
        "comment": "dark",
    }  # fmt: skip
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-a-run"
    other = approval(found, waiting, "bob", (), reject=True, comment="")
    assert other["metadata"]["name"] != made["metadata"]["name"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Place, ActiveSite), (MoveMode, Mode), (Shutdown, ShutdownSource)],
    ids=["to", "mode", "shutdown"],
)
def test_the_options_take_the_words_of_the_plan(ours: Any, theirs: Any) -> None:
    assert {one.value for one in ours} == {one.value for one in theirs}


def test_the_command_line_acts_as_the_kubeconfig_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python client ignores `as`: who acted as nobody in particular with kubectl was an administrator here."""
    user = {"token": "t", "as": "jane", "as-groups": ["farshore:break-glass", "ops"]}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "other", "user": {"token": "x"}}, {"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }  # fmt: skip
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    headers = from_environment().default_headers
    assert headers["Impersonate-User"] == "jane"
    assert list(headers.getlist("Impersonate-Group")) == ["farshore:break-glass", "ops"]
