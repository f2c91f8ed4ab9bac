"""Turns a model into the structural OpenAPI schema that a CRD needs: no references, no nulls, every list typed.

Pure: a model class in, a dictionary out. What would not survive the API server is refused here, with the field's path,
so that a mistake in a model shows before the API server is asked.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "description",
    "default",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)
_FORMATS = {"integer": "int64", "number": "double"}


class SchemaError(ValueError):
    """A model that cannot become a structural schema; the message has the path of the field."""


class _FieldOrder(GenerateJsonSchema):
    """Keeps fields in the order in which the model declares them."""

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value


def structural(model: type[BaseModel], *, defaults: bool) -> Schema:
    """Return the structural schema of a model.

    Args:
        model: class of a spec or a status.
        defaults: whether the API server fills in the models' defaults.

    Raises:
        SchemaError: a field has no description, or a type that a CRD cannot express.
    """
    source = model.model_json_schema(by_alias=True, mode="serialization", schema_generator=_FieldOrder)
    return _convert(source, source.get("$defs", {}), model.__name__, defaults)


def _convert(source: Schema, definitions: Schema, path: str, defaults: bool) -> Schema:
    """Return `source` with references resolved and everything left out that a CRD does not know."""
    source = _resolve(source, definitions, path)
    kind = source.get("type")
    if kind is None:
        raise SchemaError(f"{path} has no single type: {sorted(source)}")
    result = {key: source[key] for key in _KEPT if key in source}
    result |= {key: value for key, value in source.items() if key.startswith("x-kubernetes-")}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if not defaults or _empty(result.get("default")):
        result.pop("default", None)
    if kind in _FORMATS:
        result.setdefault("format", _FORMATS[kind])
    elif kind == "array":
        result["items"] = _item(source["items"], definitions, f"{path}[]", defaults)
        result.setdefault("x-kubernetes-list-type", "atomic")
    elif kind == "object":
        _object(source, result, definitions, path, defaults)
    return result


def _object(source: Schema, result: Schema, definitions: Schema, path: str, defaults: bool) -> None:
    """Add the fields of an object, or the values of a map, to `result`."""
    if "properties" not in source:
        values = source.get("additionalProperties")
        if not isinstance(values, dict):
            raise SchemaError(f"{path} is an object without fields")
        result["additionalProperties"] = _item(values, definitions, f"{path}{{}}", defaults)
        return
    properties: Schema = {}
    for name, field in source["properties"].items():
        properties[name] = _convert(field, definitions, f"{path}.{name}", defaults)
        if not properties[name].get("description"):
            raise SchemaError(f"{path}.{name} has no description: write a docstring below the field")
    result["properties"] = properties
    if source.get("required"):
        result["required"] = list(source["required"])
    if "default" in result:
        result["default"] = {}  # the fields fill in their own


def _item(source: Schema, definitions: Schema, path: str, defaults: bool) -> Schema:
    """Return the schema of a list's items or a map's values, without the description that nobody is shown."""
    result = _convert(source, definitions, path, defaults)
    result.pop("description", None)
    return result


def _resolve(source: Schema, definitions: Schema, path: str) -> Schema:
    """Replace a reference by what it means, and `X or null` by X; what stands beside them wins."""
    beside = {key: value for key, value in source.items() if key not in ("$ref", "anyOf", "title")}
    if "$ref" in source:
        target = _resolve(definitions[source["$ref"].rsplit("/", 1)[1]], definitions, path)
        return target | beside
    if "anyOf" in source:
        choices = [choice for choice in source["anyOf"] if choice.get("type") != "null"]
        if len(choices) != 1:
            raise SchemaError(f"{path} may have one of several types, which a CRD cannot express")
        return _resolve(choices[0], definitions, path) | beside
    return beside


def _empty(default: Any) -> bool:
    """Tell whether a default says nothing that absence does not."""
    return default is None or default == "" or default == []
