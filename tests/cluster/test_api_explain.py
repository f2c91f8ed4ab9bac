"""What a user sees of the resources before anything runs: explain, columns, short names, the samples."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from tests.cluster.api_objects import SAMPLES, Caller, example, install_kinds, samples
from tests.cluster.waiting import eventually

from farshore_cli.dev.controlplane import ControlPlane
from farshore_operator.api import KINDS, Resource


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with our kinds, and with their schemas published: those follow for themselves."""
    install_kinds(control_plane)
    caller, names = Caller(control_plane), {f"dev.farshore.v1alpha1.{kind.definition.kind}" for kind in KINDS}

    def published() -> bool:
        schemas = caller.send("GET", "/openapi/v3/apis/farshore.dev/v1alpha1").body.get("components", {}).get("schemas")
        return names <= set(schemas or ())

    eventually(published, "nothing can be explained yet")
    return control_plane


def fields(schema: dict[str, Any], path: str = "") -> dict[str, str]:
    """Return the description of every field below a schema, by path."""
    found = {}
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        found[here] = field.get("description", "")
        found |= fields(field, here) | fields(field.get("items", {}), here)
    return found


def stored(plane: ControlPlane, kind: type[Resource]) -> dict[str, Any]:
    crd = yaml.safe_load(plane.kubectl("get", "crd", f"{kind.definition.plural}.farshore.dev", "-o", "yaml").stdout)
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.definition.kind)
def test_explain_says_something_of_every_field(plane: ControlPlane, kind: type[Resource]) -> None:
    described = fields(stored(plane, kind))
    described.pop("metadata")
    assert [path for path, text in described.items() if not text.strip()] == []
    shown = plane.kubectl("explain", "--recursive", kind.definition.plural).stdout
    for path in described:
        assert re.search(rf"^\s+{re.escape(path.rsplit('.', 1)[-1])}\t", shown, re.M), f"explain does not show {path}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.definition.kind)
def test_explain_tells_the_default_of_every_optional_field(plane: ControlPlane, kind: type[Resource]) -> None:
    """Who writes a manifest must see what happens when a field is left out; choices of one among several name it."""
    schema = stored(plane, kind)["properties"]["spec"]
    if kind.definition.written_by_operator:
        return
    missing = []

    def walk(place: dict[str, Any], path: str) -> None:
        for name, field in place.get("properties", {}).items():
            text = field.get("description", "")
            optional = name not in place.get("required", ())
            chosen = "x-kubernetes-validations" in place  # its rules say which of its fields go together
            if optional and not chosen and not re.search("default", text, re.I):
                missing.append(f"{path}.{name}: {text}")
            walk(field, f"{path}.{name}")
            walk(field.get("items", {}), f"{path}.{name}")

    walk(schema, "spec")
    assert missing == []


def test_a_field_reads_well(plane: ControlPlane) -> None:
    shown = " ".join(plane.kubectl("explain", "pvm.spec.source.install").stdout.split())
    assert "ENUM: Push Manual DESCRIPTION:" in shown
    assert "Who installs the agent: Push (the process server, over SSH) or Manual" in shown
    assert "Default: Push." in shown


def test_the_category_finds_what_users_write(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("-n", namespace, "apply", "-f", str(SAMPLES))
    shown = plane.kubectl("-n", namespace, "get", "farshore", "-o", "name").stdout.split()
    written = [one for one in samples() if one["apiVersion"].startswith("farshore.dev/")]
    assert sorted(shown) == sorted(f"{one['kind'].lower()}.farshore.dev/{one['metadata']['name']}" for one in written)
    assert {one["kind"] for one in written} == {
        kind.definition.kind for kind in KINDS if not kind.definition.written_by_operator
    }, "each kind that users write has a sample"


@pytest.mark.parametrize(
    ("short", "columns"),
    [
        ("pvm", "NAME PHASE READY LAST POINT FAILOVER PROCESS SERVER AGE"),
        ("rv", "NAME ENGINE READY MACHINES AGE"),
        ("ps", "NAME SITE READY REGISTERED LAST CONTACT MACHINES AGE"),
        ("rp", "NAME RPO ALARM EVERY APP EVERY KEEP ALL MACHINES READY AGE"),
        ("fp", "NAME WANTED ACTIVE PHASE READY FAILOVER RUN AGE"),
        ("tf", "NAME PLAN VM PHASE READY RTO S RUN AGE"),
    ],
    ids=lambda value: value if len(value) < 4 else "",
)
def test_a_table_tells_at_a_glance(plane: ControlPlane, namespace: str, short: str, columns: str) -> None:
    plane.kubectl("-n", namespace, "apply", "-f", str(SAMPLES))
    header = plane.kubectl("-n", namespace, "get", short).stdout.splitlines()[0]
    assert " ".join(header.split()) == columns


def test_the_age_of_the_last_point_is_shown_beside_the_phase(plane: ControlPlane, namespace: str) -> None:
    caller = Caller.operator(plane)
    machine = example("ProtectedVM")
    assert caller.create(namespace, machine).message == ""
    point = {"name": "p-20250131t080000z-1", "slot": 1, "time": "2025-01-31T08:00:00.123456Z", "consistency": "crash"}
    report = {"processServer": "ps-stack", "epoch": 1, "state": "Replicating", "lastPoint": point}
    status = {"status": {"phase": "Protected", "replication": report, "nextStep": "Nothing"}}
    assert caller.merge(namespace, machine, status, "status").message == ""
    shown = plane.kubectl("-n", namespace, "get", "pvm", "--no-headers").stdout.split()
    assert shown[:2] == ["web-01", "Protected"]
    assert re.fullmatch(r"\d+d|\d+y\d*d?", shown[2]), shown


def test_two_appliers_share_a_status(plane: ControlPlane, namespace: str) -> None:
    """The process server owns status.replication, the operator the rest: neither disturbs the other."""
    caller = Caller.operator(plane)
    machine = example("ProtectedVM")
    assert caller.create(namespace, machine).message == ""
    head = {key: machine[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": "web-01"}}
    ready = {"type": "Ready", "status": "True", "reason": "Protected", "lastTransitionTime": "2025-01-31T08:00:00Z"}
    stalled = {**ready, "type": "Stalled", "status": "False"}
    report = {"processServer": "ps-stack", "epoch": 1, "state": "Replicating"}
    operator = {"fieldManager": "farshore-operator"}
    server = {"fieldManager": "farshore-processserver"}
    ours = {**head, "status": {"phase": "Protected", "conditions": [ready, stalled]}}
    assert caller.apply(namespace, ours, "status", **operator).message == ""
    assert caller.apply(namespace, {**head, "status": {"replication": report}}, "status", **server).message == ""
    fewer = {**head, "status": {"phase": "Paused", "conditions": [ready]}}
    assert caller.apply(namespace, fewer, "status", **operator).message == ""
    found = caller.get(namespace, machine).body["status"]
    assert found["replication"] == report
    assert found["phase"] == "Paused"
    assert [condition["type"] for condition in found["conditions"]] == ["Ready"]
