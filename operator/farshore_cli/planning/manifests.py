"""Reads the manifests of a pull request: files and directories of YAML and JSON, of which only our kinds count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from farshore_engine.contract.faults import StopFault
from farshore_operator.api import GROUP, KINDS

Json = dict[str, Any]
SUFFIXES = (".yaml", ".yml", ".json")
DECLARED = {kind.definition.kind for kind in KINDS if not kind.definition.written_by_operator}


@dataclass(frozen=True)
class Manifest:
    """One object as the tree declares it, with its namespace filled in."""

    body: Json
    file: str

    @property
    def kind(self) -> str:
        """Kind of the object."""
        return str(self.body["kind"])

    @property
    def namespace(self) -> str:
        """Namespace of the object."""
        return str(self.body["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Name of the object."""
        return str(self.body["metadata"]["name"])


@dataclass(frozen=True)
class Tree:
    """What was read: our objects in the order of the files, Secrets that are declared too, and what was left out."""

    manifests: tuple[Manifest, ...]
    secrets: frozenset[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = field(default=())


def read(paths: Iterable[Path], namespace: str) -> Tree:
    """Read files and directories; `namespace` is for objects that name none.

    Raises:
        StopFault: a path does not exist, or an object of ours has no name or is declared twice.
    """
    found: dict[tuple[str, str, str], Manifest] = {}
    secrets, notes = set(), []
    for file in _files(paths):
        try:
            bodies = [body for body in yaml.safe_load_all(file.read_text()) if body]
        except (yaml.YAMLError, UnicodeDecodeError):
            notes.append(f"{file} is not plain YAML, and was left out")
            continue
        for body in _objects(bodies):
            meta = body["metadata"] = dict(body.get("metadata") or {})
            meta["namespace"] = meta.get("namespace") or namespace
            if body.get("kind") in ("Secret", "SealedSecret", "ExternalSecret"):
                secrets.add((meta["namespace"], str(meta.get("name", ""))))
            if not str(body.get("apiVersion", "")).startswith(f"{GROUP}/") or body.get("kind") not in DECLARED:
                continue
            one = _named(body, file)
            place = (one.kind, one.namespace, one.name)
            if place in found:
                raise StopFault(
                    f"{one.kind} {one.namespace}/{one.name} is declared in {found[place].file} and in {one.file}",
                    "Give the paths of one environment only",
                )
            found[place] = one
    return Tree(tuple(found.values()), frozenset(secrets), tuple(notes))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise StopFault(f"{path} does not exist", "Give files or directories with manifests")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        hidden = {one for one in inside if any(part.startswith(".") for part in one.relative_to(path).parts)}
        yield from (one for one in inside if one.is_file() and one.suffix in SUFFIXES and one not in hidden)


def _objects(bodies: Iterable[Any]) -> Iterator[Json]:
    for body in bodies:
        if not isinstance(body, dict) or "kind" not in body:
            continue
        if str(body["kind"]).endswith("List") and isinstance(body.get("items"), list):
            yield from _objects(body["items"])
        else:
            yield body


def _named(body: Json, file: Path) -> Manifest:
    name = body["metadata"].get("name")
    if not isinstance(name, str) or not name:
        raise StopFault(f"{file} has a {body['kind']} without metadata.name", "Give it a name")
    return Manifest(body, str(file))
