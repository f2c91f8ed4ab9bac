"""`farshore plan`: what it says of a tree of manifests, by the operator's own decisions, with a played cluster."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.decide_world import NOW, meta, point, report, site, vault, vm

from farshore_cli.planning import render
from farshore_cli.planning.cluster import Declined, NoDryRun
from farshore_cli.planning.manifests import Manifest, read
from farshore_cli.planning.report import Report, Verdict
from farshore_cli.planning.report import report as make_report
from farshore_engine.contract.faults import StopFault

Json = dict[str, Any]
READY = [{"type": "Ready", "status": "True", "reason": "Connected", "lastTransitionTime": NOW.isoformat()}]
HEAD = {"apiVersion": "farshore.dev/v1alpha1"}


def server(name: str, place: str) -> Json:
    status = {
        "conditions": READY,
        "registration": {"phase": "Registered"},
        "appliance": {
            "version": "1", "address": "10.0.0.1", "dataPort": 9443, "lastContact": NOW.isoformat(),
            "clockSkewSeconds": 0, "spool": {"usedBytes": 0, "sizeBytes": 1}, "canRunMachines": True,
        },
    }  # fmt: skip
    return {
        **HEAD,
        "kind": "ProcessServer",
        "metadata": meta(name),
        "spec": {"siteRef": {"name": place}},
        "status": status,
    }


def machine(name: str = "web-01", **more: Any) -> Json:
    told = report(last_point=point(), recent_points=(point(), point(timedelta(hours=2))))
    body = vm(active_site="source", replication=told).dump()
    body["metadata"] = meta(name, labels={"app": "shop"})
    return {**body, **more}


def plan(active: str = "source", **spec: Any) -> Json:
    groups = [{"name": "web", "members": [{"name": "web-01"}]}]
    body = {"groups": groups, "activeSite": active, "recoveryPoint": "LatestProcessed", **spec}
    return {**HEAD, "kind": "FailoverPlan", "metadata": meta("shop"), "spec": body}


def settled(body: Json) -> Json:
    """Return the plan as the operator has seen it at the source."""
    edit = {
        "generation": 1,
        "activeSite": "source",
        "accepted": True,
        "reason": "NothingToDo",
        "seenAt": NOW.isoformat(),
    }
    return {**body, "status": {"edit": edit, "activeSite": "source"}}


def named(found: Any, kind: str) -> Json:
    body = found.dump()
    return {**body, "kind": kind, "metadata": found.metadata.model_dump(by_alias=True, mode="json", exclude_none=True)}


class PlayedCluster:
    """What is there; a dry run merges as the API server would, unless it is refused or not allowed."""

    def __init__(self, *objects: Json, secrets: bool | None = True, fault: Exception | None = None) -> None:
        ground = [named(site("stack"), "Site"), named(site("shore"), "Site"), named(vault(), "RecoveryVault")]
        policy = {**HEAD, "kind": "ReplicationPolicy", "metadata": meta("standard"), "spec": {}}
        self._objects = [*ground, policy, server("ps-stack", "stack"), server("ps-shore", "shore"), *objects]
        self._secrets, self._fault = secrets, fault
        self.managers: list[str] = []

    def objects(self, namespace: str) -> list[Json]:
        return [copy.deepcopy(one) for one in self._objects if one["metadata"]["namespace"] == namespace]

    def has_secret(self, namespace: str, name: str) -> bool | None:
        return self._secrets

    def dry_run(self, manifest: Manifest, manager: str) -> Json:
        self.managers.append(manager)
        if self._fault is not None:
            raise self._fault
        place = (manifest.kind, manifest.name)
        old = next((one for one in self._objects if (one["kind"], one["metadata"]["name"]) == place), None)
        if old is None:
            return {**manifest.body, "metadata": {**manifest.body["metadata"], "uid": "new", "generation": 1}}
        spec = {**old["spec"], **manifest.body["spec"]}
        generation = old["metadata"]["generation"] + (spec != old["spec"])
        return {**old, "spec": spec, "metadata": {**old["metadata"], "generation": generation}}


def planned(tmp_path: Path, cluster: PlayedCluster, *bodies: Json) -> Report:
    written = [{key: one[key] for key in ("apiVersion", "kind", "metadata", "spec")} for one in bodies]
    for one in written:
        one["metadata"] = {key: one["metadata"][key] for key in ("name", "namespace")}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(written))
    return make_report(read([tmp_path], "shop"), cluster, lambda: NOW)


def test_a_tree_that_changes_nothing_is_harmless(tmp_path: Path) -> None:
    found = planned(tmp_path, PlayedCluster(machine(), settled(plan())), machine(), plan())
    assert found.verdict is Verdict.HARMLESS and {one.change for one in found.previews} == {"none"}
    assert "0 of 2 objects would change; no run would start" in found.headline


def test_an_edit_of_active_site_says_all_that_would_follow(tmp_path: Path) -> None:
    hooks = {
        "before": [{"name": "dns", "http": {"url": "https://dns.example"}}],
        "after": [{"name": "go", "approval": {"message": "?"}, "onFailure": "RollBack"}],
    }
    groups = [
        {"name": "db", "members": [{"name": "db-01"}], **hooks},
        {"name": "web", "maxParallel": 1, "members": [{"selector": {"matchLabels": {"app": "shop"}}}]},
    ]
    cluster = PlayedCluster(machine(), machine("db-01"), settled(plan(groups=groups)))
    found = planned(tmp_path, cluster, plan("recovery", groups=groups))
    assert found.verdict is Verdict.MOVES
    (one,) = found.previews
    assert one.fields == [("spec.activeSite", "source", "recovery")]
    (run,) = one.runs
    assert (run.kind, run.name, run.moves) == ("Failover", "shop-uid-s-2-failover", True)
    assert [stage.title for stage in run.stages] == [
        "Hook dns before group db: a web service is called; if it fails: Stop",
        "Group db",
        "Hook go after group db: people approve; if it fails: RollBack",
        "Group web, 1 at a time",
    ]
    assert [[m.name for m in stage.machines] for stage in run.stages if stage.machines] == [["db-01"], ["web-01"]]
    shown = run.stages[1].machines[0]
    assert shown.steps[:3] == ["ShutdownSource (ps-stack)", "Fence (ps-shore)", "SelectPoint (ps-shore)"]
    assert shown.rpo_seconds == 60.0 == run.rpo_seconds
    assert "p-20250131t075900z-1 of 2025-01-31T07:59:00Z" in shown.point
    assert shown.makes[0].startswith("machine db-01 at site shore")
    whens = {revert.when: revert.outcome for revert in one.reverts}
    assert "nothing is moved" in whens["while the run is under way"]
    assert "nothing is moved" in whens["after the run has succeeded"]
    assert "DesiredStateMismatch" in whens["after the run has succeeded"]


@pytest.mark.parametrize(
    ("change", "objects", "word"),
    [
        pytest.param(plan("recovery"), (settled(plan()),), "ProtectedVM shop/web-01, which does not exist", id="gone"),
        pytest.param(
            plan("recovery"),
            (settled(plan()), machine(status={"activeSite": "source"})),
            "there is no recovery point yet",
            id="no-point",
        ),
        pytest.param(plan("recovery"), (machine(),), "created with activeSite recovery", id="created-at-recovery"),
    ],
)
def test_what_could_not_start_is_blocked(tmp_path: Path, change: Json, objects: tuple[Json, ...], word: str) -> None:
    found = planned(tmp_path, PlayedCluster(*objects), change)
    assert found.verdict is Verdict.BLOCKED
    assert word in " ".join(found.previews[0].blockers)
    assert found.previews[0].runs == []


def test_a_rule_that_refuses_is_told(tmp_path: Path) -> None:
    refused = Declined("spec.commit names no run")
    found = planned(tmp_path, PlayedCluster(machine(), settled(plan()), fault=refused), plan(commit="yes"))
    assert found.verdict is Verdict.BLOCKED and found.previews[0].blockers == ["spec.commit names no run"]


class TestWithoutDryRun:
    """A reader may not ask for a dry run."""

    FORBIDDEN = NoDryRun("a dry run was refused (403): cannot patch")

    def test_the_schema_is_checked_and_that_is_said(self, tmp_path: Path) -> None:
        cluster = PlayedCluster(machine(), settled(plan()), fault=self.FORBIDDEN, secrets=None)
        found = planned(tmp_path, cluster, plan("recovery"))
        assert found.verdict is Verdict.MOVES
        assert found.previews[0].checked.startswith("schema only: a dry run was refused (403)")
        assert any("Secrets may not be read here" in note for note in found.notes)

    @pytest.mark.parametrize(
        ("spec", "word"),
        [
            pytest.param({"activSite": "recovery"}, "fields that do not exist: spec.activSite", id="a-typo"),
            pytest.param({"mode": "quick"}, "mode", id="an-unknown-word"),
        ],
    )
    def test_a_mistake_is_found(self, tmp_path: Path, spec: Json, word: str) -> None:
        cluster = PlayedCluster(machine(), settled(plan()), fault=self.FORBIDDEN)
        found = planned(tmp_path, cluster, plan(**spec))
        assert found.verdict is Verdict.BLOCKED and word in found.previews[0].blockers[0]


def test_approval_by_git_does_not_stop_the_preview(tmp_path: Path) -> None:
    """A pipeline is not Git's own account: its dry run is refused, which says nothing of the commit."""
    fault = Declined("ValidatingAdmissionPolicy denied: spec.activeSite of FailoverPlan shop is changed in Git, ...")
    found = planned(tmp_path, PlayedCluster(machine(), settled(plan()), fault=fault), plan("recovery"))
    assert found.verdict is Verdict.MOVES and "Git's own account" in found.previews[0].checked


