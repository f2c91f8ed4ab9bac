"""What the CRD generator promises: structural, bounded, described, always the same bytes, and current in the tree."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from farshore_operator.api import KINDS, ProtectedVM, ReplicationPolicy, Resource
from farshore_operator.api.generate import crd, files, main
from farshore_operator.api.resource import Model
from farshore_operator.api.schema import SchemaError, structural

Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROOT = Path(__file__).resolve().parents[2]


def places(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every schema below one, with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from places(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from places(schema[inner], f"{path}[]")


@cache
def schema_of(kind: type[Resource]) -> dict[str, Any]:
    found: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def test_the_generated_files_are_current() -> None:
    assert main(["--check"], ROOT) == 0


def test_a_stale_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    (tmp_path / "crds" / "tasks.farshore.dev.yaml").write_text("old")
    (tmp_path / "crds" / "gone.farshore.dev.yaml").write_text("a kind that is no more")
    assert main(["--check"], tmp_path) == 1
    told = capsys.readouterr().err
    assert "crds/tasks.farshore.dev.yaml is not current: run `make crds` and commit it" in told
    assert "crds/gone.farshore.dev.yaml is not current" in told
    assert main([], tmp_path) == 0
    assert not (tmp_path / "crds" / "gone.farshore.dev.yaml").exists()


def test_another_process_generates_the_same_bytes() -> None:
    code = "from farshore_operator.api.generate import files; print(repr(sorted(map(str, files().items()))))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == repr(sorted(map(str, files().items())))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.definition.kind)
def test_the_schema_is_structural(kind: type[Resource]) -> None:
    for path, schema in places(schema_of(kind)):
        assert "type" in schema, f"{path} has no type"
        assert not schema.keys() & {"$ref", "anyOf", "allOf", "oneOf", "title", "$defs"}, path
        if schema["type"] == "array":
            assert "x-kubernetes-list-type" in schema, f"{path} does not say how appliers share it"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.definition.kind)
def test_what_users_write_is_bounded(kind: type[Resource]) -> None:
    """The API server estimates the cost of a rule from the bounds."""
    if kind.definition.written_by_operator:
        return
    for path, schema in places(schema_of(kind)["properties"]["spec"], "spec"):
        if schema["type"] == "string":
            assert schema.keys() & {"maxLength", "enum", "format"}, f"{path} may be of any length"
        if schema["type"] == "array":
            assert "maxItems" in schema, f"{path} may have any number of items"
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, f"{path} may have any number of entries"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.definition.kind)
def test_the_api_server_adds_nothing_to_a_status(kind: type[Resource]) -> None:
    status = schema_of(kind)["properties"].get("status", {})
    assert [path for path, schema in places(status) if "default" in schema] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.definition.kind)
def test_a_rule_message_is_one_sentence_without_a_full_stop(kind: type[Resource]) -> None:
    for path, schema in places(schema_of(kind)):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert not rule["message"].endswith("."), f"{path}: kubectl adds to it"
            assert "\n" not in rule["message"], path


def test_the_chart_installs_the_same_kinds() -> None:
    for path, text in files().items():
        if path.parts[0] != "charts":
            continue
        assert text.splitlines()[1] == "{{- if .Values.crds.install }}"
        assert text.splitlines()[-1] == "{{- end }}"
        body = yaml.load("\n".join(text.splitlines()[2:-1]), Fast)
        plain = yaml.load(files()[Path("crds") / path.name], Fast)
        assert body["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert body == plain


def test_defaults_are_those_of_the_models() -> None:
    spec = schema_of(ReplicationPolicy)["properties"]["spec"]["properties"]
    assert spec["rpoThreshold"]["default"] == "15m"
    assert spec["retention"]["default"] == {}
    assert spec["retention"]["properties"]["keepAll"]["default"] == "24h"


def test_a_field_without_a_description_is_refused() -> None:
    class Bare(Model):
        size: int

    with pytest.raises(SchemaError, match=r"Bare\.size has no description: write a docstring below the field"):
        structural(Bare, defaults=True)


def test_a_field_of_two_types_is_refused() -> None:
    class Either(Model):
        size: int | str = Field(description="A number or a word.")

    with pytest.raises(SchemaError, match=r"Either\.size may have one of several types, which a CRD cannot express"):
        structural(Either, defaults=True)


def test_an_object_is_read_and_written_as_it_is() -> None:
    body = yaml.safe_load((ROOT / "manifests" / "samples" / "50-protectedvm.yaml").read_text())
    machine = ProtectedVM.of(body)
    assert machine.spec.source.port == 22
    assert machine.status.phase is None
    again = machine.dump()
    assert again["spec"]["vaultRef"] == {"name": "vault"}
    assert again["spec"]["source"]["credentialsSecretRef"] == {"name": "web-ssh"}
    assert "processServerRef" not in again["spec"], "absent fields stay absent"
