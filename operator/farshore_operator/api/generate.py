"""Writes the CRDs from the models: `python -m farshore_operator.api.generate [--check]`, which `make crds` calls.

They go to `crds/`, for those who apply plain manifests, and to the chart, wrapped so that Helm upgrades them and keeps
them when the release is removed. The same models always give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import yaml

from farshore_operator.api import CATEGORY, GROUP, KINDS, VERSION
from farshore_operator.api.resource import Column, Resource
from farshore_operator.api.schema import structural
from farshore_operator.api.values import OUR_NAME_LENGTH

HEADER = "# Generated from operator/farshore_operator/api by `make crds`. Do not edit.\n"
_PLAIN = Path("crds")
_CHART = Path("charts/farshore/templates/crds")
_KEEP = "  annotations:\n    helm.sh/resource-policy: keep\n"


def crd(kind: type[Resource]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    definition = kind.definition
    names: dict[str, Any] = {
        "kind": definition.kind,
        "listKind": f"{definition.kind}List",
        "plural": definition.plural,
        "singular": definition.kind.lower(),
        "categories": [CATEGORY],
    }
    if definition.short_names:
        names["shortNames"] = list(definition.short_names)
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        **({"subresources": {"status": {}}} if "status" in kind.model_fields else {}),
        "additionalPrinterColumns": [
            *map(_column, definition.columns),
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {"openAPIV3Schema": _schema(kind)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{definition.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "farshore", "app.kubernetes.io/part-of": "farshore"},
        },
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _schema(kind: type[Resource]) -> dict[str, Any]:
    """Return the schema of a whole object."""
    definition = kind.definition
    root: dict[str, Any] = {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{definition.kind}."},
            "metadata": {"type": "object"},
            "spec": _part(kind, "spec", defaults=not definition.written_by_operator),
        },
    }
    if "status" in kind.model_fields:
        # A status holds what was observed: the API server must add nothing to it.
        root["properties"]["status"] = _part(kind, "status", defaults=False)
    if not definition.written_by_operator:
        root["x-kubernetes-validations"] = [
            {
                "rule": f"size(self.metadata.name) <= {OUR_NAME_LENGTH}",
                "message": f"metadata.name may have at most {OUR_NAME_LENGTH} characters, as other names contain it",
            }
        ]
    return root


def _part(kind: type[Resource], name: str, *, defaults: bool) -> dict[str, Any]:
    """Return the schema of the spec or the status."""
    field = kind.model_fields[name]
    model = next(one for one in (*get_args(field.annotation), field.annotation) if isinstance(one, type))
    return structural(model, defaults=defaults) | {"description": field.description}


def _column(column: Column) -> dict[str, Any]:
    """Return a column of `kubectl get`."""
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        entry["description"] = column.description
    if column.wide:
        entry["priority"] = 1
    return entry


@cache
def files() -> Mapping[Path, str]:
    """Return every generated file: its path in the repository, and its content."""
    result = {}
    for kind in KINDS:
        plain = _yaml(crd(kind))
        name = f"{kind.definition.plural}.{GROUP}.yaml"
        result[_PLAIN / name] = HEADER + plain
        escaped = plain.replace("{{", '{{ "{{" }}').replace("\nmetadata:\n", f"\nmetadata:\n{_KEEP}", 1)
        result[_CHART / name] = f"{HEADER}{{{{- if .Values.crds.install }}}}\n{escaped}{{{{- end }}}}\n"
    return MappingProxyType(result)


def _yaml(manifest: dict[str, Any]) -> str:
    return str(yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    """Writes lists indented and repeated parts in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def stale(root: Path) -> list[Path]:
    """Return the generated files that are missing, differ, or should not be there."""
    wanted = files()
    changed = [path for path, text in wanted.items() if not _same(root / path, text)]
    present = [path.relative_to(root) for folder in (_PLAIN, _CHART) for path in sorted((root / folder).glob("*.yaml"))]
    return changed + [path for path in present if path not in wanted]


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def main(arguments: Sequence[str], root: Path) -> int:
    """Write the files, or with --check only name those that are not current. Return the exit code."""
    if "--check" in arguments:
        found = stale(root)
        for path in found:
            print(f"{path} is not current: run `make crds` and commit it", file=sys.stderr)
        return 1 if found else 0
    wanted = files()
    for path in stale(root):
        if path not in wanted:
            (root / path).unlink()
    for path, text in wanted.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parents[3]))