def test_the_dry_run_is_that_of_who_applies_from_git(tmp_path: Path) -> None:
    """As another manager, a field that the tree has lost would seem to stay."""
    live = settled(plan())
    live["metadata"]["managedFields"] = [{"manager": "kustomize-controller", "operation": "Apply", "fieldsV1": {}}]
    cluster = PlayedCluster(machine(), live)
    planned(tmp_path, cluster, plan())
    assert cluster.managers == ["kustomize-controller"]


def test_a_drill_starts_a_run_that_moves_nothing(tmp_path: Path) -> None:
    drill = {**HEAD, "kind": "TestFailover", "metadata": meta("try"), "spec": {"protectedVMRef": {"name": "web-01"}}}
    found = planned(tmp_path, PlayedCluster(machine()), drill)
    assert found.verdict is Verdict.HARMLESS
    assert [run.kind for run in found.previews[0].runs] == ["TestFailover"]
    assert "cleans up" in found.previews[0].reverts[0].outcome


@pytest.mark.parametrize(
    "shape", [render.as_text, render.as_markdown, render.as_json], ids=["text", "markdown", "json"]
)
def test_every_shape_says_the_same(tmp_path: Path, shape: Any) -> None:
    cluster = PlayedCluster(machine(), settled(plan()))
    text = shape(planned(tmp_path, cluster, plan("recovery")))
    for word in ("shop-uid-s-2-failover", "Hydrate", "web-01", "while the run is under way"):
        assert word in text
    if shape is render.as_json:
        body = json.loads(text)
        assert (body["exitCode"], body["verdict"]) == (2, "moves")
        assert body["objects"][0]["runs"][0]["rpo_seconds"] == 60.0


class TestTree:
    """What counts of a tree of files."""

    def test_other_objects_and_templates_are_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n---\n{{ if }}\n")
        (tmp_path / "b.yaml").write_text("{{ .Values.x }}\n- : [")
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git" / "c.yaml").write_text(yaml.safe_dump(plan()))
        (tmp_path / "notes.txt").write_text("kind: FailoverPlan")
        tree = read([tmp_path], "shop")
        assert tree.manifests == () and len(tree.notes) >= 1

    def test_lists_and_namespaces(self, tmp_path: Path) -> None:
        one = {**HEAD, "kind": "Site", "metadata": {"name": "a"}, "spec": {"provider": "local"}}
        other = {**one, "metadata": {"name": "b", "namespace": "elsewhere"}}
        (tmp_path / "a.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [one, other]}))
        assert [(one.namespace, one.name) for one in read([tmp_path], "shop").manifests] == [
            ("shop", "a"),
            ("elsewhere", "b"),
        ]

    def test_the_same_object_twice_is_two_environments(self, tmp_path: Path) -> None:
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / name).write_text(yaml.safe_dump(plan()))
        with pytest.raises(StopFault, match=r"is declared in .*a\.yaml and in .*b\.yaml"):
            read([tmp_path], "shop")

    def test_a_path_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(StopFault, match="does not exist"):
            read([tmp_path / "x"], "shop")
